"""Launches of ``max_pool.cu``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import arguments
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch


def forward(x_BCHW: Array, size: int, stride: int, out: Array, out_places: NDArray[np.uint8]) -> None:
    """Write y and the places."""
    arguments.require_float32(x=x_BCHW)
    kernel = _kernel("max_pool_forward", size, stride)
    launch(
        kernel, (-(-out.size // kernel.threads), 1, 1),
        x=x_BCHW, y=out, places=out_places, n=np.int64(out.size), **_lengths(x_BCHW, out),
    )  # fmt: skip


def backward(dy_BCHW: Array, places_BCHW: NDArray[np.uint8], size: int, stride: int, out: Array) -> None:
    """Write dx into ``out``."""
    arguments.require_float32(dy=dy_BCHW)
    kernel = _kernel("max_pool_backward", size, stride)
    launch(
        kernel, (-(-out.size // kernel.threads), 1, 1),
        dy=dy_BCHW, places=places_BCHW, dx=out, n=np.int64(out.size), **_lengths(out, dy_BCHW),
    )  # fmt: skip


def _kernel(name: str, size: int, stride: int) -> Kernel:
    return Kernel("max_pool/max_pool.cu", name, (("WINDOW", size), ("STRIDE", stride)))


def _lengths(x: Array, y: Array) -> dict[str, np.int32]:
    (_, _, H, W), (_, _, out_H, out_W) = x.shape, y.shape
    return {"H": np.int32(H), "W": np.int32(W), "out_H": np.int32(out_H), "out_W": np.int32(out_W)}
