"""Launches of ``dropout.cu``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import arguments
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch, runtime
from fastgan.kernels.dropout import Dropout

_MASK: Final = Kernel("dropout/dropout.cu", "dropout_mask")
_APPLY: Final = Kernel("dropout/dropout.cu", "dropout_apply")


def mask(num_rows: int, num_columns: int, dropout: Dropout) -> NDArray[np.bool_]:
    """Draw the mask (B, I), True where kept; an array of the device."""
    out: NDArray[np.bool_] = runtime().empty((num_rows, num_columns), np.bool_)
    _launch(_MASK, (num_rows, num_columns), dropout, {"out": out})
    return out


def apply(x_BI: Array, dropout: Dropout, out: Array) -> None:
    """Draw the mask and apply it."""
    arguments.require_float32(x=x_BI)
    _launch(_APPLY, x_BI.shape, dropout, {"x": x_BI, "out": out})


def _launch(kernel: Kernel, shape: tuple[int, ...], dropout: Dropout, arrays: dict[str, Any]) -> None:
    B, I = shape
    blocks = -(-B * -(-I // 4) // kernel.threads)
    if blocks:
        launch(kernel, (blocks, 1, 1), **arrays, B=np.int32(B), I=np.int32(I), **arguments.mask(dropout))
