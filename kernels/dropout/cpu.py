"""The dropout masks in compiled loops: words are drawn in the pass that uses them.

``Dropout.bits`` is left alone: drawing a mask again takes less time than reading its bits back and spreading them
(0.09 ms for 200 x 784 elements on one core, words and product together).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import philox
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.loops import loop, prange
from fastgan.kernels.common.philox_loops import draw, new_row, row_words
from fastgan.kernels.dropout import Dropout


def mask(num_rows: int, num_columns: int, dropout: Dropout) -> NDArray[np.bool_]:
    """Draw the mask (B, I), True where kept."""
    kept = np.empty((num_rows, num_columns), np.bool_)
    _mask(kept, *_draw(dropout), _threshold(dropout), size=kept.size)
    return kept


def apply(x_BI: Array, dropout: Dropout, out: Array) -> None:
    """Draw the mask and apply it in one pass."""
    how = (*_draw(dropout), _threshold(dropout), x_BI.dtype.type(dropout.scale))
    if x_BI is out:
        _apply_in_place(out, *how, size=out.size)
    else:
        _apply(x_BI, out, *how, size=out.size)


def apply_again(x_BI: Array, dropout: Dropout, out: Array) -> None:
    """Apply the mask that the forward pass of this step drew, by drawing it again."""
    apply(x_BI, dropout, out)


def _draw(dropout: Dropout) -> tuple[np.uint32, ...]:
    return draw(dropout.seed, dropout.stream, dropout.step, dropout.row_offset)


def _threshold(dropout: Dropout) -> np.uint32:
    return np.uint32(philox.keep_threshold(dropout.keep))


@loop
def _mask(kept: Any, row_offset: Any, step: Any, stream: Any, k0: Any, k1: Any, threshold: Any) -> None:
    for b in prange(kept.shape[0]):
        words = row_words(new_row(kept.shape[1]), b, row_offset, step, stream, k0, k1)
        for i in range(kept.shape[1]):
            kept[b, i] = (words[i] >> np.uint32(8)) < threshold


@loop
def _apply(
    x: Any, out: Any, row_offset: Any, step: Any, stream: Any, k0: Any, k1: Any, threshold: Any, scale: Any
) -> None:
    for b in prange(x.shape[0]):
        words = row_words(new_row(x.shape[1]), b, row_offset, step, stream, k0, k1)
        x_I, out_I = x[b], out[b]
        for i in range(x.shape[1]):
            # Chosen, not multiplied by 0, which would keep a NaN.
            scaled = x_I[i] * scale
            out_I[i] = scaled if (words[i] >> np.uint32(8)) < threshold else x.dtype.type(0)


@loop
def _apply_in_place(
    x: Any, row_offset: Any, step: Any, stream: Any, k0: Any, k1: Any, threshold: Any, scale: Any
) -> None:
    # A loop of its own: where what is read and what is written are the same, LLVM has to see it (three times as fast).
    for b in prange(x.shape[0]):
        words = row_words(new_row(x.shape[1]), b, row_offset, step, stream, k0, k1)
        x_I = x[b]
        for i in range(x.shape[1]):
            scaled = x_I[i] * scale
            x_I[i] = scaled if (words[i] >> np.uint32(8)) < threshold else x.dtype.type(0)
