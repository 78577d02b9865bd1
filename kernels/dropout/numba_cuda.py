"""The dropout masks as Numba CUDA kernels: (B, I) elements, four a thread, which are the four words of one counter.

Reads 4·B·I bytes and writes as many (the mask alone: writes B·I); about 100 integer operations a counter. The layers'
kernels draw masks in passing (``common/numba_products.py``) and ``Dropout.bits`` is left alone: drawing a mask
again needs no memory at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.numba_philox import top24, words
from fastgan.kernels.common.numba_products import dropped, mask_of
from fastgan.kernels.common.numba_runtime import cuda, kernel
from fastgan.kernels.dropout import Dropout

# Counters of a row, and rows.
_BLOCK = (32, 4)


def mask(num_rows: int, num_columns: int, dropout: Dropout) -> NDArray[np.bool_]:
    """Draw the mask (B, I), True where kept; it stays on the device."""
    kept = runtime.empty((num_rows, num_columns), np.bool_)
    runtime.launch(_mask, _grid(kept), _BLOCK, *mask_of(dropout), kept)
    return kept


def apply(x_BI: Array, dropout: Dropout, out: Array) -> None:
    """Draw the mask and apply it in one pass."""
    runtime.launch(_apply, _grid(x_BI), _BLOCK, x_BI, *mask_of(dropout), out)


def apply_again(x_BI: Array, dropout: Dropout, out: Array) -> None:
    """Apply the mask that the forward pass of this step drew, by drawing it again."""
    apply(x_BI, dropout, out)


def _grid(array: Array) -> tuple[int, int]:
    num_rows, num_columns = array.shape
    return runtime.divide_up(num_columns, 4 * _BLOCK[0]), runtime.divide_up(num_rows, _BLOCK[1])


@kernel
def _mask(mask: Any, step: Any, kept: Any) -> None:
    quad, row = cuda.grid(2)
    column = 4 * quad
    if row < kept.shape[0] and column < kept.shape[1]:
        w0, w1, w2, w3 = words(mask.draw, step, row, quad)
        kept[row, column] = top24(w0) < mask.threshold
        if column + 1 < kept.shape[1]:
            kept[row, column + 1] = top24(w1) < mask.threshold
        if column + 2 < kept.shape[1]:
            kept[row, column + 2] = top24(w2) < mask.threshold
        if column + 3 < kept.shape[1]:
            kept[row, column + 3] = top24(w3) < mask.threshold


@kernel
def _apply(x: Any, mask: Any, step: Any, out: Any) -> None:
    quad, row = cuda.grid(2)
    column = 4 * quad
    if row < x.shape[0] and column < x.shape[1]:
        w0, w1, w2, w3 = words(mask.draw, step, row, quad)
        out[row, column] = dropped(x[row, column], w0, mask)
        if column + 1 < x.shape[1]:
            out[row, column + 1] = dropped(x[row, column + 1], w1, mask)
        if column + 2 < x.shape[1]:
            out[row, column + 2] = dropped(x[row, column + 2], w2, mask)
        if column + 3 < x.shape[1]:
            out[row, column + 3] = dropped(x[row, column + 3], w3, mask)
