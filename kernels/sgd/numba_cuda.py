"""The update as Numba CUDA kernels.

    v ← momentum · v - learning_rate · g;   W ← W + v          4·n FLOP, reads 12·n bytes, writes 8·n   (n elements)
    W ← W · clip(‖w_col‖, 0, c) / (1e-7 + ‖w_col‖)             3·I·O FLOP, reads 8·I·O, writes 4·I·O

The layers' own updates are the end of their weights' kernels (``common/numba_products.py``); this one is for a gradient
that is there already. The column norm has a kernel of its own: 32 columns a block, each summed by 8 threads that take
every eighth row, in a fixed order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common.arrays import Array, Rate
from fastgan.kernels.common.numba_products import is_finite
from fastgan.kernels.common.numba_runtime import cuda, kernel

_THREADS = 128
_COLUMNS, _SHARES = 32, 8


def update(
    W: Array,
    v: Array,
    dW: Array,
    learning_rate: Rate,
    momentum: Rate,
    max_col_norm: float | None,
    skip: Array | None,
) -> None:
    """Update W and v in place."""
    runtime.launch(
        _update, (runtime.divide_up(W.size, _THREADS),), (_THREADS,),
        *(array.reshape(-1) for array in (W, v, dW)),
        *runtime.rate(learning_rate), *runtime.rate(momentum), runtime.flag(skip),
    )  # fmt: skip
    if max_col_norm is not None:
        clip_columns(W, max_col_norm, skip)


def clip_columns(W_IO: Array, max_col_norm: float, skip: Array | None) -> None:
    """Scale the columns so that none is longer than the norm."""
    runtime.launch(
        _clip_columns, (runtime.divide_up(W_IO.shape[1], _COLUMNS),), (_COLUMNS, _SHARES),
        W_IO, np.float64(max_col_norm), runtime.flag(skip),
    )  # fmt: skip


@kernel
def _update(
    W: Any, v: Any, dW: Any, learning_rate: Any, more_rate: Any, momentum: Any, more_momentum: Any, skip: Any
) -> None:
    i = cuda.blockIdx.x * _THREADS + cuda.threadIdx.x
    if i < W.shape[0] and skip[0] == 0:
        velocity = W.dtype.type(momentum[0] + more_momentum) * v[i] - W.dtype.type(learning_rate[0] + more_rate) * dW[i]
        v[i] = velocity
        W[i] += velocity
        if skip.shape[0] > 1 and not is_finite(velocity):
            cuda.atomic.max(skip, 1, np.int32(1))


@kernel
def _clip_columns(W: Any, max_col_norm: Any, skip: Any) -> None:
    sums = cuda.shared.array((_SHARES, _COLUMNS), W.dtype)
    if skip[0] != 0:
        return
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    column = cuda.blockIdx.x * _COLUMNS + tx
    total = W.dtype.type(0)
    if column < W.shape[1]:
        for row in range(ty, W.shape[0], _SHARES):
            total += W[row, column] * W[row, column]
    sums[ty, tx] = total
    cuda.syncthreads()
    if column < W.shape[1]:
        total = W.dtype.type(0)
        for share in range(_SHARES):
            total += sums[share, tx]
        norm = W.dtype.type(math.sqrt(total))
        limit = W.dtype.type(max_col_norm)
        # Asked this way round a NaN stays.
        factor = (limit if norm > limit else norm) / (W.dtype.type(1e-7) + norm)
        for row in range(ty, W.shape[0], _SHARES):
            W[row, column] *= factor
