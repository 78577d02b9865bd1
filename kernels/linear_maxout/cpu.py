"""A layer of maxout units: the greatest piece is taken from each block of the product while the cache holds it.

Of the P pieces of a unit one has a gradient and the others an exact 0, so all but one in P of the expanded dz is zero,
and so is what the products backward do with it. Sums over the winners alone were tried: they wait for a load where a
product multiplies and adds twice, and are no faster for 5 pieces.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, Rate, Workspace
from fastgan.kernels.common.loops import inlined, loop, prange
from fastgan.kernels.common.products import block, plan, product
from fastgan.kernels.common.sums import ROWS_A_SUM, add_up, room_for_sums
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.dropout import cpu as dropout_cpu
from fastgan.kernels.linear.cpu import dropped, scale_or_none
from fastgan.kernels.sgd import cpu as sgd_cpu


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
    x_BI = dropped(x_BI, dropout, workspace)
    how = plan(len(x_BI), W_IUP.shape[1], len(W_IUP), out.itemsize, num_pieces)
    _forward(
        x_BI, W_IUP, b_UP, num_pieces, out, out_pieces, how.blocks, how.depth,
        *how.scratch(workspace, out.dtype), parts=len(how.blocks),
    )  # fmt: skip


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
    dz_BUP = _dz(dy_BU, pieces_BU, num_pieces, row_scale_B, workspace)
    product(dz_BUP, W_IUP.T, out, workspace)
    if dropout is not None:
        dropout_cpu.apply_again(out, dropout, out)


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
    dz_BUP = _dz(dy_BU, pieces_BU, num_pieces, row_scale_B, workspace, db_UP)
    product(dropped(x_BI, dropout, workspace).T, dz_BUP, dW_IUP, workspace)


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
    if skip is not None and skip[0]:
        return
    db_UP = workspace.array("db", b_UP.shape, b_UP.dtype)
    dz_BUP = _dz(dy_BU, pieces_BU, num_pieces, row_scale_B, workspace, db_UP)
    x_BI = dropped(x_BI, dropout, workspace)
    sgd_cpu.update_from_product(x_BI, dz_BUP, W_IUP, vW_IUP, learning_rate, momentum, max_col_norm, skip, workspace)
    sgd_cpu.update(b_UP, vb_UP, db_UP, learning_rate, momentum, None, skip)


def _dz(
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    num_pieces: int,
    row_scale_B: Array | None,
    workspace: Workspace,
    db_UP: Array | None = None,
) -> Array:
    """Expand dy to the pieces, each unit's gradient to the piece that won; and sum it over the batch if asked to."""
    B, U = dy_BU.shape
    dz_BUP = workspace.array("dz", (B, U * num_pieces), dy_BU.dtype)
    scale_B = scale_or_none(row_scale_B, dy_BU.dtype)
    if db_UP is None:
        _expand(dy_BU, pieces_BU, num_pieces, scale_B, dz_BUP, size=dz_BUP.size)
    else:
        sums = room_for_sums(dz_BUP, workspace)
        _expand_and_sum(dy_BU, pieces_BU, num_pieces, scale_B, dz_BUP, sums, db_UP, size=dz_BUP.size)
    return dz_BUP


def _max_over(num_pieces: int) -> Any:
    """Compile the maximum for one number of pieces.

    With the number known LLVM takes the pieces of 8 or 16 units at once, without a branch: 12 times as fast for 5.
    """

    def max_over_few(z_UP: Any, b_UP: Any, y_U: Any, pieces_U: Any) -> None:
        for u in range(y_U.shape[0]):
            best, winner = z_UP[u * num_pieces] + b_UP[u * num_pieces], np.int32(0)
            for p in range(1, num_pieces):
                value = z_UP[u * num_pieces + p] + b_UP[u * num_pieces + p]
                # Not (value <= best) is true for a greater one and for NaN on either side; what is NaN stays.
                wins = (not value <= best) & (best == best)
                best, winner = value if wins else best, np.int32(p) if wins else winner
            y_U[u], pieces_U[u] = best, winner

    return inlined(max_over_few)


_max_over_2, _max_over_3, _max_over_4, _max_over_5 = (_max_over(P) for P in (2, 3, 4, 5))


@inlined
def _max_over_many(z_UP: Any, b_UP: Any, num_pieces: Any, y_U: Any, pieces_U: Any) -> None:
    """Take the greatest of any number of pieces, piece by piece."""
    for u in range(y_U.shape[0]):
        y_U[u], pieces_U[u] = z_UP[u * num_pieces] + b_UP[u * num_pieces], 0
    for p in range(1, num_pieces):
        for u in range(y_U.shape[0]):
            value, best = z_UP[u * num_pieces + p] + b_UP[u * num_pieces + p], y_U[u]
            wins = (not value <= best) & (best == best)
            y_U[u] = value if wins else best
            pieces_U[u] = p if wins else pieces_U[u]


@loop
def _forward(
    x: Any, W: Any, b: Any, num_pieces: Any, y: Any, pieces: Any,
    blocks: Any, depth: Any, packed_a: Any, packed_b: Any, sums: Any,
) -> None:  # fmt: skip
    none = y[:0]
    for part in prange(blocks.shape[0]):
        for i in range(blocks.shape[1]):
            m0, m1, n0, n1 = block(
                x, False, W, False, blocks[part], i, depth, packed_a[part], packed_b[part], sums[part], none, none
            )
            b_UP, u0, u1 = b[n0:n1], n0 // num_pieces, n1 // num_pieces
            for m in range(m0, m1):
                z_UP, y_U, pieces_U = sums[part, m - m0], y[m, u0:u1], pieces[m, u0:u1]
                if num_pieces == 5:
                    _max_over_5(z_UP, b_UP, y_U, pieces_U)
                elif num_pieces == 2:
                    _max_over_2(z_UP, b_UP, y_U, pieces_U)
                elif num_pieces == 3:
                    _max_over_3(z_UP, b_UP, y_U, pieces_U)
                elif num_pieces == 4:
                    _max_over_4(z_UP, b_UP, y_U, pieces_U)
                else:
                    _max_over_many(z_UP, b_UP, num_pieces, y_U, pieces_U)


@loop
def _expand(dy: Any, pieces: Any, num_pieces: Any, scale: Any, dz: Any) -> None:
    one = dy.dtype.type(1)
    for row in prange(dy.shape[0]):
        factor = scale[row] if scale.shape[0] > 0 else one
        dy_U, pieces_U, dz_UP = dy[row], pieces[row], dz[row]
        dz_UP[:] = 0
        for u in range(dy_U.shape[0]):
            dz_UP[u * num_pieces + pieces_U[u]] = dy_U[u] * factor


@loop
def _expand_and_sum(dy: Any, pieces: Any, num_pieces: Any, scale: Any, dz: Any, sums: Any, db: Any) -> None:
    one = dy.dtype.type(1)
    for part in prange(sums.shape[0]):
        sums_UP = sums[part]
        sums_UP[:] = 0
        for row in range(part * ROWS_A_SUM, min((part + 1) * ROWS_A_SUM, dy.shape[0])):
            factor = scale[row] if scale.shape[0] > 0 else one
            dy_U, pieces_U, dz_UP = dy[row], pieces[row], dz[row]
            dz_UP[:] = 0
            for u in range(dy_U.shape[0]):
                column = u * num_pieces + pieces_U[u]
                value = dy_U[u] * factor
                dz_UP[column] = value
                sums_UP[column] += value
    add_up(sums, db)
