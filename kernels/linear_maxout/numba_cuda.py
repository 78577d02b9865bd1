"""A layer of maxout units as Numba CUDA kernels.

    y = max over pieces of x' W + b            2·B·I·U·P FLOP, reads 4·(B·I + I·U·P) bytes, writes 5·B·U
    dx = mask(dz Wᵀ) / keep                    2·B·I·U·P FLOP, reads 5·B·U + 4·I·U·P, writes 4·B·I
    dW = x'ᵀ dz, db = Σ_B dz, and the update   2·B·I·U·P FLOP, reads 4·B·I + 5·B·U + 8·I·U·P, writes 8·I·U·P

x (B, I), W (I, U·P), y and pieces (B, U); x' = dropout(x). Bytes are of float32, each array once. Tiles are 32 rows by
16 units or 64 columns (``common/numba_products.py``): B = 100, U = 240 and P = 5 are 4 x 15 blocks of 128 threads.

Forward, a thread holds the pieces of its unit in registers and finds their maximum there: the (B, U·P) sums are never
written. Up to 8 pieces fit; of more, equal shares are done one after the other, with a running maximum and its piece.
Backward, dy is spread over the pieces on the way into the tiles: zeros for those that did not win, and their products
are computed with the rest, as tiles are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common.arrays import Array, Rate, Workspace
from fastgan.kernels.common.numba_products import (
    NUM_THREADS,
    PITCH_A,
    ROWS,
    TILE_K,
    TILE_M,
    TX,
    TY,
    Backward,
    add_products,
    load_dropped,
    mask_of,
    pitch_b,
)
from fastgan.kernels.common.numba_runtime import cuda, device_function, kernel
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.sgd import numba_cuda as sgd_numba_cuda

_MOST_PIECES = 8


def forward(
    x_BI: Array,
    W_IUP: Array,
    b_UP: Array,
    num_pieces: int,
    dropout: Dropout | None,
    out: Array,
    out_pieces: NDArray[np.uint8],
    precision: str,
    workspace: Workspace,
) -> None:
    """Write y and the winning pieces."""
    B, U = out.shape
    shares = runtime.divide_up(num_pieces, _MOST_PIECES)
    runtime.launch(
        _forward(runtime.divide_up(num_pieces, shares)),
        (runtime.divide_up(U, TX), runtime.divide_up(B, TILE_M)), (TX, TY),
        x_BI, W_IUP, b_UP, np.int32(num_pieces), *mask_of(dropout), out, out_pieces,
    )  # fmt: skip


def backward_input(
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    W_IUP: Array,
    num_pieces: int,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    out: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write dx into ``out``."""
    _backward.input(dy_BU, pieces_BU, num_pieces, W_IUP, dropout, row_scale_B, out)


def backward_weights(
    x_BI: Array,
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    num_pieces: int,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    dW_IUP: Array,
    db_UP: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write dW and db."""
    _backward.weights(x_BI, dy_BU, pieces_BU, num_pieces, dropout, row_scale_B, dW_IUP, db_UP)


def backward_update(
    x_BI: Array,
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    num_pieces: int,
    W_IUP: Array,
    b_UP: Array,
    vW_IUP: Array,
    vb_UP: Array,
    learning_rate: Rate,
    momentum: Rate,
    max_col_norm: float | None,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    skip: Array | None,
    precision: str,
    workspace: Workspace,
) -> None:
    """Update W, b and their velocities in place."""
    _backward.update(
        x_BI, dy_BU, pieces_BU, num_pieces, dropout, row_scale_B, learning_rate, momentum, skip,
        W_IUP, b_UP, vW_IUP, vb_UP,
    )  # fmt: skip
    if max_col_norm is not None:
        sgd_numba_cuda.clip_columns(W_IUP, max_col_norm, skip)


@device_function
def _gradient(dy: Any, pieces: Any, num_pieces: Any, row_scale: Any, has_scale: Any, b: Any, column: Any) -> Any:
    """Give an element of dz: dy's where the column's piece won, else 0."""
    # Unsigned and of 32 bits: a division of signed 64 takes longer than the products of the tile.
    u = np.uint32(column) // num_pieces
    value = dy[b, u]
    if np.uint32(pieces[b, u]) != np.uint32(column) - u * num_pieces:
        return type(value)(0)
    if has_scale != 0:
        value *= row_scale[b]
    return value


@cache
def _forward(share: int) -> Any:
    """Compile the forward pass for so many pieces at a time: how many sums a thread holds is known when compiling."""
    pitch = pitch_b(share)
    width = TX * share

    @kernel
    def maxout(x: Any, W: Any, bias: Any, num_pieces: Any, mask: Any, step: Any, y: Any, pieces: Any) -> None:
        a = cuda.shared.array((TILE_M, PITCH_A), y.dtype)
        b = cuda.shared.array((TILE_K, pitch), y.dtype)
        partial = cuda.local.array((ROWS, share), y.dtype)
        total = cuda.local.array((ROWS, share), y.dtype)
        best = cuda.local.array(ROWS, y.dtype)
        winner = cuda.local.array(ROWS, np.uint8)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        thread = ty * TX + tx
        row0, unit0 = cuda.blockIdx.y * TILE_M, cuda.blockIdx.x * TX
        unit = unit0 + tx
        for first in range(0, num_pieces, share):
            for r in range(ROWS):
                for c in range(share):
                    total[r, c] = 0
            for k0 in range(0, x.shape[1], TILE_K):
                load_dropped(x, mask, step, row0, k0, thread, False, a)
                # Neighbouring threads read neighbouring pieces; in the tile a unit's lie 17 apart.
                for e in range(thread, TILE_K * width, NUM_THREADS):
                    k, u, c = e // width, e % width // share, e % share
                    value = y.dtype.type(0)
                    if k0 + k < W.shape[0] and unit0 + u < y.shape[1] and first + c < num_pieces:
                        value = W[k0 + k, (unit0 + u) * num_pieces + first + c]
                    b[k, c * (TX + 1) + u] = value
                cuda.syncthreads()
                if row0 + ty < y.shape[0] and unit < y.shape[1]:
                    add_products(a, b, tx, ty, partial, total)
                cuda.syncthreads()
            if unit < y.shape[1]:
                for r in range(ROWS):
                    for c in range(share):
                        if first + c < num_pieces:
                            value = total[r, c] + bias[unit * num_pieces + first + c]
                            # Not (value <= best) is true for a greater one and for NaN; a best that is NaN stays.
                            if first + c == 0 or (not value <= best[r] and best[r] == best[r]):
                                best[r] = value
                                winner[r] = first + c
        for r in range(ROWS):
            row = row0 + ty + TY * r
            if row < y.shape[0] and unit < y.shape[1]:
                y[row, unit] = best[r]
                pieces[row, unit] = winner[r]

    return maxout


_backward = Backward(_gradient)
