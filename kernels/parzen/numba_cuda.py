"""The Parzen log density as Numba CUDA kernels: direct differences in float64, every sigma from one pass over them.

    ll[s, m] = logmeanexp_n(-‖q_m - x_n‖² / (2 σ_s²)) - D · log(σ_s √(2π))

Queries (M, D), samples (N, D): 3·M·N·D FLOP in float64 and S·M·N exponentials; each tile of queries reads all samples,
4·N·D bytes for 32 queries. Exact as the definition is, and slower by far than what tensor cores allow: it is the
plain implementation, for checks.

A block walks over a share of the samples in tiles of 32 queries by 64 samples. A tile's distances go to shared memory;
then a thread takes a query and a sigma and adds the tile's terms to a streaming log-sum-exp: one least distance
a query serves all sigmas, and the sums are relative to it. A second kernel merges the shares, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.numba_products import (
    COLUMNS,
    NUM_THREADS,
    PITCH_A,
    PITCH_B,
    ROWS,
    TILE_K,
    TILE_M,
    TILE_N,
    TX,
    TY,
    add_squares,
    load_columns,
    load_rows,
)
from fastgan.kernels.common.numba_runtime import cuda, device_function, kernel

# Blocks that there should be, at least, where there are samples enough: about two a multiprocessor of a large GPU.
_BLOCKS = 256
# Queries of one launch: what is kept of each share, and how often progress is told.
_QUERIES = 2048
_MERGE_THREADS = 128
_PITCH = TILE_N + 1


def log_density(
    queries_MD: Array, samples_ND: Array, sigmas_S: NDArray[np.float64], progress: Callable[[int], None] | None
) -> NDArray[np.float64]:
    """Fill (S, M), some queries at a time; from and to the host."""
    M, D = queries_MD.shape
    N, S = samples_ND.shape[0], len(sigmas_S)
    out_SM = np.empty((S, M))
    samples_ND = runtime.on_device(samples_ND)
    precisions_S = runtime.upload(0.5 / sigmas_S**2)
    for first in range(0, M, _QUERIES):
        queries = runtime.on_device(queries_MD[first : first + _QUERIES])
        count = queries.shape[0]
        query_tiles, sample_tiles = runtime.divide_up(count, TILE_M), runtime.divide_up(N, TILE_N)
        tiles_a_share = max(1, sample_tiles * query_tiles // _BLOCKS)
        shares = runtime.divide_up(sample_tiles, tiles_a_share)
        least = runtime.empty((shares, count), np.float64)
        sums = runtime.empty((shares, S, count), np.float64)
        out = runtime.empty((S, count), np.float64)
        runtime.launch(
            _sum_of_share, (shares, query_tiles), (TX, TY),
            queries, samples_ND, precisions_S, np.int64(tiles_a_share * TILE_N), least, sums,
        )  # fmt: skip
        blocks = runtime.divide_up(count, _MERGE_THREADS)
        runtime.launch(_merge, (blocks, S), (_MERGE_THREADS,), precisions_S, least, sums, out)
        out_SM[:, first : first + count] = runtime.download(out)
        if progress is not None:
            progress(count)
    out_SM -= np.log(N) + D * np.log(sigmas_S * np.sqrt(2.0 * np.pi))[:, None]
    return out_SM


@device_function
def _lesser(a: Any, b: Any) -> Any:
    """Give the lesser, and NaN where one is NaN."""
    return b if b < a or b != b else a


@device_function
def _origin(least: Any) -> Any:
    """Give what sums are relative to: the least distance, or 0 where all are infinite."""
    return 0.0 if least == math.inf else least


@kernel
def _sum_of_share(queries: Any, samples: Any, precisions: Any, samples_a_share: Any, least: Any, sums: Any) -> None:
    a = cuda.shared.array((TILE_M, PITCH_A), queries.dtype)
    b = cuda.shared.array((TILE_K, PITCH_B), samples.dtype)
    distances = cuda.shared.array((TILE_M, _PITCH), np.float64)
    least_before = cuda.shared.array(TILE_M, np.float64)
    least_now = cuda.shared.array(TILE_M, np.float64)
    total = cuda.local.array((ROWS, COLUMNS), np.float64)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    thread = ty * TX + tx
    row0, share = cuda.blockIdx.y * TILE_M, cuda.blockIdx.x
    num_queries, num_pairs = queries.shape[0], TILE_M * precisions.shape[0]
    start = share * samples_a_share
    end = start + samples_a_share if start + samples_a_share < samples.shape[0] else samples.shape[0]
    if thread < TILE_M:
        least_now[thread] = math.inf
    # A pair of query and sigma is one thread's throughout: nobody else reads or writes its sum.
    for pair in range(thread, num_pairs, NUM_THREADS):
        if row0 + pair % TILE_M < num_queries:
            sums[share, pair // TILE_M, row0 + pair % TILE_M] = 0.0
    for n0 in range(start, end, TILE_N):
        for r in range(ROWS):
            for c in range(COLUMNS):
                total[r, c] = 0.0
        for d0 in range(0, queries.shape[1], TILE_K):
            load_rows(queries, row0, d0, thread, a)
            load_columns(samples, n0, d0, thread, b)
            cuda.syncthreads()
            if row0 + ty < queries.shape[0] and n0 + tx < end:
                add_squares(a, b, tx, ty, total)
            cuda.syncthreads()
        for r in range(ROWS):
            for c in range(COLUMNS):
                distances[ty + TY * r, tx + TX * c] = total[r, c]
        cuda.syncthreads()
        columns = TILE_N if n0 + TILE_N < end else end - n0
        if thread < TILE_M and row0 + thread < num_queries:
            lowest = least_now[thread]
            least_before[thread] = lowest
            for n in range(columns):
                lowest = _lesser(lowest, distances[thread, n])
            least_now[thread] = lowest
        cuda.syncthreads()
        for pair in range(thread, num_pairs, NUM_THREADS):
            query, s = pair % TILE_M, pair // TILE_M
            if row0 + query < num_queries:
                precision, origin = precisions[s], _origin(least_now[query])
                # Nothing is there yet where all distances so far are infinite.
                before = origin if least_before[query] == math.inf else least_before[query]
                value = sums[share, s, row0 + query] * math.exp(-precision * (before - origin))
                for n in range(columns):
                    value += math.exp(-precision * (distances[query, n] - origin))
                sums[share, s, row0 + query] = value
        cuda.syncthreads()
    if thread < TILE_M and row0 + thread < num_queries:
        least[share, row0 + thread] = least_now[thread]


@kernel
def _merge(precisions: Any, least: Any, sums: Any, out: Any) -> None:
    m, s = cuda.blockIdx.x * _MERGE_THREADS + cuda.threadIdx.x, cuda.blockIdx.y
    if m < out.shape[1]:
        lowest = math.inf
        for share in range(least.shape[0]):
            lowest = _lesser(lowest, least[share, m])
        precision, origin, value = precisions[s], _origin(lowest), 0.0
        for share in range(least.shape[0]):
            if least[share, m] != math.inf:
                value += sums[share, s, m] * math.exp(-precision * (least[share, m] - origin))
        # The logarithm of 0 is an error in the simulator, not minus infinity.
        out[s, m] = (-math.inf if value == 0.0 else math.log(value)) - precision * origin
