"""A layer of linear units as Numba CUDA kernels.

    y = f(x' W + b)                            2·B·I·O FLOP, reads 4·(B·I + I·O) bytes, writes 4·B·O
    dx = mask(dz Wᵀ) / keep                    2·B·I·O FLOP, reads 4·(2·B·O + I·O), writes 4·B·I
    dW = x'ᵀ dz, db = Σ_B dz, and the update   2·B·I·O FLOP, reads 4·(B·I + 2·B·O + 2·I·O), writes 8·I·O

x (B, I), W (I, O), y (B, O); x' = dropout(x), dz = row_scale · dy · f'(y). Bytes are of float32, each array once; the
tiles of a row of blocks read the others' operand again, from the L2 cache at these sizes. Tiles are 32 x 64
(``common/numba_products.py``): B = 100 and O = 1,200 are 4 x 19 blocks of 128 threads.

f is applied to the sums before they leave the registers; the dropout and f' are applied on the way into the tiles; the
update is the end of dW's kernel. A column norm takes one more kernel over W.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common.arrays import Array, Rate, Workspace
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
    Backward,
    add_products,
    element,
    load_dropped,
    mask_of,
    slot,
)
from fastgan.kernels.common.numba_runtime import cuda, device_function, kernel
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.sgd import numba_cuda as sgd_numba_cuda

_RELU, _SIGMOID = 1, 2
_CODES = {"identity": 0, "relu": _RELU, "sigmoid": _SIGMOID}


def forward(
    x_BI: Array,
    W_IO: Array,
    b_O: Array,
    activation: str,
    dropout: Dropout | None,
    out: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write y = f(dropout(x) W + b) into ``out``."""
    B, O = out.shape
    runtime.launch(
        _forward, (runtime.divide_up(O, TILE_N), runtime.divide_up(B, TILE_M)), (TX, TY),
        x_BI, W_IO, b_O, np.uint32(_CODES[activation]), *mask_of(dropout), out,
    )  # fmt: skip


def backward_input(
    dy_BO: Array,
    y_BO: Array,
    W_IO: Array,
    activation: str,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    out: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write dx into ``out``."""
    _backward.input(dy_BO, y_BO, _CODES[activation], W_IO, dropout, row_scale_B, out)


def backward_weights(
    x_BI: Array,
    dy_BO: Array,
    y_BO: Array,
    activation: str,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    dW_IO: Array,
    db_O: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write dW and db."""
    _backward.weights(x_BI, dy_BO, y_BO, _CODES[activation], dropout, row_scale_B, dW_IO, db_O)


def backward_update(
    x_BI: Array,
    dy_BO: Array,
    y_BO: Array,
    activation: str,
    W_IO: Array,
    b_O: Array,
    vW_IO: Array,
    vb_O: Array,
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
        x_BI, dy_BO, y_BO, _CODES[activation], dropout, row_scale_B, learning_rate, momentum, skip,
        W_IO, b_O, vW_IO, vb_O,
    )  # fmt: skip
    if max_col_norm is not None:
        sgd_numba_cuda.clip_columns(W_IO, max_col_norm, skip)


@device_function
def _activated(z: Any, activation: Any) -> Any:
    number = type(z)
    if activation == _RELU:
        # Asked this way round a NaN stays.
        return number(0) if z <= number(0) else z
    if activation == _SIGMOID:
        # Of the negative magnitude, so that the exponential never overflows.
        e = number(math.exp(-abs(z)))
        return (number(1) if z >= number(0) else e) / (number(1) + e)
    return z


@device_function
def _gradient(dy: Any, y: Any, activation: Any, row_scale: Any, has_scale: Any, b: Any, column: Any) -> Any:
    """Give an element of dz = row_scale · dy · f'(y)."""
    value = dy[b, column]
    number = type(value)
    if activation == _RELU:
        # A factor, not a choice: 0 · NaN is NaN, as in the definition.
        value *= number(1) if y[b, column] > number(0) else number(0)
    elif activation == _SIGMOID:
        value *= (number(1) - y[b, column]) * y[b, column]
    if has_scale != 0:
        value *= row_scale[b]
    return value


@kernel
def _forward(x: Any, W: Any, bias: Any, activation: Any, mask: Any, step: Any, y: Any) -> None:
    a = cuda.shared.array((TILE_M, PITCH_A), y.dtype)
    b = cuda.shared.array((TILE_K, PITCH_B), y.dtype)
    partial = cuda.local.array((ROWS, COLUMNS), y.dtype)
    total = cuda.local.array((ROWS, COLUMNS), y.dtype)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    thread = ty * TX + tx
    row0, column0 = cuda.blockIdx.y * TILE_M, cuda.blockIdx.x * TILE_N
    for r in range(ROWS):
        for c in range(COLUMNS):
            total[r, c] = 0
    for k0 in range(0, x.shape[1], TILE_K):
        load_dropped(x, mask, step, row0, k0, thread, False, a)
        for e in range(thread, TILE_K * TILE_N, NUM_THREADS):
            b[e // TILE_N, slot(e % TILE_N)] = element(W, k0 + e // TILE_N, column0 + e % TILE_N)
        cuda.syncthreads()
        if row0 + ty < y.shape[0] and column0 + tx < y.shape[1]:
            add_products(a, b, tx, ty, partial, total)
        cuda.syncthreads()
    for r in range(ROWS):
        row = row0 + ty + TY * r
        for c in range(COLUMNS):
            column = column0 + tx + TX * c
            if row < y.shape[0] and column < y.shape[1]:
                y[row, column] = _activated(total[r, c] + bias[column], activation)


_backward = Backward(_gradient)
