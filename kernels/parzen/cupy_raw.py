"""Launches of ``parzen.cu``.

Distances come from a product of centred data where float32 is enough for a sigma, by the estimate that ``cpu.py`` makes
too, and from direct differences in float64 where it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.gemm_tile import FMA, SPLIT, Operand, choose
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch, runtime
from fastgan.kernels.parzen.cpu import LOG2_E, MAX_ERROR, product_error

_SOURCE: Final = "parzen/parzen.cu"
_TYPES: Final = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
_ROWS: Final = Operand(k_fast=True, plain=True)
# More sigmas in one pass would take the registers from the product.
_SIGMAS_A_PASS: Final = 16
_QUERIES_A_PASS: Final = 1 << 15
_MAX_SHARDS: Final = 64
# The rows that the product's error is measured on.
_PROBED_ROWS: Final = 128


def arithmetic(architecture: int) -> int:
    """Choose the product's arithmetic: split operands where there are tensor cores for them."""
    return SPLIT if architecture >= 80 else FMA


def log_density(
    queries_MD: Array, samples_ND: Array, sigmas_S: NDArray[np.float64], progress: Callable[[int], None] | None
) -> NDArray[np.float64]:
    """Fill (S, M), some tens of thousands of queries at a time; arrays of the host are brought to the device."""
    there = runtime()
    (M, D), N, S = queries_MD.shape, len(samples_ND), len(sigmas_S)
    given = queries_MD, samples_ND
    queries_MD, samples_ND = (there.upload(array) if isinstance(array, np.ndarray) else array for array in given)
    means_D = there.empty((D,), np.float64)
    launch(
        Kernel(_SOURCE, f"parzen_means<{_TYPES[samples_ND.dtype]}>", shared_bytes=8 * 256), (-(-D // 32), 1, 1),
        rows=samples_ND, N=np.int64(N), D=np.int32(D), means=means_D,
    )  # fmt: skip
    mean_D = there.download(means_D)
    # Extreme data and sigmas overflow to infinity, or NaN, in these few numbers: which then mean "not fast".
    with np.errstate(all="ignore"):
        greatest = sum(
            float(there.download(_norms(rows, means_D, 1.0, None)).max(initial=0.0))
            for rows in (queries_MD, samples_ND)
        )
        usable = np.isfinite(greatest) and M > 0
        scale = float(2.0 ** -np.round(0.5 * np.log2(greatest))) if usable and greatest > 0 else 1.0
        error = np.inf
        if usable:
            error = product_error(_spread(given[0]), _spread(given[1]), mean_D, scale, greatest * scale * scale)
        rates_S = 0.5 * LOG2_E * (1.0 / (sigmas_S * scale)) ** 2
        # Written so that NaN is not fast either.
        fast_S = error * rates_S / LOG2_E <= MAX_ERROR
        precisions_S = np.where(fast_S, rates_S / LOG2_E, 0.5 / sigmas_S**2)
    constants_S = np.log(N) + D * np.log(sigmas_S * np.sqrt(2.0 * np.pi))

    samples: tuple[Array, Array] | None = None
    if fast_S.any():
        samples = centred(samples_ND, means_D, scale)
    out_SM = np.empty((S, M))
    for m in range(0, M, _QUERIES_A_PASS):
        some_MD = queries_MD[m : m + _QUERIES_A_PASS]
        out = there.empty((S, len(some_MD)), np.float64)
        if samples is not None:
            queries = centred(some_MD, means_D, scale)
            places = np.flatnonzero(fast_S)
            for first in range(0, len(places), _SIGMAS_A_PASS):
                some = places[first : first + _SIGMAS_A_PASS]
                parts = by_product(queries, samples, rates_S[some])
                merge(*parts, precisions_S[some], constants_S[some], some, out)
        places = np.flatnonzero(~fast_S)
        for first in range(0, len(places), _SIGMAS_A_PASS):
            some = places[first : first + _SIGMAS_A_PASS]
            parts = _directly(some_MD, samples_ND, precisions_S[some])
            merge(*parts, precisions_S[some], constants_S[some], some, out)
        out_SM[:, m : m + len(some_MD)] = there.download(out)
        if progress is not None:
            progress(len(some_MD))
    return out_SM


def _spread(rows: Array) -> Array:
    """Give some rows from all over the array, on the host."""
    step = -(-len(rows) // _PROBED_ROWS)
    if isinstance(rows, np.ndarray):
        return np.ascontiguousarray(rows[::step])
    return np.concatenate([runtime().download(rows[n : n + 1]) for n in range(0, len(rows), step)])


def _norms(rows: Array, means_D: Array, scale: float, centred: Array | None) -> Array:
    norms = runtime().empty((len(rows),), np.float64)
    if len(rows):
        launch(
            Kernel(_SOURCE, f"parzen_centre<{_TYPES[rows.dtype]}>", threads=128, shared_bytes=8 * 128),
            (len(rows), 1, 1),
            rows=rows, D=np.int32(rows.shape[1]), means=means_D, scale=np.float64(scale), centred=centred, norms=norms,
        )  # fmt: skip
    return norms


def centred(rows: Array, means_D: Array, scale: float) -> tuple[Array, Array]:
    """Subtract the means and scale: float32 rows, and their squared norms in float64."""
    centred = runtime().empty(rows.shape, np.float32)
    return centred, _norms(rows, means_D, scale, centred)


def by_product(
    queries: tuple[Array, Array], samples: tuple[Array, Array], rates: NDArray[np.float64]
) -> tuple[Array, Array]:
    """Give each shard's least distances and sums, of scaled distances from the product."""
    there = runtime()
    (M, D), N, S = queries[0].shape, len(samples[0]), len(rates)
    tiling = choose(M, N, D, _ROWS, _ROWS, arithmetic(there.architecture), split=False, bytes_a_row=8 * S + 4)
    state_bytes = tiling.shape.m * (8 * S + 4)
    kernel = tiling.kernel(_SOURCE, "parzen_product", _ROWS, _ROWS, extra_bytes=state_bytes, SIGMAS=S)
    tiles, query_tiles, _ = tiling.grid(M, N)
    shards = _num_shards(tiles, query_tiles, there.num_multiprocessors)
    least, sums = there.empty((shards, M), np.float32), there.empty((shards, S, M), np.float64)
    launch(
        kernel, (shards, query_tiles, 1),
        queries=queries[0], query_norms=queries[1], samples=samples[0], sample_norms=samples[1],
        rates=there.upload(rates), M=np.int32(M), N=np.int32(N), D=np.int32(D), least=least, sums=sums,
    )  # fmt: skip
    return least, sums


def _directly(queries_MD: Array, samples_ND: Array, precisions: NDArray[np.float64]) -> tuple[Array, Array]:
    """Give each shard's least distances and sums, of direct differences in float64."""
    there = runtime()
    (M, D), N, S = queries_MD.shape, len(samples_ND), len(precisions)
    kernel = Kernel(
        _SOURCE, f"parzen_direct<{_TYPES[queries_MD.dtype]}, {_TYPES[samples_ND.dtype]}>",
        shared_bytes=8 * (2 * 32 * 17 + 32 * 33 + 32 * S),
    )  # fmt: skip
    query_tiles = -(-M // 32)
    shards = _num_shards(-(-N // 32), query_tiles, there.num_multiprocessors)
    least, sums = there.empty((shards, M), np.float64), there.empty((shards, S, M), np.float64)
    launch(
        kernel, (shards, query_tiles, 1),
        queries=queries_MD, samples=samples_ND, precisions=there.upload(precisions), S=np.int32(S),
        M=np.int32(M), N=np.int64(N), D=np.int32(D), least=least, sums=sums,
    )  # fmt: skip
    return least, sums


def _num_shards(tiles: int, query_tiles: int, num_multiprocessors: int) -> int:
    """Share the samples' tiles among blocks so that the last to end ends as early as can be."""

    def tiles_in_turn(shards: int) -> int:
        return -(-query_tiles * shards // num_multiprocessors) * -(-tiles // shards)

    return min(range(1, min(tiles, _MAX_SHARDS) + 1), key=tiles_in_turn)


def merge(
    least: Array,
    sums: Array,
    precisions: NDArray[np.float64],
    constants: NDArray[np.float64],
    places: NDArray[np.intp],
    out: Array,
) -> None:
    """Merge the shards' states into rows ``places`` of ``out`` (S, M)."""
    there = runtime()
    shards, S, M = sums.shape
    arrays: dict[str, Any] = {
        "precisions": there.upload(precisions), "constants": there.upload(constants),
        "places": there.upload(places.astype(np.int32)),
    }  # fmt: skip
    launch(
        Kernel(_SOURCE, f"parzen_merge<{_TYPES[least.dtype]}>"), (-(-M // 256), S, 1),
        least=least, sums=sums, num_shards=np.int32(shards), S=np.int32(S), M=np.int32(M), **arrays, out=out,
    )  # fmt: skip
