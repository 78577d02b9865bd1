"""The Parzen window on a GPU: ten sigmas in one pass, by each arithmetic, beside cuBLAS's products alone and PyTorch.

One table, ``parzen``: milliseconds of the pass over centred data, of the whole operation with all that the host does
besides, and the worst error in nats on some of the queries against the definition in float64.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.gpu import part
from bench.gpu.clock import GraphClock, quartiles
from bench.gpu.part import FAILED, PASSED, Context
from fastgan.errors import BackendError
from fastgan.kernels.common import cupy_runtime, gemm_tile, launcher, planes_tile
from fastgan.kernels.common.planes_tile import WarpgroupTiling
from fastgan.kernels.parzen import cupy_raw, reference
from fastgan.scoring import sigma_grid

# What an arithmetic is called, itself, whether its queries are whole 255ths, and whether it may go by warpgroups, where
# there are any. The operation takes halves, or bytes.
_ARITHMETICS = {
    "halves": (planes_tile.HALVES, False, True),
    "bytes, 8-bit queries": (planes_tile.BYTES, True, True),
    "halves, no warpgroups": (planes_tile.HALVES, False, False),
    "bytes, 8-bit queries, no warpgroups": (planes_tile.BYTES, True, False),
    "split TF32": (gemm_tile.SPLIT, False, False),
    "FMA": (gemm_tile.FMA, False, False),
    "tf32": (gemm_tile.TF32, False, False),
}
_CHECKED_QUERIES = 200
# What the operation promises, for all but the user's own choice of less.
_WORST_NATS = 0.01
_COLUMNS = (
    "what", "M", "N", "D", "S", "ms of the pass", "first quartile", "third quartile", "ms of the operation",
    "TFLOP/s of the product", "worst error in nats", "passed",
)  # fmt: skip

Times = Callable[[Callable[[], object], int], list[float]]


def images(num_rows: int, num_columns: int, seed: int) -> NDArray[np.float32]:
    """Make rows that are as sparse and as clustered as handwritten digits: strokes round a few centres, on black."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).random((10, num_columns)) ** 4
    rows = centres[rng.integers(0, 10, num_rows)] + 0.1 * rng.normal(size=(num_rows, num_columns))
    clipped: NDArray[np.float32] = np.clip(rows, 0, 1).astype(np.float32)
    return clipped


def run(context: Context, sizes: tuple[int, int, int] = (10_000, 10_000, 784), times: Times | None = None) -> int:
    """Fill the table."""
    M, N, D = sizes
    there = launcher.runtime()
    times = GraphClock().eager_times if times is None else times
    queries_MD, samples_ND = images(M, D, 1), images(N, D, 2)
    sigmas = sigma_grid()
    # By whether they are whole 255ths.
    queries_by = {False: queries_MD, True: np.rint(255 * queries_MD).astype(np.uint8) / np.float32(255)}
    samples = there.upload(samples_ND)
    same = {"M": M, "N": N, "D": D, "S": len(sigmas)}
    chosen, warpgroups = cupy_raw.arithmetic, WarpgroupTiling.ARCHITECTURE
    failed, lines = 0, []
    with context.table("parzen", _COLUMNS) as table:
        for name, (arithmetic, are_bytes, by_warpgroups) in _ARITHMETICS.items():
            if arithmetic != gemm_tile.FMA and there.architecture < planes_tile.FROM:
                table.add({"what": f"{name}: this GPU has no such tensor cores", **same})
                continue
            queries = there.upload(queries_by[are_bytes])
            checked = queries_by[are_bytes][:: max(1, M // _CHECKED_QUERIES)]
            expected = reference.log_density(checked, samples_ND, sigmas, None)
            # Bytes are what the operation takes by itself where it would else take halves.
            by = planes_tile.HALVES if are_bytes else arithmetic
            cupy_raw.arithmetic = lambda _, by=by: by
            WarpgroupTiling.ARCHITECTURE = warpgroups if by_warpgroups else 0
            try:
                found = cupy_raw.log_density(checked, samples_ND, sigmas, None)
                error = float(np.abs(found - expected).max())
                one_pass = _prepared(queries, samples, sigmas, arithmetic)
                one_pass()
                low, median, high = quartiles(times(one_pass, 20))
                whole = _wall(lambda queries=queries: cupy_raw.log_density(queries, samples, sigmas, None))
            finally:
                cupy_raw.arithmetic, WarpgroupTiling.ARCHITECTURE = chosen, warpgroups
            passed = name == "tf32" or (np.isfinite(found).all() and error <= _WORST_NATS)
            failed += not passed
            table.add({
                "what": name, **same, "ms of the pass": f"{median * 1e3:.4g}", "first quartile": f"{low * 1e3:.4g}",
                "third quartile": f"{high * 1e3:.4g}", "ms of the operation": f"{whole * 1e3:.4g}",
                "TFLOP/s of the product": f"{2e-12 * M * N * D / median:.3g}", "worst error in nats": f"{error:.2g}",
                "passed": passed,
            })  # fmt: skip
            lines.append(f"{name} {median * 1e3:.3g} ms, off by {error:.2g} nats at most")
        lines.append(_cublas(table, same, (there.upload(queries_MD), samples), times))
        lines.append(_torch(table, same, queries_MD, samples_ND, sigmas))
    print(f"parzen: {M} x {N} x {D}, {len(sigmas)} sigmas: {'; '.join(lines)}.")
    return FAILED if failed else PASSED


def _prepared(queries_MD: Any, samples_ND: Any, sigmas: NDArray[np.float64], arithmetic: int) -> Callable[[], object]:
    """Give the pass alone, over data that are prepared already: every sigma by the product, and the shards' merger."""
    there = launcher.runtime()
    M, D = queries_MD.shape
    means = there.upload(np.zeros(D))
    # Norms near 1, as the operation has them.
    scale = 2.0 ** -np.round(0.5 * np.log2(D))
    queries, samples = (
        cupy_raw.rows_of(rows, arithmetic, means, scale, are_samples=are_samples)
        for rows, are_samples in ((queries_MD, False), (samples_ND, True))
    )
    as_taken = cupy_raw.Sigmas.of(sigmas, samples.scale, np.zeros(len(sigmas)), np.arange(len(sigmas)))
    out = there.empty((len(sigmas), M), np.float64)

    def one_pass() -> None:
        cupy_raw.merge(cupy_raw.by_product(queries, samples, as_taken), as_taken, out)

    return one_pass


def _wall(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _cublas(table: part.Table, same: dict[str, int], on_device: tuple[Any, Any], times: Times) -> str:
    """Add the row of the bare product by cuBLAS, in float32."""
    try:
        cupy = cupy_runtime.import_cupy()
    except BackendError as error:
        table.add({"what": f"cuBLAS: {error}", **same})
        return "no cuBLAS"
    queries, samples = on_device
    out = cupy.empty((same["M"], same["N"]), np.float32)
    low, median, high = quartiles(times(lambda: cupy.matmul(queries, samples.T, out=out), 20))
    table.add({
        "what": "cuBLAS float32, the product alone", **same, "ms of the pass": f"{median * 1e3:.4g}",
        "first quartile": f"{low * 1e3:.4g}", "third quartile": f"{high * 1e3:.4g}",
        "TFLOP/s of the product": f"{2e-12 * same['M'] * same['N'] * same['D'] / median:.3g}",
    })  # fmt: skip
    return f"cuBLAS's product alone {median * 1e3:.3g} ms"


def _torch(
    table: part.Table, same: dict[str, int], queries_MD: NDArray[np.float32], samples_ND: NDArray[np.float32],
    sigmas: NDArray[np.float64],
) -> str:  # fmt: skip
    """Add what people use, cdist, and logsumexp for each sigma; and the product of halves, three times as long."""
    try:
        import torch
    except ImportError:
        table.add({"what": "PyTorch is not installed", **same})
        return "no PyTorch"
    if not torch.cuda.is_available():
        table.add({"what": "PyTorch sees no GPU", **same})
        return "no PyTorch on this GPU"
    queries, samples = (torch.tensor(rows, device="cuda") for rows in (queries_MD, samples_ND))

    def window() -> None:
        squares = torch.cdist(queries, samples).square_()
        for sigma in sigmas:
            torch.logsumexp(squares * (-0.5 / float(sigma) ** 2), 1)

    halves = [torch.cat([rows.half()] * 3, 1) for rows in (queries, samples)]
    found = []
    for what, run_ in (
        ("PyTorch, cdist and logsumexp for each sigma", window),
        ("PyTorch, a product of halves with 3 D columns, alone", lambda: halves[0] @ halves[1].T),
    ):
        seconds = []
        for i in range(12):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            run_()
            end.record()
            end.synchronize()
            if i >= 2:
                seconds.append(begin.elapsed_time(end) * 1e-3)
        low, median, high = quartiles(seconds)
        table.add({
            "what": what, **same, "ms of the pass": f"{median * 1e3:.4g}", "first quartile": f"{low * 1e3:.4g}",
            "third quartile": f"{high * 1e3:.4g}",
        })  # fmt: skip
        found.append(f"{what} {median * 1e3:.3g} ms")
    return "; ".join(found)


if __name__ == "__main__":
    part.main(run)
