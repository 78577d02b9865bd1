"""The definition of the dropout masks, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import philox
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.dropout import Dropout


def mask(num_rows: int, num_columns: int, dropout: Dropout) -> NDArray[np.bool_]:
    """Draw the mask (B, I), True where kept."""
    words = philox.words(
        num_rows,
        num_columns,
        seed=dropout.seed,
        stream=dropout.stream,
        step=dropout.step,
        row_offset=dropout.row_offset,
    )
    threshold = philox.keep_threshold(dropout.keep)
    if threshold == 1 << 24:
        return np.ones((num_rows, num_columns), np.bool_)
    # (word >> 8) < threshold without the shifted copy.
    return words < np.uint32(threshold << 8)


def apply(x_BI: Array, dropout: Dropout, out: Array) -> None:
    """Draw the mask, leave its bits where there is room for them, and apply it."""
    kept = mask(len(x_BI), x_BI.shape[1], dropout)
    if dropout.bits is not None:
        dropout.bits[...] = np.packbits(kept, axis=1)
    _drop(x_BI, kept, dropout, out)


def apply_again(x_BI: Array, dropout: Dropout, out: Array) -> None:
    """Apply the mask that the forward pass of this step drew."""
    if dropout.bits is None:
        kept = mask(len(x_BI), x_BI.shape[1], dropout)
    else:
        kept = np.unpackbits(dropout.bits, axis=1, count=x_BI.shape[1]).view(np.bool_)
    _drop(x_BI, kept, dropout, out)


def _drop(x_BI: Array, kept: NDArray[np.bool_], dropout: Dropout, out: Array) -> None:
    np.multiply(x_BI, x_BI.dtype.type(dropout.scale), out=out)
    # All bits or none of the product: a masked assignment takes twice as long, and a factor of 0 would keep a NaN.
    bits = out.view(np.uint32 if out.itemsize == 4 else np.uint64)
    kept_bits = kept.astype(bits.dtype)
    np.negative(kept_bits, out=kept_bits)
    np.bitwise_and(bits, kept_bits, out=bits)
