"""The definition of a convolution of maxout units, in NumPy over BLAS: patches as columns, then a product."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, Rate, Workspace, read_rate
from fastgan.kernels.common.blas import gemm
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.dropout import reference as dropout_reference
from fastgan.kernels.linear.reference import redropped
from fastgan.kernels.linear_maxout.reference import max_over_pieces
from fastgan.kernels.sgd import reference as sgd_reference

# Numbers in the patches of the images that are taken at a time: all of a batch's would fill the memory.
_NUMBERS = 1 << 20


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
    B, K, num_outputs = len(x_BCHW), W_CKKUP.shape[1], W_CKKUP.shape[3]
    _, U, height, width = out.shape
    dropped = x_BCHW
    if dropout is not None:
        dropped = workspace.array("dropped", x_BCHW.shape, x_BCHW.dtype)
        dropout_reference.apply(x_BCHW.reshape(B, -1), dropout, dropped.reshape(B, -1))
    for images in parts(B, matrix(W_CKKUP).shape[0] * height * width):
        patches = columns(dropped[images], K, 1, pad, (height, width), workspace)
        n = patches.shape[1] // (height * width)
        z = workspace.array("z", (num_outputs, patches.shape[1]), x_BCHW.dtype)
        gemm(matrix(W_CKKUP).T, patches, z)
        np.add(z, b_UP[:, None], out=z)
        z_UPBHW = z.reshape(U, num_pieces, n, height, width)
        max_over_pieces(z_UPBHW.transpose(2, 0, 3, 4, 1), out[images], out_pieces[images], workspace)


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
    for images in parts(B, len(W) * height * width):
        dz = _dz(dy_BUHW[images], pieces_BUHW[images], num_pieces, _rows(row_scale_B, images), workspace)
        dpatches = workspace.array("patches", (len(W), dz.shape[1]), dz.dtype)
        gemm(W, dz, dpatches)
        add_columns(dpatches, W_CKKUP.shape[1], 1, pad, (height, width), out[images], workspace)
    if dropout is not None:
        dropout_reference.apply_again(out.reshape(B, -1), dropout, out.reshape(B, -1))


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
    np.add(W_CKKUP, vW_CKKUP, out=W_CKKUP)
    if max_col_norm is not None:
        sgd_reference.clip_columns(matrix(W_CKKUP), max_col_norm)
    sgd_reference.raise_flag(vW_CKKUP, skip)
    sgd_reference.update(b_UP, vb_UP, db_UP, rate, m, None, skip)


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
    dropped = redropped(x_BCHW.reshape(B, -1), dropout, workspace).reshape(x_BCHW.shape)
    db_UP.fill(0)
    for images in parts(B, len(target) * height * width):
        dz = _dz(dy_BUHW[images], pieces_BUHW[images], num_pieces, _rows(row_scale_B, images), workspace)
        patches = columns(dropped[images], target_CKKUP.shape[1], 1, pad, (height, width), workspace)
        gemm(patches, dz.T, target, alpha=alpha, beta=beta if images.start == 0 else 1.0)
        db_UP += np.sum(dz, axis=1)


def matrix(W_CKKUP: Array) -> Array:
    """Give the kernels as a matrix (C·K·K, U·P), a view."""
    return W_CKKUP.reshape(-1, W_CKKUP.shape[3])


def parts(num_images: int, numbers_an_image: int) -> Iterator[slice]:
    """Cut a batch into parts whose patches are of a size that a cache or a memory can hold; no part is empty."""
    step = max(1, _NUMBERS // numbers_an_image)
    for first in range(0, num_images, step):
        yield slice(first, min(first + step, num_images))


def columns(x_BCHW: Array, K: int, stride: int, pad: int, places: tuple[int, int], workspace: Workspace) -> Array:
    """Give the patches that a kernel meets at each place as columns: (C·K·K, B·H'·W'), for H' x W' places."""
    B, C, H, W = x_BCHW.shape
    padded = workspace.array("padded", (B, C, H + 2 * pad, W + 2 * pad), x_BCHW.dtype)
    padded.fill(0)
    padded[:, :, pad : pad + H, pad : pad + W] = x_BCHW
    result = workspace.array("patches", (C * K * K, B * places[0] * places[1]), x_BCHW.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (K, K), axis=(2, 3))[:, :, ::stride, ::stride]
    result.reshape(C, K, K, B, *places)[...] = windows.transpose(1, 4, 5, 0, 2, 3)
    return result


def add_columns(
    patches: Array, K: int, stride: int, pad: int, places: tuple[int, int], out_BCHW: Array, workspace: Workspace
) -> None:
    """Write the images whose pixels are the sums of what patches have of them: the transpose of ``columns``."""
    B, C, H, W = out_BCHW.shape
    padded = workspace.array("padded", (B, C, H + 2 * pad, W + 2 * pad), out_BCHW.dtype)
    padded.fill(0)
    by_place = patches.reshape(C, K, K, B, *places)
    for k in range(K):
        for l in range(K):
            # As many steps of the stride as there are places.
            rows, cols = (slice(at, at + (n - 1) * stride + 1, stride) for at, n in zip((k, l), places, strict=True))
            padded[:, :, rows, cols] += by_place[:, k, l].transpose(1, 0, 2, 3)
    out_BCHW[...] = padded[:, :, pad : pad + H, pad : pad + W]


def _dz(
    dy_BUHW: Array, pieces_BUHW: NDArray[np.uint8], num_pieces: int, row_scale_B: Array | None, workspace: Workspace
) -> Array:
    """Expand dy to the pieces: (U·P, B·H'·W'), each unit's gradient where it won."""
    B, U, H, W = dy_BUHW.shape
    if row_scale_B is not None:
        scaled = workspace.array("scaled", dy_BUHW.shape, dy_BUHW.dtype)
        dy_BUHW = np.multiply(dy_BUHW, row_scale_B[:, None, None, None], out=scaled)
    dz = workspace.array("dz", (U * num_pieces, B * H * W), dy_BUHW.dtype)
    dz.fill(0)
    dz_UPBHW = dz.reshape(U, num_pieces, B, H, W)
    won = workspace.array("wins", dy_BUHW.shape, np.dtype(np.bool_))
    for p in range(num_pieces):
        np.equal(pieces_BUHW, p, out=won)
        np.copyto(dz_UPBHW[:, p], dy_BUHW.transpose(1, 0, 2, 3), where=won.transpose(1, 0, 2, 3))
    return dz


def _rows(row_scale_B: Array | None, images: slice) -> Array | None:
    return None if row_scale_B is None else row_scale_B[images]
