"""Launches of ``dropout.cu``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import arguments
from fastgan.kernels.common.arrays import Array, Workspace
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch, runtime
from fastgan.kernels.dropout import Dropout

_BITS: Final = Kernel("dropout/dropout.cu", "dropout_bits")
_MASK: Final = Kernel("dropout/dropout.cu", "dropout_mask")
_APPLY: Final = Kernel("dropout/dropout.cu", "dropout_apply")


def mask(num_rows: int, num_columns: int, dropout: Dropout) -> NDArray[np.bool_]:
    """Draw the mask (B, I), True where kept; an array of the device."""
    out: NDArray[np.bool_] = runtime().empty((num_rows, num_columns), np.bool_)
    _launch(_MASK, (num_rows, num_columns), dropout, {"out": out})
    return out


def draw(dropout: Dropout, num_rows: int, num_columns: int) -> None:
    """Draw the packed mask into ``dropout.bits``."""
    assert dropout.bits is not None
    _launch(_BITS, (num_rows, num_columns), dropout, {"out": dropout.bits}, columns_a_thread=8)


def kept_bits(
    dropout: Dropout | None, shape: tuple[int, ...], workspace: Workspace, *, again: bool
) -> NDArray[np.uint8] | None:
    """Give the packed mask of a layer's input of that shape, drawn now unless it was ahead or by the forward pass.

    ``again`` is for backward passes, which come after that.
    """
    if dropout is None:
        return None
    (B, I), bits = shape, dropout.bits
    if bits is None:
        bits = workspace.array("kept", (B, -(-I // 8)), np.dtype(np.uint8))
    elif again or dropout.drawn:
        return bits
    draw(replace(dropout, bits=bits), B, I)
    return bits


def apply(x_BI: Array, dropout: Dropout, out: Array) -> None:
    """Draw the mask and apply it."""
    arguments.require_float32(x=x_BI)
    _launch(_APPLY, x_BI.shape, dropout, {"x": x_BI, "out": out})


def _launch(
    kernel: Kernel, shape: tuple[int, ...], dropout: Dropout, arrays: dict[str, Any], columns_a_thread: int = 4
) -> None:
    B, I = shape
    blocks = -(-B * -(-I // columns_a_thread) // kernel.threads)
    if blocks:
        launch(kernel, (blocks, 1, 1), **arrays, B=np.int32(B), I=np.int32(I), **arguments.mask(dropout))
