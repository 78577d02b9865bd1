"""A transposed convolution: products, and compiled passes that put patches into images and take them out."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgan.kernels.common.arrays import Array, Rate, Workspace, read_rate
from fastgan.kernels.common.loops import loop, prange
from fastgan.kernels.common.products import product
from fastgan.kernels.conv_maxout.cpu import add_columns, columns
from fastgan.kernels.conv_maxout.reference import parts
from fastgan.kernels.conv_transpose.reference import matrix, pixels
from fastgan.kernels.sgd import cpu as sgd_cpu

# Pixels that one thread takes at a time where sums over the batch are taken.
_PIXELS = 256


def forward(
    x_BCHW: Array, W_COKK: Array, b_OHW: Array, stride: int, out: Array, precision: str, workspace: Workspace
) -> None:
    """Write y into ``out``."""
    B, _, H, W = x_BCHW.shape
    kernels = matrix(W_COKK)
    for images in parts(B, kernels.shape[1] * H * W):
        x = pixels(x_BCHW[images], workspace)
        patches = workspace.array("patches", (kernels.shape[1], x.shape[1]), x.dtype)
        product(kernels.T, x, patches, workspace)
        add_columns(patches, W_COKK.shape[2], stride, 0, (H, W), out[images])
    _add_bias(out.reshape(B, -1), b_OHW.reshape(-1), size=out.size)


def backward_input(
    dy_BOHW: Array, W_COKK: Array, stride: int, out: Array, precision: str, workspace: Workspace
) -> None:
    """Write dx into ``out``."""
    B, C, H, W = out.shape
    kernels = matrix(W_COKK)
    for images in parts(B, kernels.shape[1] * H * W):
        patches = columns(dy_BOHW[images], W_COKK.shape[2], stride, 0, (H, W), workspace)
        dx = workspace.array("pixels", (C, patches.shape[1]), patches.dtype)
        product(kernels, patches, dx, workspace)
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
    sgd_cpu.add(W_COKK, vW_COKK, skip)
    sgd_cpu.update(b_OHW, vb_OHW, db_OHW, rate, m, None, skip)


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
        product(x, patches.T, target, workspace, alpha=alpha, beta=beta if images.start == 0 else 1.0)
    _sum_over_batch(dy_BOHW.reshape(B, -1), db_OHW.reshape(-1), size=dy_BOHW.size)


@loop
def _add_bias(y: Any, b: Any) -> None:
    for row in prange(y.shape[0]):
        y_N = y[row]
        for n in range(y.shape[1]):
            y_N[n] += b[n]


@loop
def _sum_over_batch(dy: Any, db: Any) -> None:
    for block in prange(-(-dy.shape[1] // _PIXELS)):
        first, last = block * _PIXELS, min((block + 1) * _PIXELS, dy.shape[1])
        # In float64, as in the layer of linear units.
        sums = np.zeros(last - first, np.float64)
        for row in range(dy.shape[0]):
            dy_N = dy[row, first:last]
            for n in range(last - first):
                sums[n] += np.float64(dy_N[n])
        for n in range(last - first):
            db[first + n] = sums[n]
