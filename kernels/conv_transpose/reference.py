"""The definition of a transposed convolution, in NumPy over BLAS: a product, then patches put into the image."""

from __future__ import annotations

import numpy as np

from fastgan.kernels.common.arrays import Array, Rate, Workspace, read_rate
from fastgan.kernels.common.blas import gemm
from fastgan.kernels.conv_maxout.reference import add_columns, columns, parts
from fastgan.kernels.sgd import reference as sgd_reference


def forward(
    x_BCHW: Array, W_COKK: Array, b_OHW: Array, stride: int, out: Array, precision: str, workspace: Workspace
) -> None:
    """Write y into ``out``."""
    B, _, H, W = x_BCHW.shape
    kernels = matrix(W_COKK)
    for images in parts(B, kernels.shape[1] * H * W):
        x = pixels(x_BCHW[images], workspace)
        patches = workspace.array("patches", (kernels.shape[1], x.shape[1]), x.dtype)
        gemm(kernels.T, x, patches)
        add_columns(patches, W_COKK.shape[2], stride, 0, (H, W), out[images], workspace)
    np.add(out, b_OHW, out=out)


def backward_input(
    dy_BOHW: Array, W_COKK: Array, stride: int, out: Array, precision: str, workspace: Workspace
) -> None:
    """Write dx into ``out``."""
    B, C, H, W = out.shape
    kernels = matrix(W_COKK)
    for images in parts(B, kernels.shape[1] * H * W):
        patches = columns(dy_BOHW[images], W_COKK.shape[2], stride, 0, (H, W), workspace)
        dx = workspace.array("pixels", (C, patches.shape[1]), patches.dtype)
        gemm(kernels, patches, dx)
        out[images] = dx.reshape(C, -1, H, W).transpose(1, 0, 2, 3)


def backward_weights(
    x_BCHW: Array, dy_BOHW: Array, stride: int, dW_COKK: Array, db_OHW: Array, precision: str, workspace: Workspace
) -> None:
    """Write dW and db."""
    _accumulate(x_BCHW, dy_BOHW, stride, dW_COKK, db_OHW, 1.0, 0.0, workspace)


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
    if skip is not None and skip[0]:
        return
    rate, m = read_rate(learning_rate), read_rate(momentum)
    db_OHW = workspace.array("db", b_OHW.shape, b_OHW.dtype)
    _accumulate(x_BCHW, dy_BOHW, stride, vW_COKK, db_OHW, -rate, m, workspace)
    np.add(W_COKK, vW_COKK, out=W_COKK)
    sgd_reference.raise_flag(vW_COKK, skip)
    sgd_reference.update(b_OHW, vb_OHW, db_OHW, rate, m, None, skip)


def _accumulate(
    x_BCHW: Array,
    dy_BOHW: Array,
    stride: int,
    target_COKK: Array,
    db_OHW: Array,
    alpha: float,
    beta: float,
    workspace: Workspace,
) -> None:
    """Write ``target ← alpha · dW + beta · target`` and db."""
    B, _, H, W = x_BCHW.shape
    target = matrix(target_COKK)
    for images in parts(B, target.shape[1] * H * W):
        x = pixels(x_BCHW[images], workspace)
        patches = columns(dy_BOHW[images], target_COKK.shape[2], stride, 0, (H, W), workspace)
        gemm(x, patches.T, target, alpha=alpha, beta=beta if images.start == 0 else 1.0)
    np.sum(dy_BOHW, axis=0, out=db_OHW)


def matrix(W_COKK: Array) -> Array:
    """Give the kernels as a matrix (C, O·K·K), a view."""
    return W_COKK.reshape(len(W_COKK), -1)


def pixels(x_BCHW: Array, workspace: Workspace) -> Array:
    """Give the images with a channel a row: (C, B·H·W)."""
    B, C, H, W = x_BCHW.shape
    result = workspace.array("pixels", (C, B * H * W), x_BCHW.dtype)
    result.reshape(C, B, H, W)[...] = x_BCHW.transpose(1, 0, 2, 3)
    return result
