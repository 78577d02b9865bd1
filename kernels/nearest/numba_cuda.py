"""The nearest neighbour as Numba CUDA kernels: direct differences in float64, as the definition takes them.

    index[m] = the lowest n that minimises Σ_d (q[m, d] - s[n, d])²            3·M·N·D FLOP in float64

Queries (M, D), samples (N, D): each query's tile reads all samples, 4·N·D bytes for 32 queries. The samples are shared
out among enough blocks to fill a GPU; a block walks over its share in tiles of 32 queries by 64 samples, and a thread
keeps the best of its columns for each of its 4 queries. A second kernel merges the shares, in their order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.numba_products import (
    COLUMNS,
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
from fastgan.kernels.common.numba_runtime import cuda, kernel

# Blocks that there should be, at least, where there are samples enough: about two a multiprocessor of a large GPU.
_BLOCKS = 256
_MERGE_THREADS = 128


def indices(queries_MD: Array, samples_ND: Array) -> NDArray[np.int64]:
    """Find the best of each share of the samples, then the best of those.

    Arrays of the host are brought to the device, and the answer back.
    """
    M, N = queries_MD.shape[0], samples_ND.shape[0]
    on_host = isinstance(queries_MD, np.ndarray)
    query_tiles, sample_tiles = runtime.divide_up(M, TILE_M), runtime.divide_up(N, TILE_N)
    tiles_a_share = max(1, sample_tiles * query_tiles // _BLOCKS)
    shares = runtime.divide_up(sample_tiles, tiles_a_share)
    queries_MD, samples_ND = runtime.on_device(queries_MD), runtime.on_device(samples_ND)
    distances, found = runtime.empty((M, shares), np.float64), runtime.empty((M, shares), np.int64)
    found_M = runtime.empty((M,), np.int64)
    runtime.launch(
        _nearest_of_share, (shares, query_tiles), (TX, TY),
        queries_MD, samples_ND, np.int64(tiles_a_share * TILE_N), distances, found,
    )  # fmt: skip
    runtime.launch(_merge, (runtime.divide_up(M, _MERGE_THREADS),), (_MERGE_THREADS,), distances, found, found_M)
    return runtime.download(found_M) if on_host else found_M


@kernel
def _nearest_of_share(queries: Any, samples: Any, samples_a_share: Any, distances: Any, found: Any) -> None:
    a = cuda.shared.array((TILE_M, PITCH_A), queries.dtype)
    b = cuda.shared.array((TILE_K, PITCH_B), samples.dtype)
    best_of_threads = cuda.shared.array((TILE_M, TX), np.float64)
    found_by_threads = cuda.shared.array((TILE_M, TX), np.int64)
    total = cuda.local.array((ROWS, COLUMNS), np.float64)
    best = cuda.local.array(ROWS, np.float64)
    winner = cuda.local.array(ROWS, np.int64)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    thread = ty * TX + tx
    row0, share = cuda.blockIdx.y * TILE_M, cuda.blockIdx.x
    start = share * samples_a_share
    end = start + samples_a_share if start + samples_a_share < samples.shape[0] else samples.shape[0]
    for r in range(ROWS):
        best[r] = math.inf
        winner[r] = 0
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
                # An equal distance later on does not win.
                if n0 + tx + TX * c < end and total[r, c] < best[r]:
                    best[r] = total[r, c]
                    winner[r] = n0 + tx + TX * c
    for r in range(ROWS):
        best_of_threads[ty + TY * r, tx] = best[r]
        found_by_threads[ty + TY * r, tx] = winner[r]
    cuda.syncthreads()
    if thread < TILE_M and row0 + thread < queries.shape[0]:
        of_row, number = math.inf, np.int64(0)
        for t in range(TX):
            distance, candidate = best_of_threads[thread, t], found_by_threads[thread, t]
            if distance < of_row or (distance == of_row and distance < math.inf and candidate < number):
                of_row, number = distance, candidate
        distances[row0 + thread, share] = of_row
        found[row0 + thread, share] = number


@kernel
def _merge(distances: Any, found: Any, found_M: Any) -> None:
    m = cuda.blockIdx.x * _MERGE_THREADS + cuda.threadIdx.x
    if m < found_M.shape[0]:
        best, number = math.inf, np.int64(0)
        for share in range(distances.shape[1]):
            if distances[m, share] < best:
                best, number = distances[m, share], found[m, share]
        found_M[m] = number
