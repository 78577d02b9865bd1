"""Launches of ``conv_transpose.cu`` and ``put.cu``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from fastgan.kernels.common import arguments
from fastgan.kernels.common.arrays import Array, Rate, Workspace
from fastgan.kernels.common.gemm_tile import Operand, arithmetic_of, choose, launch_product
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch
from fastgan.kernels.conv_maxout.cupy_raw import parts

_SOURCE: Final = "conv_transpose/conv_transpose.cu"
_THREADS: Final = 256


def forward(
    x_BCHW: Array, W_COKK: Array, b_OHW: Array, stride: int, out: Array, precision: str, workspace: Workspace
) -> None:
    """Write y into ``out``."""
    arguments.require_float32(x=x_BCHW)
    B, C, H, width = x_BCHW.shape
    _, O, K, _ = W_COKK.shape
    columns = O * K * K
    x, W = Operand(k_fast=False, plain=False), Operand(k_fast=False, plain=True)
    lengths = {"O": O, "K": K, "stride": stride, "H": H, "W": width, "out_H": out.shape[2], "out_W": out.shape[3]}
    for images in parts(B, H * width):
        y = out[images]
        M = len(y) * H * width
        tiling = choose(M, columns, C, x, W, arithmetic_of(precision, split=False))
        patches = workspace.array("patches", (M, columns), np.dtype(np.float32))
        launch_product(
            tiling, tiling.kernel(_SOURCE, f"conv_transpose_forward<{C}>", x, W, **_sizes(x_BCHW, y, K, stride)),
            M, columns, workspace,
            x=x_BCHW[images], W=W_COKK, all_patches=patches, B=np.int32(len(y)),
        )  # fmt: skip
        launch(
            Kernel("conv_transpose/put.cu", "conv_transpose_put"), (-(-y.size // _THREADS), 1, 1),
            patches=patches, b=b_OHW, y=y, n=np.int64(y.size),
            **{name: np.int32(length) for name, length in lengths.items()},
        )  # fmt: skip


def backward_input(
    dy_BOHW: Array, W_COKK: Array, stride: int, out: Array, precision: str, workspace: Workspace
) -> None:
    """Write dx into ``out``."""
    arguments.require_float32(dy=dy_BOHW)
    B, C, H, width = out.shape
    _, O, K, _ = W_COKK.shape
    dy, W = Operand(k_fast=False, plain=False), Operand(k_fast=True, plain=True)
    for images in parts(B, H * width):
        dx = out[images]
        M = len(dx) * H * width
        tiling = choose(M, C, O * K * K, dy, W, arithmetic_of(precision, split=False))
        name = f"conv_transpose_backward_input<{C}>"
        launch_product(
            tiling, tiling.kernel(_SOURCE, name, dy, W, **_sizes(dx, dy_BOHW, K, stride)), M, C, workspace,
            dy=dy_BOHW[images], W=W_COKK, dx=dx, B=np.int32(len(dx)),
        )  # fmt: skip


def backward_weights(
    x_BCHW: Array, dy_BOHW: Array, stride: int, dW_COKK: Array, db_OHW: Array, precision: str, workspace: Workspace
) -> None:
    """Write dW and db."""
    rates = arguments.rates(0.0, 0.0, None)
    _weights("false", x_BCHW, dy_BOHW, stride, dW_COKK, None, rates, precision, workspace)
    _biases("false", dy_BOHW, db_OHW, None, rates)


def backward_update(
    x_BCHW: Array,
    dy_BOHW: Array,
    W_COKK: Array,
    b_OHW: Array,
    vW_COKK: Array,
    vb_OHW: Array,
    stride: int,
    learning_rate: Rate,
    momentum: Rate,
    skip: Array | None,
    precision: str,
    workspace: Workspace,
) -> None:
    """Update W, b and their velocities in place."""
    rates = arguments.rates(learning_rate, momentum, skip)
    _weights("true", x_BCHW, dy_BOHW, stride, W_COKK, vW_COKK, rates, precision, workspace)
    _biases("true", dy_BOHW, b_OHW, vb_OHW, rates)


def _weights(
    update: str,
    x_BCHW: Array,
    dy_BOHW: Array,
    stride: int,
    W_COKK: Array,
    vW_COKK: Array | None,
    rates: dict[str, Any],
    precision: str,
    workspace: Workspace,
) -> None:
    arguments.require_float32(x=x_BCHW)
    B, C, H, width = x_BCHW.shape
    _, O, K, _ = W_COKK.shape
    name = f"conv_transpose_backward_weights<{C}, {update}>"
    x, dy = Operand(k_fast=True, plain=False), Operand(k_fast=True, plain=False)
    tiling = choose(C, O * K * K, B * H * width, x, dy, arithmetic_of(precision, split=False))
    launch_product(
        tiling, tiling.kernel(_SOURCE, name, x, dy, **_sizes(x_BCHW, dy_BOHW, K, stride)), C, O * K * K, workspace,
        x=x_BCHW, dy=dy_BOHW, W=W_COKK, vW=vW_COKK, B=np.int32(B), **rates,
    )  # fmt: skip


def _biases(update: str, dy_BOHW: Array, b_OHW: Array, vb_OHW: Array | None, rates: dict[str, Any]) -> None:
    launch(
        Kernel("conv_transpose/put.cu", f"conv_transpose_biases<{update}>"), (-(-b_OHW.size // _THREADS), 1, 1),
        dy=dy_BOHW, b=b_OHW, vb=vb_OHW, B=np.int32(len(dy_BOHW)), pixels=np.int32(b_OHW.size), **rates,
    )  # fmt: skip


def _sizes(x: Array, y: Array, K: int, stride: int) -> dict[str, int]:
    """Give the defines of ``conv_transpose.cu`` for x (B, C, H, W) and y (B, O, H', W')."""
    return {
        "PLACES_H": x.shape[2], "PLACES_W": x.shape[3], "IMAGE_C": y.shape[1],
        "IMAGE_H": y.shape[2], "IMAGE_W": y.shape[3], "KERNEL": K, "IMAGE_STRIDE": stride,
    }  # fmt: skip
