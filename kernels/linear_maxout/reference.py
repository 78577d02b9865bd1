"""The definition of a layer of maxout units, in NumPy over BLAS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, Rate, Workspace
from fastgan.kernels.common.blas import gemm
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.dropout import reference as dropout_reference
from fastgan.kernels.linear.reference import redropped
from fastgan.kernels.sgd import reference as sgd_reference


def forward(
    x_BI: Array,
    W_IUP: Array,
    b_UP: Array,
    num_pieces: int,
    dropout: Dropout | None,
    out: Array,
    out_pieces: NDArray[np.uint8],
    precision: str,
    workspace: Workspace,
) -> None:
    """Write y and the winning pieces."""
    dropped_BI = x_BI
    if dropout is not None:
        dropped_BI = workspace.array("dropped", x_BI.shape, x_BI.dtype)
        dropout_reference.apply(x_BI, dropout, dropped_BI)
    z = workspace.array("z", (x_BI.shape[0], W_IUP.shape[1]), x_BI.dtype)
    gemm(dropped_BI, W_IUP, z)
    np.add(z, b_UP, out=z)
    max_over_pieces(z.reshape(*out.shape, num_pieces), out, out_pieces, workspace)


def max_over_pieces(z: Array, out: Array, out_pieces: NDArray[np.uint8], workspace: Workspace) -> None:
    """Take the running maximum over z's last axis: argmax over so short an axis costs several times as much."""
    wins = workspace.array("wins", out.shape, np.dtype(np.bool_))
    piece = workspace.array("piece", out.shape, out.dtype)
    is_number = workspace.array("is_number", out.shape, np.dtype(np.bool_))
    np.copyto(out, z[..., 0])
    out_pieces[...] = 0
    for p in range(1, z.shape[-1]):
        np.copyto(piece, z[..., p])
        # Not (z <= y) is true for a greater z and for NaN on either side; what is NaN already stays with its piece.
        np.less_equal(piece, out, out=wins)
        np.logical_not(wins, out=wins)
        np.equal(out, out, out=is_number)
        np.logical_and(wins, is_number, out=wins)
        np.maximum(out, piece, out=out)
        np.putmask(out_pieces, wins, np.uint8(p))


def backward_input(
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    W_IUP: Array,
    num_pieces: int,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    out: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write dx into ``out``."""
    gemm(_dz(dy_BU, pieces_BU, num_pieces, row_scale_B, workspace), W_IUP.T, out)
    if dropout is not None:
        dropout_reference.apply_again(out, dropout, out)


def backward_weights(
    x_BI: Array,
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    num_pieces: int,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    dW_IUP: Array,
    db_UP: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write dW and db."""
    dz = _dz(dy_BU, pieces_BU, num_pieces, row_scale_B, workspace)
    gemm(redropped(x_BI, dropout, workspace).T, dz, dW_IUP)
    np.sum(dz, axis=0, out=db_UP)


def backward_update(
    x_BI: Array,
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    num_pieces: int,
    W_IUP: Array,
    b_UP: Array,
    vW_IUP: Array,
    vb_UP: Array,
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
    dz = _dz(dy_BU, pieces_BU, num_pieces, row_scale_B, workspace)
    x_BI = redropped(x_BI, dropout, workspace)
    sgd_reference.update_from_product(
        x_BI, dz, W_IUP, b_UP, vW_IUP, vb_UP, learning_rate, momentum, max_col_norm, skip, workspace
    )


def _dz(
    dy_BU: Array, pieces_BU: NDArray[np.uint8], num_pieces: int, row_scale_B: Array | None, workspace: Workspace
) -> Array:
    """Expand dy to the pieces: each unit's gradient goes to the piece that won."""
    B, U = dy_BU.shape
    if row_scale_B is not None:
        scaled_BU = workspace.array("scaled", (B, U), dy_BU.dtype)
        dy_BU = np.multiply(dy_BU, row_scale_B[:, None], out=scaled_BU)
    dz = workspace.array("dz", (B, U * num_pieces), dy_BU.dtype)
    dz_BUP = dz.reshape(B, U, num_pieces)
    won = workspace.array("wins", (B, U), np.dtype(np.bool_))
    dz.fill(0)
    for p in range(num_pieces):
        np.equal(pieces_BU, p, out=won)
        np.copyto(dz_BUP[:, :, p], dy_BU, where=won)
    return dz
