"""The update in compiled passes over the weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgan.kernels.common.arrays import Array, Rate, Workspace, read_rate
from fastgan.kernels.common.loops import inlined, loop, prange
from fastgan.kernels.common.products import block, plan

# Elements that a thread takes at a time, and columns of a block whose rows stay in a core's own cache for both passes
# of a column norm.
_ELEMENTS = 1 << 13
_COLUMNS = 64
_NO_FLAG = np.empty(0, np.int64)


def update(
    W: Array,
    v: Array,
    dW: Array,
    learning_rate: Rate,
    momentum: Rate,
    max_col_norm: float | None,
    skip: Array | None,
) -> None:
    """Update W and v in place."""
    if skip is not None and skip[0]:
        return
    number = W.dtype.type
    rate, m = number(read_rate(learning_rate)), number(read_rate(momentum))
    flag = flag_or_none(skip)
    _descend(W.reshape(-1), v.reshape(-1), dW.reshape(-1), rate, m, max_col_norm is None, flag, size=W.size)
    if max_col_norm is not None:
        add_and_clip(W, v, max_col_norm)


def flag_or_none(flag: Array | None) -> Array:
    """Give the flag, or an empty array where there is none: loops are compiled for arrays."""
    return _NO_FLAG if flag is None else flag


def update_from_product(
    x_BI: Array,
    dz_BO: Array,
    W_IO: Array,
    vW_IO: Array,
    learning_rate: Rate,
    momentum: Rate,
    max_col_norm: float | None,
    flag: Array | None,
    workspace: Workspace,
) -> None:
    """Update W and its velocity with dW = xᵀ dz: each block of dW is used while the cache holds it, and never stored.

    The flag is set where v holds a NaN or an infinity.
    """
    number = W_IO.dtype.type
    how = plan(x_BI.shape[1], dz_BO.shape[1], len(x_BI), W_IO.itemsize, along_rows=True)
    _descend_by_product(
        x_BI, dz_BO, W_IO, vW_IO, number(read_rate(learning_rate)), number(read_rate(momentum)), max_col_norm is None,
        flag_or_none(flag), how.blocks, how.depth, *how.scratch(workspace, W_IO.dtype),
        parts=len(how.blocks),
    )  # fmt: skip
    if max_col_norm is not None:
        add_and_clip(W_IO, vW_IO, max_col_norm)


def add(W: Array, v: Array, flag: Array | None = None) -> None:
    """Add the velocity to the weights; the flag is set where v holds a NaN or an infinity."""
    _add(W.reshape(-1), v.reshape(-1), flag_or_none(flag), size=W.size)


def add_and_clip(W_IO: Array, vW_IO: Array, max_col_norm: float, flag: Array | None = None) -> None:
    """Add the velocity to the weights and scale the columns that are too long."""
    _add_and_clip(W_IO, vW_IO, W_IO.dtype.type(max_col_norm), flag_or_none(flag), size=W_IO.size)


@inlined
def is_finite(v: Any) -> Any:
    """Tell whether all of a stretch that the cache still holds is finite."""
    bad = False
    for n in range(v.shape[0]):
        # Only of a finite number the difference with itself is 0; LLVM asks of a vector at a time.
        bad |= (v[n] - v[n]) != 0
    return not bad


@loop
def _add(W: Any, v: Any, flag: Any) -> None:
    for part in prange(-(-W.shape[0] // _ELEMENTS)):
        first = part * _ELEMENTS
        W_n, v_n = W[first : first + _ELEMENTS], v[first : first + _ELEMENTS]
        for n in range(W_n.shape[0]):
            W_n[n] += v_n[n]
        if flag.shape[0] > 0 and not is_finite(v_n):
            flag[0] = 1


@loop
def _descend(W: Any, v: Any, dW: Any, rate: Any, momentum: Any, does_add: Any, flag: Any) -> None:
    """Make the new velocity, and add it unless the column norm's pass does."""
    for part in prange(-(-W.shape[0] // _ELEMENTS)):
        first = part * _ELEMENTS
        last = min(first + _ELEMENTS, W.shape[0])
        W_n, v_n, dW_n = W[first:last], v[first:last], dW[first:last]
        for n in range(last - first):
            v_n[n] = momentum * v_n[n] - rate * dW_n[n]
        if does_add:
            for n in range(last - first):
                W_n[n] += v_n[n]
        if flag.shape[0] > 0 and not is_finite(v_n):
            flag[0] = 1


@loop
def _descend_by_product(
    x: Any, dz: Any, W: Any, v: Any, rate: Any, momentum: Any, does_add: Any, flag: Any,
    blocks: Any, depth: Any, packed_a: Any, packed_b: Any, sums: Any,
) -> None:  # fmt: skip
    for part in prange(blocks.shape[0]):
        for i in range(blocks.shape[1]):
            m0, m1, n0, n1 = block(
                x, True, dz, False, blocks[part], i, depth, packed_a[part], packed_b[part], sums[part], W, v
            )
            for m in range(m0, m1):
                dW_O, v_O, W_O = sums[part, m - m0], v[m, n0:n1], W[m, n0:n1]
                bad = False
                for o in range(n1 - n0):
                    velocity = momentum * v_O[o] - rate * dW_O[o]
                    v_O[o] = velocity
                    # As ``is_finite`` asks, while the number is at hand.
                    bad |= (velocity - velocity) != 0
                if does_add:
                    for o in range(n1 - n0):
                        W_O[o] += v_O[o]
                if flag.shape[0] > 0 and bad:
                    flag[0] = 1


@loop
def _add_and_clip(W: Any, v: Any, max_col_norm: Any, flag: Any) -> None:
    """Add the velocity and take the columns' norms in one pass, scale in a second one over what the cache still has."""
    num_rows, num_columns = W.shape
    for part in prange(-(-num_columns // _COLUMNS)):
        first, last = part * _COLUMNS, min((part + 1) * _COLUMNS, num_columns)
        squares = np.zeros(last - first, np.float64)
        for i in range(num_rows):
            W_O, v_O = W[i, first:last], v[i, first:last]
            for o in range(last - first):
                W_O[o] += v_O[o]
                squares[o] += np.float64(W_O[o]) * np.float64(W_O[o])
            if flag.shape[0] > 0 and not is_finite(v_O):
                flag[0] = 1
        factors = np.empty(last - first, W.dtype)
        for o in range(last - first):
            norm = W.dtype.type(np.sqrt(squares[o]))
            # Asked this way round a NaN stays; the 1e-7 is Pylearn2's.
            factors[o] = (max_col_norm if norm > max_col_norm else norm) / (W.dtype.type(1e-7) + norm)
        for i in range(num_rows):
            W_O = W[i, first:last]
            for o in range(last - first):
                W_O[o] *= factors[o]
