"""Launches of ``conv_maxout.cu`` and ``biases.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import arguments
from fastgan.kernels.common.arrays import Array, Rate, Workspace
from fastgan.kernels.common.gemm_tile import Operand, arithmetic_of, choose, launch_product
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.dropout import cupy_raw as dropout_cupy
from fastgan.kernels.sgd.cupy_raw import clip_columns

_SOURCE: Final = "conv_maxout/conv_maxout.cu"
# Rows of a product in one launch: a grid has at most 65,535 tiles along them, and the smallest has 32 rows.
MAX_ROWS = 65535 * 32


def forward(
    x_BCHW: Array,
    W_CKKUP: Array,
    b_UP: Array,
    num_pieces: int,
    pad: int,
    dropout: Dropout | None,
    out: Array,
    out_pieces: NDArray[np.uint8],
    precision: str,
    workspace: Workspace,
) -> None:
    """Write y and the winning pieces."""
    arguments.require_float32(x=x_BCHW)
    C, K, _, columns = W_CKKUP.shape
    dropped = _dropped(x_BCHW, dropout, workspace).reshape(x_BCHW.shape)
    x, W = Operand(k_fast=False, plain=False), Operand(k_fast=False, plain=True)
    for images in parts(len(x_BCHW), out.shape[2] * out.shape[3]):
        y = out[images]
        M = len(y) * y.shape[2] * y.shape[3]
        tiling = choose(M, columns, C * K * K, x, W, arithmetic_of(precision, split=False), pieces=num_pieces)
        name = f"conv_maxout_forward<{y.shape[1]}>"
        launch_product(
            tiling, tiling.kernel(_SOURCE, name, x, W, **_sizes(x_BCHW.shape, K, pad, y.shape, num_pieces)),
            M, columns, workspace,
            x=dropped[images], W=W_CKKUP, b=b_UP, y=y, pieces=out_pieces[images], B=np.int32(len(y)),
        )  # fmt: skip


def backward_input(
    dy_BUHW: Array,
    pieces_BUHW: NDArray[np.uint8],
    W_CKKUP: Array,
    num_pieces: int,
    pad: int,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    out: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write dx into ``out``."""
    arguments.require_float32(dy=dy_BUHW)
    C, K, _, columns = W_CKKUP.shape
    B, _, H, width = out.shape
    dz, W = Operand(k_fast=False, plain=False), Operand(k_fast=True, plain=True)
    name = f"conv_maxout_backward_input<{dy_BUHW.shape[1]}>"
    for images in parts(B, H * width):
        dy, dx = dy_BUHW[images], out[images]
        tiling = choose(len(dx) * H * width, C, K * K * columns, dz, W, arithmetic_of(precision, split=False))
        launch_product(
            tiling, tiling.kernel(_SOURCE, name, dz, W, **_sizes(out.shape, K, pad, dy.shape, num_pieces)),
            len(dx) * H * width, C, workspace,
            dy=dy, pieces=pieces_BUHW[images], row_scale=None if row_scale_B is None else row_scale_B[images],
            W=W_CKKUP, dx=dx, B=np.int32(len(dx)),
        )  # fmt: skip
    if dropout is not None:
        dropout_cupy.apply(out.reshape(B, -1), dropout, out.reshape(B, -1))


def backward_weights(
    x_BCHW: Array,
    dy_BUHW: Array,
    pieces_BUHW: NDArray[np.uint8],
    num_pieces: int,
    pad: int,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    dW_CKKUP: Array,
    db_UP: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write dW and db."""
    rates = arguments.rates(0.0, 0.0, None)
    _weights(
        "false", x_BCHW, dy_BUHW, pieces_BUHW, num_pieces, pad, dropout, row_scale_B, precision, workspace,
        dW_CKKUP, None, rates,
    )  # fmt: skip
    _biases("false", dy_BUHW, pieces_BUHW, num_pieces, row_scale_B, db_UP, None, rates)


def backward_update(
    x_BCHW: Array,
    dy_BUHW: Array,
    pieces_BUHW: NDArray[np.uint8],
    num_pieces: int,
    W_CKKUP: Array,
    b_UP: Array,
    vW_CKKUP: Array,
    vb_UP: Array,
    pad: int,
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
    rates = arguments.rates(learning_rate, momentum, skip)
    _weights(
        "true", x_BCHW, dy_BUHW, pieces_BUHW, num_pieces, pad, dropout, row_scale_B, precision, workspace,
        W_CKKUP, vW_CKKUP, rates,
    )  # fmt: skip
    _biases("true", dy_BUHW, pieces_BUHW, num_pieces, row_scale_B, b_UP, vb_UP, rates)
    if max_col_norm is not None:
        clip_columns(W_CKKUP.reshape(-1, W_CKKUP.shape[3]), max_col_norm, skip)


def _weights(
    update: str,
    x_BCHW: Array,
    dy_BUHW: Array,
    pieces_BUHW: NDArray[np.uint8],
    num_pieces: int,
    pad: int,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    precision: str,
    workspace: Workspace,
    W_CKKUP: Array,
    vW_CKKUP: Array | None,
    rates: dict[str, Any],
) -> None:
    arguments.require_float32(x=x_BCHW)
    C, K, _, columns = W_CKKUP.shape
    B, U, height, width = dy_BUHW.shape
    x, dz = Operand(k_fast=True, plain=False), Operand(k_fast=True, plain=False)
    tiling = choose(C * K * K, columns, B * height * width, x, dz, arithmetic_of(precision, split=False))
    name = f"conv_maxout_backward_weights<{U}, {update}>"
    kernel = tiling.kernel(_SOURCE, name, x, dz, **_sizes(x_BCHW.shape, K, pad, dy_BUHW.shape, num_pieces))
    launch_product(
        tiling, kernel, C * K * K, columns, workspace,
        x=_dropped(x_BCHW, dropout, workspace), dy=dy_BUHW, pieces=pieces_BUHW, row_scale=row_scale_B, W=W_CKKUP,
        vW=vW_CKKUP, B=np.int32(B), **rates,
    )  # fmt: skip


def _biases(
    update: str,
    dy_BUHW: Array,
    pieces_BUHW: NDArray[np.uint8],
    num_pieces: int,
    row_scale_B: Array | None,
    b_UP: Array,
    vb_UP: Array | None,
    rates: dict[str, Any],
) -> None:
    B, U, height, width = dy_BUHW.shape
    launch(
        Kernel("conv_maxout/biases.cu", f"conv_maxout_biases<{update}>", shared_bytes=8 * 256),
        (U * num_pieces, 1, 1),
        dy=dy_BUHW, pieces=pieces_BUHW, row_scale=row_scale_B, b=b_UP, vb=vb_UP, B=np.int32(B), U=np.int32(U),
        P=np.int32(num_pieces), num_places=np.int32(height * width), **rates,
    )  # fmt: skip


def parts(num_images: int, num_places: int) -> Iterator[slice]:
    """Cut a batch, far larger than a training step's, into parts that one launch can take."""
    step = max(1, MAX_ROWS // num_places)
    for first in range(0, num_images, step):
        yield slice(first, min(first + step, num_images))


def _dropped(x_BCHW: Array, dropout: Dropout | None, workspace: Workspace) -> Array:
    if dropout is None:
        return x_BCHW
    rows = x_BCHW.reshape(len(x_BCHW), -1)
    dropped = workspace.array("dropped", rows.shape, x_BCHW.dtype)
    dropout_cupy.apply(rows, dropout, dropped)
    return dropped


def _sizes(x: tuple[int, ...], K: int, pad: int, y: tuple[int, ...], num_pieces: int) -> dict[str, int]:
    """Give the defines of ``conv_maxout.cu`` for x (B, C, H, W) and y (B, U, H', W')."""
    return {
        "IMAGE_C": x[1], "IMAGE_H": x[2], "IMAGE_W": x[3], "KERNEL": K, "PAD": pad,
        "PLACES_H": y[2], "PLACES_W": y[3], "PIECES": num_pieces,
    }  # fmt: skip
