"""Launches of ``sgd.cu``."""

from __future__ import annotations

from typing import Final

import numpy as np

from fastgan.kernels.common import arguments
from fastgan.kernels.common.arrays import Array, Rate
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch

_UPDATE: Final = Kernel("sgd/sgd.cu", "sgd_update")
_CLIP: Final = Kernel("sgd/sgd.cu", "sgd_clip_columns", shared_bytes=4 * 256)


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
    arguments.require_float32(W=W)
    launch(
        _UPDATE, (-(-W.size // _UPDATE.threads), 1, 1),
        W=W, v=v, g=dW, n=np.int64(W.size), **arguments.rates(learning_rate, momentum, skip),
    )  # fmt: skip
    if max_col_norm is not None:
        clip_columns(W, max_col_norm, skip)


def clip_columns(W_IO: Array, max_col_norm: float, skip: Array | None) -> None:
    """Scale the columns so that none is longer than the norm."""
    I, O = W_IO.shape
    launch(
        _CLIP, (-(-O // 32), 1, 1),
        W=W_IO, I=np.int32(I), O=np.int32(O), max_col_norm=np.float32(max_col_norm), skip=skip,
    )  # fmt: skip
