"""A convolution of maxout units: products over patches, and compiled passes before and after each product.

Patches are the columns of their matrix: one of its rows is then the images moved by a step of the kernel, in runs as
long as an image is wide, and the product's rows are the pieces' images, so that the maximum over pieces is one of whole
rows. A few images are taken at a time, whose patches stay in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, Rate, Workspace, read_rate
from fastgan.kernels.common.loops import loop, prange
from fastgan.kernels.common.products import product
from fastgan.kernels.conv_maxout.reference import matrix, parts
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.dropout import cpu as dropout_cpu
from fastgan.kernels.linear.cpu import dropped, scale_or_none
from fastgan.kernels.sgd import cpu as sgd_cpu


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
    B, _, height, width = out.shape
    x_BCHW = dropped(x_BCHW.reshape(B, -1), dropout, workspace).reshape(x_BCHW.shape)
    W = matrix(W_CKKUP)
    for images in parts(B, len(W) * height * width):
        patches = columns(x_BCHW[images], W_CKKUP.shape[1], 1, pad, (height, width), workspace)
        z = workspace.array("z", (W.shape[1], patches.shape[1]), W.dtype)
        product(W.T, patches, z, workspace)
        _max_over_pieces(z, b_UP, num_pieces, _flat(out[images]), _flat(out_pieces[images]), size=z.size)


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
    B, _, height, width = dy_BUHW.shape
    W = matrix(W_CKKUP)
    db = workspace.array("sums", (W.shape[1],), np.dtype(np.float64))
    for images in parts(B, len(W) * height * width):
        dz = _dz(dy_BUHW, pieces_BUHW, num_pieces, row_scale_B, images, db, workspace)
        dpatches = workspace.array("patches", (len(W), dz.shape[1]), dz.dtype)
        product(W, dz, dpatches, workspace)
        add_columns(dpatches, W_CKKUP.shape[1], 1, pad, (height, width), out[images])
    if dropout is not None:
        dropout_cpu.apply_again(out.reshape(B, -1), dropout, out.reshape(B, -1))


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
    _accumulate(
        x_BCHW, dy_BUHW, pieces_BUHW, num_pieces, pad, dropout, row_scale_B, dW_CKKUP, db_UP, 1.0, 0.0, workspace
    )


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
    """Update W, b and their velocities in place: v ← momentum · v - rate · dW is the product's own accumulation."""
    if skip is not None and skip[0]:
        return
    rate, m = read_rate(learning_rate), read_rate(momentum)
    db_UP = workspace.array("db", b_UP.shape, b_UP.dtype)
    _accumulate(
        x_BCHW, dy_BUHW, pieces_BUHW, num_pieces, pad, dropout, row_scale_B, vW_CKKUP, db_UP, -rate, m, workspace
    )
    if max_col_norm is None:
        sgd_cpu.add(W_CKKUP, vW_CKKUP, skip)
    else:
        sgd_cpu.add_and_clip(matrix(W_CKKUP), matrix(vW_CKKUP), max_col_norm, skip)
    sgd_cpu.update(b_UP, vb_UP, db_UP, rate, m, None, skip)


def columns(x_BCHW: Array, K: int, stride: int, pad: int, places: tuple[int, int], workspace: Workspace) -> Array:
    """Give the patches that a kernel meets at each place as columns, (C·K·K, B·H'·W'): as the reference's."""
    B, C = x_BCHW.shape[:2]
    patches = workspace.array("patches", (C * K * K, B * places[0] * places[1]), x_BCHW.dtype)
    _take(x_BCHW, stride, pad, patches.reshape(C, K, K, B, *places), size=patches.size)
    return patches


def add_columns(patches: Array, K: int, stride: int, pad: int, places: tuple[int, int], out_BCHW: Array) -> None:
    """Write the images whose pixels are the sums of what patches have of them: the transpose of ``columns``."""
    B, C = out_BCHW.shape[:2]
    _put(patches.reshape(C, K, K, B, *places), stride, pad, out_BCHW, size=patches.size)


def _accumulate(
    x_BCHW: Array,
    dy_BUHW: Array,
    pieces_BUHW: NDArray[np.uint8],
    num_pieces: int,
    pad: int,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    target_CKKUP: Array,
    db_UP: Array,
    alpha: float,
    beta: float,
    workspace: Workspace,
) -> None:
    """Write ``target ← alpha · dW + beta · target`` and db."""
    B, _, height, width = dy_BUHW.shape
    target = matrix(target_CKKUP)
    x_BCHW = dropped(x_BCHW.reshape(B, -1), dropout, workspace).reshape(x_BCHW.shape)
    sums = workspace.array("sums", db_UP.shape, np.dtype(np.float64))
    sums.fill(0)
    for images in parts(B, len(target) * height * width):
        dz = _dz(dy_BUHW, pieces_BUHW, num_pieces, row_scale_B, images, sums, workspace)
        patches = columns(x_BCHW[images], target_CKKUP.shape[1], 1, pad, (height, width), workspace)
        product(patches, dz.T, target, workspace, alpha=alpha, beta=beta if images.start == 0 else 1.0)
    db_UP[...] = sums


def _dz(
    dy_BUHW: Array,
    pieces_BUHW: NDArray[np.uint8],
    num_pieces: int,
    row_scale_B: Array | None,
    images: slice,
    sums: NDArray[np.float64],
    workspace: Workspace,
) -> Array:
    """Expand some images' dy to the pieces, (U·P, B·H'·W'), and add each piece's to its sum."""
    dy, pieces = _flat(dy_BUHW[images]), _flat(pieces_BUHW[images])
    num_images, U, num_places = dy.shape
    dz = workspace.array("dz", (U * num_pieces, num_images * num_places), dy.dtype)
    scale = scale_or_none(None if row_scale_B is None else row_scale_B[images], dy.dtype)
    _expand(dy, pieces, num_pieces, scale, dz.reshape(U, num_pieces, num_images, num_places), sums, size=dz.size)
    return dz


def _flat(array_BCHW: Array) -> Array:
    return array_BCHW.reshape(*array_BCHW.shape[:2], -1)


@loop
def _take(x: Any, stride: Any, pad: Any, patches: Any) -> None:
    zero = x.dtype.type(0)
    num_channels, K, _, num_images, height, width = patches.shape
    H, W = x.shape[2], x.shape[3]
    for row in prange(num_channels * K * K):
        c, k, l = row // (K * K), row // K % K, row % K
        # The places whose column is inside of the image: first <= j < last.
        first = min(width, max(0, -((l - pad) // stride)))
        last = max(first, min(width, (W - 1 - l + pad) // stride + 1))
        for image in range(num_images):
            for i in range(height):
                to = patches[c, k, l, image, i]
                m = i * stride + k - pad
                if m < 0 or m >= H:
                    to[:] = zero
                    continue
                start = first * stride + l - pad
                to[:first] = zero
                if stride == 1:
                    source = x[image, c, m, start : start + last - first]
                    for j in range(last - first):
                        to[first + j] = source[j]
                else:
                    for j in range(first, last):
                        to[j] = x[image, c, m, j * stride + l - pad]
                to[last:] = zero


@loop
def _put(patches: Any, stride: Any, pad: Any, out: Any) -> None:
    num_channels, K, _, num_images, height, width = patches.shape
    H, W = out.shape[2], out.shape[3]
    # Threads share images' channels, whose pixels take their patches' in the order of the kernel.
    for plane in prange(num_images * num_channels):
        image, c = plane // num_channels, plane % num_channels
        out_HW = out[image, c]
        out_HW[:] = 0
        for k in range(K):
            for l in range(K):
                first = min(width, max(0, -((l - pad) // stride)))
                last = max(first, min(width, (W - 1 - l + pad) // stride + 1))
                for i in range(height):
                    m = i * stride + k - pad
                    if m < 0 or m >= H:
                        continue
                    source = patches[c, k, l, image, i, first:last]
                    start = first * stride + l - pad
                    if stride == 1:
                        to = out_HW[m, start : start + last - first]
                        for j in range(last - first):
                            to[j] += source[j]
                    else:
                        for j in range(last - first):
                            out_HW[m, start + j * stride] += source[j]


@loop
def _max_over_pieces(z: Any, b: Any, num_pieces: Any, out: Any, out_pieces: Any) -> None:
    num_images, num_units, num_places = out.shape
    for u in prange(num_units):
        for image in range(num_images):
            out_N, pieces_N = out[image, u], out_pieces[image, u]
            for p in range(num_pieces):
                z_N = z[u * num_pieces + p, image * num_places : (image + 1) * num_places]
                bias = b[u * num_pieces + p]
                for n in range(num_places):
                    value, best = z_N[n] + bias, out_N[n]
                    # Not (value <= best) is true for a greater one and for NaN on either side; what is NaN stays.
                    wins = (not value <= best) & (best == best) | (p == 0)
                    out_N[n] = value if wins else best
                    pieces_N[n] = p if wins else pieces_N[n]


@loop
def _expand(dy: Any, pieces: Any, num_pieces: Any, scale: Any, dz: Any, sums: Any) -> None:
    zero, one = dy.dtype.type(0), dy.dtype.type(1)
    num_images, num_units, num_places = dy.shape
    # Threads share units, and each sums its own in the batch's order: the same sums for any number of threads.
    for u in prange(num_units):
        for image in range(num_images):
            factor = scale[image] if scale.shape[0] > 0 else one
            dy_N, pieces_N = dy[image, u], pieces[image, u]
            for p in range(num_pieces):
                dz_N = dz[u, p, image]
                for n in range(num_places):
                    dz_N[n] = dy_N[n] * factor if pieces_N[n] == p else zero
                total = sums[u * num_pieces + p]
                for n in range(num_places):
                    total += np.float64(dz_N[n])
                sums[u * num_pieces + p] = total
