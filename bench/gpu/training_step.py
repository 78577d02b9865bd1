"""The training step of the paper's MNIST networks on a GPU: fastgan's backends, kernel by kernel, and other libraries.

One unit is one process: a library, where it matters in one precision, since some settle that when they are imported.
Every row is verified by its first step, then timed by itself, and on the disk before the next begins. Tables:
``gpu-training-step`` and ``gpu-kernels``, in the harness's format.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from bench import harness, recipe
from bench.gpu import clock as clocks
from bench.gpu import machine, part, record
from bench.gpu.part import FAILED, NOT_HERE, PASSED, Context, Table
from bench.gpu.record import distinct, step_launches
from bench.harness import CannotRunError, Case
from bench.recipe import Tolerance, Training
from fastgan import datasets
from fastgan.config import Config
from fastgan.datasets import Dataset
from fastgan.errors import DataError
from fastgan.kernels.common import backends, gemm_tile, launcher
from fastgan.kernels.common.devices import TF32_FROM, device
from fastgan.trainer import Trainer

UPDATES = ("alternating", "simultaneous")
_BATCH = 100
# Steps of a graph, and how often it is launched for one sample of the time.
_STEPS, _LAUNCHES, _ROUNDS = 16, 10, 20
# What computes in fastgan's kernels: the precision that is asked for, and its arithmetic.
ARITHMETICS = {
    "FMA": ("float32", gemm_tile.FMA),
    "split": ("float32", gemm_tile.SPLIT),
    "tf32": ("tf32", gemm_tile.TF32),
}
_TOLERANCES = {"float32": recipe.FLOAT32, "tf32": recipe.TF32}
STEP_PARAMS, KERNEL_PARAMS = ("update", "B", "data"), ("update", "times a step", "launch")


class Entry(NamedTuple):
    """A row to be: who computes, what checks its first step, and what times it.

    ``seconds`` gives samples of the time of one step, in seconds.
    """

    name: str
    precision: str
    verify: Callable[[], object]
    seconds: Callable[[], list[float]]
    timer: str
    packages: tuple[str, ...] = ()
    threads: str | None = ""


class NamedTimer(NamedTuple):
    """What a row's time was read from; the reading is done."""

    name: str

    def __call__(self, run: Callable[[], object]) -> float:
        """Never called: a row of this module has been timed."""
        raise AssertionError(f"{self.name} was read already")


def images(context: Context) -> tuple[Dataset, str]:
    """Give MNIST where it lies at hand, else random images of its shape; and its name."""
    try:
        return datasets.load("mnist", data_dir=context.data_dir, download=False), "mnist"
    except DataError:
        return recipe.random_images(), "random"


def run(context: Context, unit: str = "fastgan") -> int:
    """Make the rows of one unit."""
    data, name = images(context)
    if unit == "kernels":
        return time_kernels(context, data, clocks.GraphClock())
    common = context.harness_common
    failed = measured = 0
    with context.comparison("gpu-training-step", STEP_PARAMS, go_on=True) as table:
        for update in UPDATES:
            config = recipe.configuration(update, _BATCH)
            params = {"update": update, "B": _BATCH, "data": name}
            for entry in entries(unit, config, data):
                row = make_row(entry, config, data, params, common, context.left)
                table.add(row)
                print(describe(row))
                failed += is_failure(row)
                measured += not row["missing"]
    print(f"{unit}: {measured} rows measured" + (f", {failed} FAILED" if failed else ""))
    return FAILED if failed else PASSED if measured else NOT_HERE


def make_row(
    entry: Entry, config: Config, data: Dataset, params: dict[str, Any], common: dict[str, str], left: float
) -> dict[str, str]:
    """Verify and time an entry; whatever goes wrong becomes the row's reason."""
    hardware = common["hardware"]
    same: dict[str, Any] = {
        "params": params,
        "flop": recipe.flop_of(recipe.gemms(config, data.num_pixels)),
        "precision": entry.precision,
        "bound": machine.roof(hardware, entry.precision),
        "packages": entry.packages,
        "threads": entry.threads,
    }
    seconds: list[float] = []
    missing = None if left > 0 else "no time was left"
    if missing is None:
        try:
            entry.verify()
            seconds = entry.seconds()
        except CannotRunError as error:
            missing = str(error)
        except AssertionError as error:
            missing = f"failed its verification: {_line(error)}"
        except Exception as error:
            # Whatever a library, its compiler or the device raises: the other rows do not depend on it.
            missing = f"ended with {type(error).__name__}: {_line(error)}"
    if missing is not None:
        return harness.result_row("gpu-training-step", Case(entry.name, missing=missing, **same), (), (), common)
    case = Case(
        entry.name, run=entry.seconds, verify=entry.verify, timer=NamedTimer(entry.timer), measure="images/s", **same
    )
    B = config.batch_size
    return harness.result_row("gpu-training-step", case, seconds, [B / each for each in seconds], common)


def is_failure(row: dict[str, str]) -> bool:
    """Tell whether a row is a failure: a wrong step, or one of fastgan's own that broke; not a peer's trouble."""
    is_own = row["case"].startswith("fastgan")
    return row["missing"].startswith(("failed its verification", "ended with") if is_own else "failed its verification")


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def describe(row: dict[str, str]) -> str:
    """Say a row in a line."""
    what = f"{row['case']}, {row['precision']}, {row['update']}"
    if row["missing"]:
        return f"{what}: {row['missing']}"
    return f"{what}: {float(row['median_s']) * 1e6:.1f} µs a step, {float(row['measured']):,.0f} images/s"


# --- fastgan ---


def entries(unit: str, config: Config, data: Dataset) -> Iterator[Entry]:
    """Yield the rows of a unit."""
    library, _, precision = unit.rpartition("-")
    if unit == "fastgan":
        yield from fastgan_entries(config, data, clocks.GraphClock())
    elif unit == "host":
        yield from other_backends(config, data)
    elif library in PEERS:
        yield from PEERS[library](config, data, precision)
    else:
        raise ValueError(f"unit is {unit!r}; it must be one of {', '.join(UNITS)}")


def fastgan_entries(config: Config, data: Dataset, clock: clocks.Clock) -> Iterator[Entry]:
    """Yield the step as a captured graph, in each arithmetic."""
    cupy = tuple(name for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy") if machine.installed(name))
    for name, (precision, arithmetic) in ARITHMETICS.items():
        own = GraphSteps(config, data, precision, arithmetic, clock)
        yield Entry(f"fastgan cupy, {name}", precision, own.verify, own.seconds, "device events", cupy)


class GraphSteps:
    """fastgan's step on CuPy in one arithmetic."""

    def __init__(self, config: Config, data: Dataset, precision: str, arithmetic: int, clock: clocks.Clock) -> None:
        self._config, self._data, self._precision, self._arithmetic = config, data, precision, arithmetic
        self._clock = clock

    def _with_arithmetic(self, work: Callable[[], Any]) -> Any:
        if self._arithmetic != gemm_tile.FMA and launcher.runtime().architecture < TF32_FROM:
            raise CannotRunError("this GPU has no TF32")
        with record.arithmetic(self._precision, self._arithmetic):
            return work()

    def verify(self) -> None:
        """Check the first step against the reference."""
        tolerance = _TOLERANCES[self._precision]
        self._with_arithmetic(recipe.check_fastgan(self._config, self._data, "cupy", self._precision, tolerance))

    def seconds(self) -> list[float]:
        """Time the captured step."""

        def work() -> list[float]:
            trainer = Trainer(self._config, self._data, device("cupy", precision=self._precision), 1_000_000)
            trainer.step()
            times = self._clock.times(trainer.step, _STEPS, _ROUNDS, launches=_LAUNCHES)
            state = trainer.device.download(trainer.state.non_finite)
            assert not state[0], "a loss became NaN or infinite, and updates stood still from there"
            return times

        found: list[float] = self._with_arithmetic(work)
        return found


def other_backends(config: Config, data: Dataset) -> Iterator[Entry]:
    """Yield numba-cuda, and the host's backends beside the GPU."""
    for backend in ("numba-cuda", "cpu", "reference"):
        packages = tuple(name for name in ("numba-cuda",) if backend == "numba-cuda" and machine.installed(name))
        on_gpu = backend in backends.ON_A_GPU
        own = RepeatedSteps(config, data, backend)
        yield Entry(
            f"fastgan {backend}", "float32", own.verify, own.seconds, "wall clock", packages, "" if on_gpu else None
        )


class RepeatedSteps:
    """fastgan's step on a backend without graphs, as a run repeats it."""

    def __init__(self, config: Config, data: Dataset, backend: str) -> None:
        self._config, self._data, self._backend = config, data, backend

    def verify(self) -> None:
        """Check the first step."""
        if (reason := backends.why_not(self._backend)) is not None:
            raise CannotRunError(reason)
        recipe.check_fastgan(self._config, self._data, self._backend)()

    def seconds(self) -> list[float]:
        """Time steps for some seconds."""
        own = recipe.FastganSteps(self._config, self._data, self._backend)
        return wall_times(partial(own.trainer.device.repeat, own.trainer.step, _STEPS, lambda: False), _STEPS, 3.0)


def wall_times(run: Callable[[], object], steps: int, most: float) -> list[float]:
    """Time a callable that returns when its steps are done; at least three samples, 20 unless that takes too long."""
    run()
    samples: list[float] = []
    until = time.perf_counter() + most
    while len(samples) < 3 or (len(samples) < _ROUNDS and time.perf_counter() < until):
        began = time.perf_counter()
        run()
        samples.append((time.perf_counter() - began) / steps)
    return samples


def time_kernels(context: Context, data: Dataset, clock: clocks.Clock) -> int:
    """Time each launch of the alternating and the simultaneous step by itself, and say its share of the bound."""
    common, hardware = context.harness_common, context.common["hardware"]
    with context.comparison("gpu-kernels", KERNEL_PARAMS) as table:
        for update in UPDATES:
            config = recipe.configuration(update, _BATCH)
            for name, (precision, arithmetic) in ARITHMETICS.items():
                if arithmetic != gemm_tile.FMA and launcher.runtime().architecture < TF32_FROM:
                    continue
                with record.arithmetic(precision, arithmetic):
                    _time_launches(table, config, data, precision, name, clock, common, hardware)
    print(f"kernels: every launch of the step, in {', '.join(ARITHMETICS)}")
    return PASSED


def _time_launches(
    table: Table, config: Config, data: Dataset, precision: str, name: str, clock: clocks.Clock,
    common: dict[str, str], hardware: str,
) -> None:  # fmt: skip
    launches = distinct(step_launches(config, data, precision))
    total = 0.0
    for launch, count in launches:
        seconds = clock.times(launch.run, 20, 7)
        total += count * sorted(seconds)[len(seconds) // 2]
        case = Case(
            f"fastgan cupy, {name}", params={"update": config.update, "times a step": count, "launch": launch.label},
            run=launch.run, verify=launch.run, flop=launch.flop or None, bytes=launch.bytes,
            bound=machine.roof(hardware, precision), timer=NamedTimer("device events"), precision=precision, threads="",
        )  # fmt: skip
        table.add(harness.result_row("gpu-kernels", case, seconds, (), common))
    number = sum(count for _, count in launches)
    print(f"{config.update}, {name}: {number} launches, {total * 1e6:.1f} µs one after the other")


# --- other libraries ---


class Peer:
    """A library's training, made when it is verified."""

    def __init__(
        self, config: Config, data: Dataset, tolerance: Tolerance, make: Callable[[Config, Trainer], Training]
    ):
        self._config, self._data, self._tolerance, self._make = config, data, tolerance, make
        self.training: Any = None

    def verify(self) -> None:
        """Check the first step, and make one with the library's own generator."""
        self.training = self._make(self._config, Trainer(self._config, self._data, device("reference"), 2))
        found = recipe.outcome_of_peer(self._config, self._data, self.training)
        recipe.check_same(found, recipe.outcome_of_fastgan(self._config, self._data, "reference"), self._tolerance)
        self.training.step()


def torch_entries(config: Config, data: Dataset, precision: str, *, where: str = "cuda") -> Iterator[Entry]:
    """Yield PyTorch: launch by launch, and as one bare CUDA graph."""
    for name, options in (("PyTorch", {}), ("PyTorch, CUDA graph", {"graph": True})):
        yield _torch_entry(name, config, data, precision, where, options)


def torch_compile_entries(config: Config, data: Dataset, precision: str, *, where: str = "cuda") -> Iterator[Entry]:
    """Yield PyTorch compiled, launch by launch and as one CUDA graph."""
    for name, options in (
        ("PyTorch torch.compile", {"compiled": True}),
        ("PyTorch torch.compile, CUDA graph", {"compiled": True, "graph": True}),
    ):
        yield _torch_entry(name, config, data, precision, where, options)


def _torch_entry(
    name: str, config: Config, data: Dataset, precision: str, where: str, options: dict[str, bool]
) -> Entry:
    if importlib.util.find_spec("torch") is None:
        return _absent(name, precision, "torch")

    def make(config: Config, trainer: Trainer) -> Training:
        import torch

        from bench.peers.torch_training import TorchTraining

        if where == "cuda" and not torch.cuda.is_available():
            raise CannotRunError("this PyTorch finds no GPU")
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        return TorchTraining(config, trainer, device=where, **options)

    peer = Peer(config, data, _TOLERANCES[precision], make)

    def seconds() -> list[float]:
        steps = 200 if options.get("graph") else 50
        if where != "cuda":
            return wall_times(lambda: [peer.training.step() for _ in range(2)], 2, 1.0)
        return _torch_times(peer.training.step, steps)

    return Entry(name, precision, peer.verify, seconds, "device events", ("torch",))


def _torch_times(step: Callable[[], object], steps: int) -> list[float]:
    import torch

    for _ in range(20):
        step()
    samples = []
    for _ in range(_ROUNDS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(steps):
            step()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) * 1e-3 / steps)
    return samples


def jax_entries(config: Config, data: Dataset, precision: str, *, platform: str = "gpu") -> Iterator[Entry]:
    """Yield JAX: many steps as one compiled loop."""
    name = "JAX jit, scan"
    if importlib.util.find_spec("jax") is None:
        yield _absent(name, precision, "jax")
        return

    def make(config: Config, trainer: Trainer) -> Training:
        import jax

        if jax.default_backend() != platform:
            raise CannotRunError(f"this JAX computes on {jax.default_backend()}, not on a {platform}")
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if precision == "tf32" else "highest")
        from bench.peers.jax_training import JaxTraining

        return JaxTraining(config, trainer, generator="rbg")

    peer = Peer(config, data, _TOLERANCES[precision], make)
    steps = 256 if platform == "gpu" else 2

    def seconds() -> list[float]:
        return wall_times(partial(peer.training.steps, steps), steps, 5.0)

    yield Entry(name, precision, peer.verify, seconds, f"wall clock over {steps} steps", ("jax",))


def cupy_entries(config: Config, data: Dataset, precision: str) -> Iterator[Entry]:
    """Yield CuPy over cuBLAS, as one writes it in an afternoon: it refuses to capture cuBLAS, so there is no graph."""

    def make(config: Config, trainer: Trainer) -> Training:
        import cupy

        from bench.plain_numpy import PlainTraining

        return PlainTraining(config, trainer, cupy)

    if precision == "tf32" and os.environ.get("CUPY_TF32") != "1":
        raise ValueError("CuPy reads CUPY_TF32 when it is imported; set it to 1 for tf32")
    peer = Peer(config, data, _TOLERANCES[precision], make)

    def seconds() -> list[float]:
        import cupy

        def steps() -> None:
            for _ in range(20):
                peer.training.step()
            cupy.cuda.get_current_stream().synchronize()

        return wall_times(steps, 20, 5.0)

    packages = tuple(name for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy") if machine.installed(name))
    yield Entry("CuPy with cuBLAS, unfused", precision, peer.verify, seconds, "wall clock over 20 steps", packages)


def _absent(name: str, precision: str, package: str) -> Entry:
    def refuse() -> None:
        raise CannotRunError(f"not installed: pip install {package}")

    return Entry(name, precision, refuse, list, "")


PEERS: dict[str, Callable[[Config, Dataset, str], Iterator[Entry]]] = {
    "torch": torch_entries,
    "torch-compile": torch_compile_entries,
    "jax": jax_entries,
    "cupy": cupy_entries,
}
# In the order of what is wanted most; what may take longest comes last. With what a process needs to know beforehand.
_NO_POOL = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
UNITS: dict[str, dict[str, str]] = {
    "fastgan": {},
    "torch-tf32": {},
    "torch-float32": {},
    "kernels": {},
    "cupy-float32": {},
    "cupy-tf32": {"CUPY_TF32": "1"},
    "jax-tf32": _NO_POOL,
    "jax-float32": _NO_POOL,
    "host": {},
    "torch-compile-tf32": {},
    "torch-compile-float32": {},
}


if __name__ == "__main__":
    part.main(run, "unit")
