"""What a launch costs, and every tiling of every product of the training step: what tuning goes by.

Tables: ``latency`` (a node of a graph, a cluster, a graph, memory), ``tilings`` (every shape of ``gemm_tile``'s lists,
cut along K or not, clustered or not: time of a launch within a graph of repeats, its result held against the chosen
tiling's), ``tilings-best`` (a line a product: what was chosen, what was quickest).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench import recipe
from bench.gpu import clock as clocks
from bench.gpu import part
from bench.gpu.part import FAILED, PASSED, Context, Table
from bench.gpu.record import Launch, arithmetic, distinct, step_launches
from fastgan.config import Config
from fastgan.datasets import Dataset
from fastgan.kernels.common import cupy_runtime, gemm_tile, launcher
from fastgan.kernels.common.arrays import Array, Workspace
from fastgan.kernels.common.devices import TF32_FROM
from fastgan.kernels.common.gemm_tile import Tiling
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch

_PROBE = "../bench/gpu/probe.cu"
_NOTHING = Kernel(_PROBE, "nothing", threads=32)
_CLUSTER = Kernel(_PROBE, "nothing_in_a_cluster", (("CLUSTERS", 1),), threads=256, cluster=8)
_CLUSTERS_FROM = 90
_CHAIN, _ROUNDS = 200, 15
# Launches of one tiling in its graph, and how often the graph runs.
_REPEATS, _TILING_ROUNDS = 20, 5
ARITHMETICS = {"tf32": gemm_tile.TF32, "fma": gemm_tile.FMA, "split": gemm_tile.SPLIT}
# How far a tiling's result may be from the chosen one's, its largest difference against the rms: only the order of sums
# differs. An element from another place is off by about 1.
_BARS = {"fma": 1e-3, "split": 1e-3, "tf32": 3e-2}


def run(context: Context, what: str = "", arithmetics: str = "") -> int:
    """Fill the tables: ``what`` is launches or tilings, by default both; ``arithmetics`` some of tf32, fma, split."""
    names = [name for name in (arithmetics or ",".join(ARITHMETICS)).split(",") if name]
    if unknown := set(names) - set(ARITHMETICS):
        print(f"arithmetics names {min(unknown)!r}; it takes some of {', '.join(ARITHMETICS)}")
        return FAILED
    clock = clocks.GraphClock()
    if what in ("", "launches"):
        with context.table("latency", ("what", "median µs", "q1 µs", "q3 µs", "GB/s", "GFLOP/s")) as table:
            latencies(table, clock)
            bandwidths(table, clock)
    if what not in ("", "tilings"):
        return PASSED
    if launcher.runtime().architecture < TF32_FROM:
        names = [name for name in names if name == "fma"]
    config, data = recipe.configuration("alternating"), recipe.random_images()
    return sweep(context, clock, config, data, names, clocks.compile_all)


def latencies(table: Table, clock: clocks.Clock) -> None:
    """Time launches that do nothing."""
    runtime = launcher.runtime()

    def chain(kernel: Kernel, grid: tuple[int, int, int]) -> None:
        launch(kernel, grid, word=None)

    def fork() -> None:
        with runtime.branch():
            launch(_NOTHING, (1, 1, 1), word=None)
        launch(_NOTHING, (1, 1, 1), word=None)
        runtime.join()

    asked: list[tuple[str, Callable[[], None]]] = [
        ("a node of a graph, 1 block of 32 threads", partial(chain, _NOTHING, (1, 1, 1))),
        (
            f"a node of a graph, {runtime.num_multiprocessors} blocks",
            partial(chain, _NOTHING, (runtime.num_multiprocessors, 1, 1)),
        ),
        ("two nodes of a graph side by side, and their join", fork),
    ]
    if runtime.architecture >= _CLUSTERS_FROM:
        asked.append(("a node of a graph, 15 clusters of 8 blocks of 256", partial(chain, _CLUSTER, (15, 1, 8))))
    for what, sequence in asked:
        sequence()
        _add(table, what, clock.times(sequence, _CHAIN, _ROUNDS))
    one = asked[0][1]
    _add(table, "a graph of one node, launched again and again", clock.times(one, 1, _ROUNDS, launches=_CHAIN))


def bandwidths(table: Table, clock: clocks.GraphClock) -> None:
    """Time copies, within the L2 cache and beyond it, and a large product of cuBLAS: what the machine reaches."""
    cupy: Any = cupy_runtime.import_cupy()
    for megabytes in (16, 1024):
        source = cupy.ones(megabytes * 2**18, cupy.float32)
        target = cupy.empty_like(source)
        copy = partial(cupy.copyto, target, source)
        _add(
            table,
            f"copy of {megabytes} MB, read and written",
            clock.eager_times(copy, _ROUNDS),
            num_bytes=megabytes * 2**21,
        )
    size = 4096
    a = cupy.random.default_rng(0).random((size, size), dtype=cupy.float32)
    out = cupy.empty_like(a)
    product = partial(cupy.matmul, a, a, out=out)
    _add(table, f"cuBLAS, {size} x {size} x {size}, float32", clock.eager_times(product, _ROUNDS), flop=2 * size**3)


def _add(table: Table, what: str, seconds: list[float], num_bytes: int = 0, flop: int = 0) -> None:
    low, median, high = clocks.quartiles(seconds)
    row: dict[str, object] = {"what": what, "median µs": f"{median * 1e6:.3f}"}
    row |= {"q1 µs": f"{low * 1e6:.3f}", "q3 µs": f"{high * 1e6:.3f}"}
    if num_bytes:
        row["GB/s"] = f"{num_bytes / median * 1e-9:.4g}"
    if flop:
        row["GFLOP/s"] = f"{flop / median * 1e-9:.5g}"
    table.add(row)
    print(", ".join(f"{key} {value}" if key != "what" else str(value) for key, value in row.items()))


@dataclass(frozen=True)
class Candidate:
    """A tiling of one of the step's launches."""

    launch: Launch
    tiling: Tiling
    chosen: bool


def candidates(launch: Launch, workspace: Workspace) -> list[Candidate]:
    """Give every tiling that a product can have: the chosen one first, then those of clusters, then the others."""
    product, runtime = launch.product, launcher.runtime()
    assert product is not None
    clusterings = (True, False) if runtime.architecture >= _CLUSTERS_FROM else (False,)
    tilings = [product.chosen]
    for clusters in clusterings:
        tilings += gemm_tile.candidates(
            product.K, product.operands, product.arithmetic, product.pieces, product.split, product.bytes_a_row,
            clusters, runtime.max_shared_bytes,
        )  # fmt: skip
    return [
        Candidate(launch.tiled(tiling, workspace), tiling, tiling == product.chosen)
        for tiling in dict.fromkeys(tilings)
    ]


_COLUMNS = (
    "launch", "arithmetic", "m", "n", "k", "warps", "stages", "splits", "clustered", "blocks", "shared KB",
    "median µs", "q1 µs", "q3 µs", "GFLOP/s", "chosen", "difference", "note",
)  # fmt: skip


def sweep(
    context: Context,
    clock: clocks.Clock,
    config: Config,
    data: Dataset,
    arithmetics: Iterable[str],
    compile_all: Callable[..., set[Kernel]],
) -> int:
    """Time every tiling of every product of a configuration's step."""
    names, wrong = list(arithmetics), 0
    best_columns = (
        "launch",
        "arithmetic",
        "times a step",
        "chosen",
        "chosen µs",
        "quickest",
        "quickest µs",
        "saved µs a step",
    )
    with context.table("tilings", _COLUMNS) as table, context.table("tilings-best", best_columns) as best_table:
        for number, name in enumerate(names):
            share = context.left / (len(names) - number)
            until = context.left - share

            def goes_on(until: float = until) -> bool:
                return context.left > until

            launches = _products(config, data, name)
            by_launch = [(candidates(launch, device_workspace()), count) for launch, count in launches]
            # Two thirds of the time for the compiler; nobody waits for what is not ready then.
            ready = compile_all((c.launch.kernel for cs, _ in by_launch for c in cs), share * 2 / 3)
            saved = 0.0
            for of_one, count in by_launch:
                found, differing = _sweep_one(table, clock, name, of_one, ready, goes_on)
                wrong += differing
                saved += count * _add_best(best_table, name, of_one[0].launch, count, found)
            print(f"{name}: the quickest tilings would save {saved:.1f} µs a step, launch by launch")
    print(
        f"latency: {wrong} tilings give another result."
        if wrong
        else "latency: all tilings that were timed give the same result."
    )
    return FAILED if wrong else PASSED


def device_workspace() -> Workspace:
    """Make scratch on the device."""
    runtime = launcher.runtime()
    return Workspace(runtime.empty, runtime.upload)


def _products(config: Config, data: Dataset, name: str) -> list[tuple[Launch, int]]:
    precision = "tf32" if name == "tf32" else "float32"
    with arithmetic(precision, ARITHMETICS[name]):
        launches = step_launches(config, data, precision)
    return [(launch, count) for launch, count in distinct(launches) if launch.product is not None]


def _sweep_one(
    table: Table,
    clock: clocks.Clock,
    name: str,
    candidates: list[Candidate],
    ready: set[Kernel],
    goes_on: Callable[[], bool],
) -> tuple[list[tuple[float, Candidate]], int]:
    """Time the tilings of one launch; give medians in seconds, and how many give another result."""
    found: list[tuple[float, Candidate]] = []
    differing, label = 0, candidates[0].launch.label
    results = _Results(candidates[0].launch)
    expected: dict[str, Array] | None = None
    for candidate in candidates:
        tiling, flop = candidate.tiling, candidate.launch.flop
        s = tiling.shape
        row: dict[str, object] = {
            "launch": label, "arithmetic": name, "m": s.m, "n": s.n, "k": s.k, "warps": s.warps_m * s.warps_n,
            "stages": s.stages, "splits": tiling.splits, "clustered": tiling.clustered,
            "blocks": int(np.prod(candidate.launch.grid)), "shared KB": candidate.launch.kernel.shared_bytes // 1024,
            "chosen": candidate.chosen,
        }  # fmt: skip
        if not candidate.chosen and not goes_on():
            table.add(row | {"note": "no time was left"})
            continue
        if not candidate.chosen and candidate.launch.kernel not in ready:
            table.add(row | {"note": "not compiled, or not in time"})
            continue
        try:
            outputs = results.of(candidate.launch)
            expected = outputs if expected is None else expected
            difference = _difference(outputs, expected)
            is_same = difference <= _BARS[name]
            seconds = clock.times(candidate.launch.run, _REPEATS, _TILING_ROUNDS)
        except Exception as error:
            # What the device refuses is a row; if the device is lost, so is all that follows, each with its row.
            table.add(row | {"note": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"})
            differing += 1
            continue
        low, median, high = clocks.quartiles(seconds)
        row |= {"median µs": f"{median * 1e6:.3f}", "q1 µs": f"{low * 1e6:.3f}", "q3 µs": f"{high * 1e6:.3f}"}
        row |= {"GFLOP/s": f"{flop / median * 1e-9:.5g}", "difference": f"{difference:.2g}"}
        table.add(row | ({} if is_same else {"note": "ANOTHER RESULT"}))
        differing += not is_same
        if is_same:
            found.append((median, candidate))
    return found, differing


class _Results:
    """What a launch writes, from the same state each time."""

    def __init__(self, launch: Launch) -> None:
        self._runtime = launcher.runtime()
        self._changed = {
            name: (array, self._runtime.download(array))
            for name, array in launch.outputs().items()
            if name in ("W", "b", "vW", "vb")
        }

    def of(self, launch: Launch) -> dict[str, Array]:
        """Launch, and give the outputs; of an update the velocities, in which a weight's small change is not lost."""
        for array, before in self._changed.values():
            self._runtime.overwrite(array, before)
        launch.run()
        outputs = launch.outputs()
        return {name: self._runtime.download(array) for name, array in outputs.items() if name not in ("W", "b")}


def _difference(found: dict[str, Array], expected: dict[str, Array]) -> float:
    """Give the largest difference against the rms; a NaN is infinitely far."""
    worst = 0.0
    for name, wanted in expected.items():
        scale = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64)))) or 1.0
        largest = float(np.abs(found[name].astype(np.float64) - wanted).max()) / scale
        worst = max(worst, largest if np.isfinite(largest) else float("inf"))
    return worst


def _add_best(table: Table, name: str, launch: Launch, count: int, found: list[tuple[float, Candidate]]) -> float:
    """Add a launch's line; give the microseconds that its quickest tiling would save."""
    chosen = [seconds for seconds, candidate in found if candidate.chosen]
    if not chosen:
        return 0.0
    least, quickest = min(found, key=lambda pair: pair[0])
    saved = (chosen[0] - least) * 1e6
    product = launch.product
    assert product is not None
    table.add({
        "launch": launch.label, "arithmetic": name, "times a step": count,
        "chosen": describe(product.chosen), "chosen µs": f"{chosen[0] * 1e6:.3f}",
        "quickest": describe(quickest.tiling), "quickest µs": f"{least * 1e6:.3f}",
        "saved µs a step": f"{count * saved:.3f}",
    })  # fmt: skip
    print(
        f"{name:5} {launch.label:44} x{count}  chosen {describe(product.chosen):24} {chosen[0] * 1e6:8.2f} µs   "
        f"quickest of {len(found):2} {describe(quickest.tiling):24} {least * 1e6:8.2f} µs"
    )
    return saved


def describe(tiling: Tiling) -> str:
    """Name a tiling: ``208x80x16 / 8 cluster`` for one."""
    s = tiling.shape
    splits = "" if tiling.splits == 1 else f" / {tiling.splits} {'cluster' if tiling.clustered else 'tickets'}"
    return f"{s.m}x{s.n}x{s.k}{splits}"


if __name__ == "__main__":
    part.main(run, "what", "arithmetics")
