"""A layer of maxout units: BLAS and compiled passes, and no product with the pieces that lost.

Of the P pieces of a unit one has a gradient and the others an exact 0, so the expanded dz is zero but for one element
in P, and so is what BLAS would do with it. From four pieces on, and on one thread, sums over the winners alone are
faster, though a core computes at half the rate in them: dx is, for each row, the sum of U columns of W; dW is, for each
piece, the sum of the rows that it won. For both the summands are first brought into contiguous pieces of ``_WIDTH``
numbers. Velocity and weights are updated while the sums are in the cache. MNIST's networks on one core, whole step:
1.04 times the bare products instead of 1.09.

What it leaves out is 0 · NaN and 0 · infinity: a row whose input is NaN makes its winners' gradients NaN and leaves the
losers' alone, and so does a weight for dx. No fault hides behind that, as such a row's output is NaN.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, Rate, Workspace, read_rate
from fastgan.kernels.common.blas import gemm
from fastgan.kernels.common.loops import Loop, inlined, inlined_with, loop, prange
from fastgan.kernels.common.threads import num_threads
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.dropout import cpu as dropout_cpu
from fastgan.kernels.linear.cpu import dropped, scale_or_none
from fastgan.kernels.sgd import cpu as sgd_cpu

# Numbers of pieces that have a loop of their own: so many that LLVM loads every so-many-th element in vectors.
_FEW_PIECES = 8
# The least number of pieces for which sums over the winners beat the whole product.
_SPARSE_PIECES = 4
# Numbers that are summed at a time: five of the widest vectors. It divides 240, and 784 almost.
_WIDTH = 80
# Units that one thread takes at a time where sums over the batch are taken.
_UNITS = 64
# Columns of W that are summed before they are written.
_COLUMNS = 80
# What a sum is for: a gradient, the velocity alone, or the velocity and the weights.
_GRADIENT, _VELOCITY, _WEIGHTS = 0, 1, 2


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
    z = workspace.array("z", (x_BI.shape[0], W_IUP.shape[1]), x_BI.dtype)
    gemm(dropped(x_BI, dropout, workspace), W_IUP, z)
    if num_pieces <= _FEW_PIECES:
        _max_over(num_pieces)(z, b_UP, out, out_pieces, size=z.size)
    else:
        _max_over_many(z, b_UP, num_pieces, out, out_pieces, size=z.size)


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
    if not _sums_over_winners(num_pieces):
        dz, _ = _dz_and_db(dy_BU, pieces_BU, num_pieces, row_scale_B, workspace)
        gemm(dz, W_IUP.T, out)
    else:
        _sum_columns(dy_BU, pieces_BU, W_IUP, num_pieces, row_scale_B, out, workspace)
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
    x_BI = dropped(x_BI, dropout, workspace)
    if not _sums_over_winners(num_pieces):
        dz, _ = _dz_and_db(dy_BU, pieces_BU, num_pieces, row_scale_B, workspace, db_UP)
        gemm(x_BI.T, dz, dW_IUP)
    else:
        _sum_rows(x_BI, dy_BU, pieces_BU, num_pieces, row_scale_B, _GRADIENT, 0, 0, dW_IUP, dW_IUP, db_UP, workspace)


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
    x_BI = dropped(x_BI, dropout, workspace)
    if not _sums_over_winners(num_pieces):
        dz, db_UP = _dz_and_db(dy_BU, pieces_BU, num_pieces, row_scale_B, workspace)
        sgd_cpu.update_from_product(x_BI, dz, W_IUP, vW_IUP, learning_rate, momentum, max_col_norm, skip)
    else:
        db_UP = workspace.array("db", b_UP.shape, b_UP.dtype)
        use = _WEIGHTS if max_col_norm is None else _VELOCITY
        rate, m = read_rate(learning_rate), read_rate(momentum)
        _sum_rows(x_BI, dy_BU, pieces_BU, num_pieces, row_scale_B, use, rate, m, W_IUP, vW_IUP, db_UP, workspace, skip)
        if max_col_norm is not None:
            sgd_cpu.add_and_clip(W_IUP, vW_IUP, max_col_norm)
    sgd_cpu.update(b_UP, vb_UP, db_UP, learning_rate, momentum, None, skip)


def _sums_over_winners(num_pieces: int) -> bool:
    """Say whether gradients are sums over the winners or products of BLAS with the expanded dz.

    On one thread the sums win from four pieces on. On two BLAS does: the sums would have to share the cores with its
    threads, which spin between products (25.6 ms a step against 26.6, where one thread takes 42.4 against 41.2).
    """
    return num_pieces >= _SPARSE_PIECES and num_threads() == 1


def _dz_and_db(
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    num_pieces: int,
    row_scale_B: Array | None,
    workspace: Workspace,
    db_UP: Array | None = None,
) -> tuple[Array, Array]:
    """Expand dy to the pieces, each unit's gradient to the piece that won, and sum over the batch, in one pass."""
    num_columns = dy_BU.shape[1] * num_pieces
    dz = workspace.array("dz", (dy_BU.shape[0], num_columns), dy_BU.dtype)
    if db_UP is None:
        db_UP = workspace.array("db", (num_columns,), dy_BU.dtype)
    _expand(dy_BU, pieces_BU, num_pieces, scale_or_none(row_scale_B, dy_BU.dtype), dz, db_UP, size=dz.size)
    return dz, db_UP


def _sum_columns(
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    W_IUP: Array,
    num_pieces: int,
    row_scale_B: Array | None,
    dx_BI: Array,
    workspace: Workspace,
) -> None:
    """Write dx: for each row, the winners' columns of W weighted with dz."""
    (B, U), dtype = dy_BU.shape, dy_BU.dtype
    places_BU = workspace.array("places", (B, U), np.dtype(np.uint32))
    dz_BU = workspace.array("winners", (B, U), dtype)
    _places_of_winners(
        dy_BU, pieces_BU, num_pieces, scale_or_none(row_scale_B, dtype), places_BU, dz_BU, size=dy_BU.size
    )
    # A thread each has a part of W, turned round.
    threads = _threads_for(len(W_IUP))
    parts = workspace.array("parts", (threads, W_IUP.shape[1] * _WIDTH), dtype)
    sums = workspace.array("sums", (threads, _WIDTH), dtype)
    _sum_columns_by_parts(W_IUP, places_BU, dz_BU, parts, sums, dx_BI, size=W_IUP.size)


def _sum_rows(
    x_BI: Array,
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    num_pieces: int,
    row_scale_B: Array | None,
    use: int,
    rate: float,
    momentum: float,
    W_IUP: Array,
    vW_IUP: Array,
    db_UP: Array,
    workspace: Workspace,
    flag: Array | None = None,
) -> None:
    """Use dW as ``use`` says: for each piece, the rows that it won weighted with dz; and write db."""
    (B, U), dtype = dy_BU.shape, dy_BU.dtype
    rows_UB = workspace.array("rows", (U, B), np.dtype(np.uint32))
    dz_UB = workspace.array("sorted", (U, B), dtype)
    starts = workspace.array("starts", (U, num_pieces + 1), np.dtype(np.int64))
    _sort_rows(
        dy_BU, pieces_BU, num_pieces, scale_or_none(row_scale_B, dtype), rows_UB, dz_UB, starts, db_UP,
        size=4 * dy_BU.size,
    )  # fmt: skip
    num_columns = max(1, _COLUMNS // num_pieces) * num_pieces
    threads = _threads_for(len(W_IUP))
    parts = workspace.array("rows of x", (threads, B * _WIDTH), dtype)
    sums = workspace.array("sums of rows", (threads, num_columns, _WIDTH), dtype)
    turned = workspace.array("sums turned round", (threads, _WIDTH, num_columns), dtype)
    _sum_rows_by_parts(
        x_BI, rows_UB, dz_UB, starts, parts, sums, turned, use, dtype.type(rate), dtype.type(momentum), W_IUP, vW_IUP,
        sgd_cpu.flag_or_none(flag), size=W_IUP.size,
    )  # fmt: skip


def _threads_for(num_inputs: int) -> int:
    return min(num_threads(), max(1, -(-num_inputs // _WIDTH)))


@cache
def _max_over(num_pieces: int) -> Loop:
    """Compile the maximum for one number of pieces.

    With the number known LLVM takes the pieces of 16 units at once, without a branch: 12 times as fast for 5 pieces.
    """

    def max_over_few(z: Any, b: Any, out: Any, out_pieces: Any) -> None:
        for row in prange(out.shape[0]):
            z_UP, out_U, pieces_U = z[row], out[row], out_pieces[row]
            for u in range(out.shape[1]):
                best, winner = z_UP[u * num_pieces] + b[u * num_pieces], np.int32(0)
                for p in range(1, num_pieces):
                    value = z_UP[u * num_pieces + p] + b[u * num_pieces + p]
                    # Not (value <= best) is true for a greater one and for NaN on either side; what is NaN stays.
                    wins = (not value <= best) & (best == best)
                    best, winner = value if wins else best, np.int32(p) if wins else winner
                out_U[u], pieces_U[u] = best, winner

    return Loop(max_over_few)


@loop
def _max_over_many(z: Any, b: Any, num_pieces: Any, out: Any, out_pieces: Any) -> None:
    """The same for any number of pieces: piece by piece over a row, so that vectors hold units here too."""
    for row in prange(out.shape[0]):
        z_UP, out_U, pieces_U = z[row], out[row], out_pieces[row]
        value_U = np.empty_like(out_U)
        for p in range(num_pieces):
            for u in range(out.shape[1]):
                value_U[u] = z_UP[u * num_pieces + p] + b[u * num_pieces + p]
            for u in range(out.shape[1]):
                value, best = value_U[u], out_U[u]
                wins = (not value <= best) & (best == best) | (p == 0)
                out_U[u] = value if wins else best
                pieces_U[u] = p if wins else pieces_U[u]


@loop
def _expand(dy: Any, pieces: Any, num_pieces: Any, scale: Any, dz: Any, db: Any) -> None:
    zero, one = dy.dtype.type(0), dy.dtype.type(1)
    num_rows, num_units = dy.shape
    # Threads share units, and each sums its own row by row: the same sums for any number of threads.
    for block in prange(-(-num_units // _UNITS)):
        first, last = block * _UNITS, min((block + 1) * _UNITS, num_units)
        sums = np.zeros((last - first) * num_pieces, np.float64)
        for row in range(num_rows):
            factor = scale[row] if scale.shape[0] > 0 else one
            dz_UP = dz[row]
            dz_UP[first * num_pieces : last * num_pieces] = zero
            for u in range(first, last):
                column = u * num_pieces + pieces[row, u]
                value = dy[row, u] * factor
                dz_UP[column] = value
                sums[column - first * num_pieces] += np.float64(value)
        for c in range(sums.shape[0]):
            db[first * num_pieces + c] = sums[c]


@loop
def _places_of_winners(dy: Any, pieces: Any, num_pieces: Any, scale: Any, places: Any, dz: Any) -> None:
    one = dy.dtype.type(1)
    for row in prange(dy.shape[0]):
        factor = scale[row] if scale.shape[0] > 0 else one
        for u in range(dy.shape[1]):
            places[row, u] = np.uint32((u * num_pieces + pieces[row, u]) * _WIDTH)
            dz[row, u] = dy[row, u] * factor


@loop
def _sort_rows(dy: Any, pieces: Any, num_pieces: Any, scale: Any, rows: Any, dz: Any, starts: Any, db: Any) -> None:
    """List, unit by unit, the rows that piece 0 won, then those of piece 1 and so on, each in the batch's order."""
    one = dy.dtype.type(1)
    num_rows, num_units = dy.shape
    for block in prange(-(-num_units // _UNITS)):
        first, last = block * _UNITS, min((block + 1) * _UNITS, num_units)
        starts[first:last] = 0
        for row in range(num_rows):
            for u in range(first, last):
                starts[u, pieces[row, u] + 1] += 1
        for u in range(first, last):
            for p in range(num_pieces):
                starts[u, p + 1] += starts[u, p]
        # Each piece's start runs along its rows to the start of the next ...
        totals = np.zeros((last - first, num_pieces), np.float64)
        for row in range(num_rows):
            factor = scale[row] if scale.shape[0] > 0 else one
            for u in range(first, last):
                p = pieces[row, u]
                k = starts[u, p]
                starts[u, p] = k + 1
                value = dy[row, u] * factor
                rows[u, k] = np.uint32(row * _WIDTH)
                dz[u, k] = value
                totals[u - first, p] += np.float64(value)
        # ... and is put back.
        for u in range(first, last):
            for p in range(num_pieces, 0, -1):
                starts[u, p] = starts[u, p - 1]
            starts[u, 0] = 0
            for p in range(num_pieces):
                db[u * num_pieces + p] = totals[u - first, p]


# A product and its addition may be rounded as one, as BLAS does too.
@inlined_with("contract")
def _weighted_sum(total: Any, summands: Any, places: Any, weights: Any, first: Any, last: Any) -> None:
    """Sum ``_WIDTH`` numbers from each of some places, in their order; eight places a pass, as one waits for memory."""
    for j in range(_WIDTH):
        total[j] = 0
    k = first
    while k + 8 <= last:
        # Unsigned, as Numba asks of a signed index each time whether it counts from the end.
        p0, p1, p2, p3 = places[k], places[k + 1], places[k + 2], places[k + 3]
        p4, p5, p6, p7 = places[k + 4], places[k + 5], places[k + 6], places[k + 7]
        w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        w4, w5, w6, w7 = weights[k + 4], weights[k + 5], weights[k + 6], weights[k + 7]
        for j in range(_WIDTH):
            i = np.uint64(j)
            s = total[i] + w0 * summands[np.uint64(p0) + i]
            s = s + w1 * summands[np.uint64(p1) + i]
            s = s + w2 * summands[np.uint64(p2) + i]
            s = s + w3 * summands[np.uint64(p3) + i]
            s = s + w4 * summands[np.uint64(p4) + i]
            s = s + w5 * summands[np.uint64(p5) + i]
            s = s + w6 * summands[np.uint64(p6) + i]
            total[i] = s + w7 * summands[np.uint64(p7) + i]
        k += 8
    while k < last:
        p0, w0 = places[k], weights[k]
        for j in range(_WIDTH):
            i = np.uint64(j)
            total[i] += w0 * summands[np.uint64(p0) + i]
        k += 1


@inlined
def _turn_round(source: Any, target: Any) -> None:
    """Write the transpose; eight rows at a time, so that what is read and what is written are both contiguous."""
    num_rows, num_columns = source.shape
    r = 0
    while r + 8 <= num_rows:
        r0, r1, r2, r3 = source[r], source[r + 1], source[r + 2], source[r + 3]
        r4, r5, r6, r7 = source[r + 4], source[r + 5], source[r + 6], source[r + 7]
        for c in range(num_columns):
            to = target[c, r : r + 8]
            to[0], to[1], to[2], to[3] = r0[c], r1[c], r2[c], r3[c]
            to[4], to[5], to[6], to[7] = r4[c], r5[c], r6[c], r7[c]
        r += 8
    while r < num_rows:
        for c in range(num_columns):
            target[c, r] = source[r, c]
        r += 1


@loop
def _sum_columns_by_parts(W: Any, places: Any, dz: Any, parts: Any, sums: Any, dx: Any) -> None:
    num_inputs, num_columns = W.shape
    num_parts = -(-num_inputs // _WIDTH)
    for thread in prange(parts.shape[0]):
        part, total = parts[thread], sums[thread]
        for number in range(thread, num_parts, parts.shape[0]):
            first, last = number * _WIDTH, min((number + 1) * _WIDTH, num_inputs)
            _turn_round(W[first:last], part.reshape(num_columns, _WIDTH))
            for row in range(dx.shape[0]):
                _weighted_sum(total, part, places[row], dz[row], 0, places.shape[1])
                dx[row, first:last] = total[: last - first]


@loop
def _sum_rows_by_parts(
    x: Any, rows: Any, dz: Any, starts: Any, parts: Any, sums: Any, turned: Any, use: Any, rate: Any, momentum: Any,
    W: Any, v: Any, flag: Any,
) -> None:  # fmt: skip
    num_rows, num_inputs = x.shape
    num_units, num_pieces = starts.shape[0], starts.shape[1] - 1
    num_parts = -(-num_inputs // _WIDTH)
    units_a_block = sums.shape[1] // num_pieces
    for thread in prange(parts.shape[0]):
        part, sums_c, turned_i = parts[thread], sums[thread], turned[thread]
        for number in range(thread, num_parts, parts.shape[0]):
            first, last = number * _WIDTH, min((number + 1) * _WIDTH, num_inputs)
            for row in range(num_rows):
                part[row * _WIDTH : row * _WIDTH + last - first] = x[row, first:last]
            for unit in range(0, num_units, units_a_block):
                after = min(unit + units_a_block, num_units)
                for u in range(unit, after):
                    for p in range(num_pieces):
                        _weighted_sum(
                            sums_c[(u - unit) * num_pieces + p], part, rows[u], dz[u], starts[u, p], starts[u, p + 1]
                        )
                n = (after - unit) * num_pieces
                _turn_round(sums_c[:n], turned_i)
                for i in range(last - first):
                    g_c = turned_i[i]
                    v_c = v[first + i, unit * num_pieces : after * num_pieces]
                    W_c = W[first + i, unit * num_pieces : after * num_pieces]
                    if use == _GRADIENT:
                        for c in range(n):
                            v_c[c] = g_c[c]
                    elif use == _VELOCITY:
                        for c in range(n):
                            v_c[c] = momentum * v_c[c] - rate * g_c[c]
                    else:
                        for c in range(n):
                            velocity = momentum * v_c[c] - rate * g_c[c]
                            v_c[c] = velocity
                            W_c[c] += velocity
                    if flag.shape[0] > 0 and not sgd_cpu.is_finite(v_c):
                        flag[0] = 1
