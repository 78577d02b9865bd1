"""The Parzen window on a GPU: ten sigmas in one pass, by each arithmetic, beside cuBLAS's product alone.

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
from fastgan.kernels.parzen import cupy_raw, reference
from fastgan.scoring import sigma_grid

# What an arithmetic is called, itself, and whether its queries are whole 255ths. The operation takes halves, or bytes.
_ARITHMETICS = {
    "halves": (planes_tile.HALVES, False),
    "bytes, 8-bit queries": (planes_tile.BYTES, True),
    "split TF32": (gemm_tile.SPLIT, False),
    "FMA": (gemm_tile.FMA, False),
    "tf32": (gemm_tile.TF32, False),
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
    chosen, failed, lines = cupy_raw.arithmetic, 0, []
    with context.table("parzen", _COLUMNS) as table:
        for name, (arithmetic, are_bytes) in _ARITHMETICS.items():
            if arithmetic != gemm_tile.FMA and there.architecture < planes_tile.FROM:
                table.add({"what": f"{name}: this GPU has no such tensor cores", **same})
                continue
            queries = there.upload(queries_by[are_bytes])
            checked = queries_by[are_bytes][:: max(1, M // _CHECKED_QUERIES)]
            expected = reference.log_density(checked, samples_ND, sigmas, None)
            # Bytes are what the operation takes by itself where it would else take halves.
            by = planes_tile.HALVES if are_bytes else arithmetic
            cupy_raw.arithmetic = lambda _, by=by: by
            try:
                found = cupy_raw.log_density(checked, samples_ND, sigmas, None)
                error = float(np.abs(found - expected).max())
                one_pass = _prepared(queries, samples, sigmas, arithmetic)
                one_pass()
                low, median, high = quartiles(times(one_pass, 20))
                whole = _wall(lambda queries=queries: cupy_raw.log_density(queries, samples, sigmas, None))
            finally:
                cupy_raw.arithmetic = chosen
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
    if queries is None or samples is None:
        raise ValueError("the data are no bytes")
    precisions = 0.5 / (sigmas * samples.scale) ** 2
    places = np.arange(len(sigmas))
    out = there.empty((len(sigmas), M), np.float64)

    def one_pass() -> None:
        parts = cupy_raw.by_product(queries, samples, precisions * cupy_raw.LOG2_E)
        cupy_raw.merge(*parts, precisions, np.zeros(len(sigmas)), places, out)

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


if __name__ == "__main__":
    part.main(run)
