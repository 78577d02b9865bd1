"""A layer of linear units: bias and activation go over each block of the product while the cache holds it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastgan.kernels.common.arrays import Array, Rate, Workspace
from fastgan.kernels.common.loops import inlined, loop, prange
from fastgan.kernels.common.products import block, plan, product
from fastgan.kernels.common.sums import ROWS_A_SUM, add_up, room_for_sums
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.dropout import cpu as dropout_cpu
from fastgan.kernels.sgd import cpu as sgd_cpu

_CODES = {"identity": 0, "relu": 1, "sigmoid": 2}
_WITHOUT_SCALE = {dtype: np.empty(0, dtype) for dtype in (np.dtype(np.float32), np.dtype(np.float64))}


def forward(
    x_BI: Array,
    W_IO: Array,
    b_O: Array,
    activation: str,
    dropout: Dropout | None,
    out: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write y = f(dropout(x) W + b) into ``out``."""
    x_BI = dropped(x_BI, dropout, workspace)
    how = plan(len(x_BI), W_IO.shape[1], len(W_IO), out.itemsize)
    _forward(
        x_BI, W_IO, b_O, _CODES[activation], out, how.blocks, how.depth,
        *how.scratch(workspace, out.dtype), parts=len(how.blocks),
    )  # fmt: skip


def backward_input(
    dy_BO: Array,
    y_BO: Array,
    W_IO: Array,
    activation: str,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    out: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write dx into ``out``."""
    dz_BO = dy_BO
    if activation != "identity" or row_scale_B is not None:
        dz_BO = _dz(dy_BO, y_BO, activation, row_scale_B, workspace)
    product(dz_BO, W_IO.T, out, workspace)
    if dropout is not None:
        dropout_cpu.apply_again(out, dropout, out)


def backward_weights(
    x_BI: Array,
    dy_BO: Array,
    y_BO: Array,
    activation: str,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    dW_IO: Array,
    db_O: Array,
    precision: str,
    workspace: Workspace,
) -> None:
    """Write dW and db."""
    dz_BO = _dz(dy_BO, y_BO, activation, row_scale_B, workspace, db_O)
    product(dropped(x_BI, dropout, workspace).T, dz_BO, dW_IO, workspace)


def backward_update(
    x_BI: Array,
    dy_BO: Array,
    y_BO: Array,
    activation: str,
    W_IO: Array,
    b_O: Array,
    vW_IO: Array,
    vb_O: Array,
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
    db_O = workspace.array("db", b_O.shape, b_O.dtype)
    dz_BO = _dz(dy_BO, y_BO, activation, row_scale_B, workspace, db_O)
    x_BI = dropped(x_BI, dropout, workspace)
    sgd_cpu.update_from_product(x_BI, dz_BO, W_IO, vW_IO, learning_rate, momentum, max_col_norm, skip, workspace)
    sgd_cpu.update(b_O, vb_O, db_O, learning_rate, momentum, None, skip)


def dropped(x_BI: Array, dropout: Dropout | None, workspace: Workspace) -> Array:
    """Give the input after its dropout."""
    if dropout is None:
        return x_BI
    dropped_BI = workspace.array("dropped", x_BI.shape, x_BI.dtype)
    dropout_cpu.apply(x_BI, dropout, dropped_BI)
    return dropped_BI


def scale_or_none(row_scale_B: Array | None, dtype: np.dtype[Any]) -> Array:
    """Give the factors of the rows, or an empty array where there are none: loops are compiled for arrays."""
    return _WITHOUT_SCALE[dtype] if row_scale_B is None else row_scale_B


def _dz(
    dy_BO: Array,
    y_BO: Array,
    activation: str,
    row_scale_B: Array | None,
    workspace: Workspace,
    db_O: Array | None = None,
) -> Array:
    """Carry dy through the activation, row_scale · dy · f', and sum it over the batch if asked to, in one pass."""
    dz_BO = workspace.array("dz", dy_BO.shape, dy_BO.dtype)
    scale_B = scale_or_none(row_scale_B, dy_BO.dtype)
    if db_O is None:
        _through_activation(dy_BO, y_BO, scale_B, _CODES[activation], dz_BO, size=dz_BO.size)
    else:
        sums = room_for_sums(dz_BO, workspace)
        _through_activation_and_sum(dy_BO, y_BO, scale_B, _CODES[activation], dz_BO, sums, db_O, size=dz_BO.size)
    return dz_BO


@inlined
def _exp_float32(x: Any) -> Any:
    """Compute exp(x) to about one rounding; above 88 it is exp(88), below -87 exp(-87), of NaN it is NaN.

    Numba calls the C library's for one element at a time; this one LLVM vectorises (20 times as fast). Cody and
    Waite's reduction x = n ln 2 + r, and Cephes' polynomial.
    """
    x = np.float32(x)
    x = np.float32(88) if x > np.float32(88) else x
    x = np.float32(-87) if x < np.float32(-87) else x
    # Adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits: no conversion, which NaN has none.
    shifted = x * np.float32(1.44269504088896341) + np.float32(12582912)
    n = shifted - np.float32(12582912)
    r = (x - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4) * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * (r * r) + r + np.float32(1)
    bits = np.int32(np.float32(shifted).view(np.int32) << np.int32(23)) + np.int32(0x3F800000)
    two_to_n = np.int32(bits).view(np.float32)
    return p * two_to_n


@loop
def _forward(
    x: Any, W: Any, b: Any, code: Any, y: Any,
    blocks: Any, depth: Any, packed_a: Any, packed_b: Any, sums: Any,
) -> None:  # fmt: skip
    none = y[:0]
    for part in prange(blocks.shape[0]):
        for i in range(blocks.shape[1]):
            m0, m1, n0, n1 = block(
                x, False, W, False, blocks[part], i, depth, packed_a[part], packed_b[part], sums[part], none, none
            )
            b_O = b[n0:n1]
            for m in range(m0, m1):
                _activate(sums[part, m - m0], b_O, code, y[m, n0:n1])


@inlined
def _activate(z: Any, b: Any, code: Any, y: Any) -> None:
    one = y.dtype.type(1)
    if code == 0:
        for o in range(y.shape[0]):
            y[o] = z[o] + b[o]
    elif code == 1:
        for o in range(y.shape[0]):
            value = z[o] + b[o]
            # Asked this way round a NaN stays.
            y[o] = y.dtype.type(0) if value <= 0 else value
    elif y.itemsize == 4:
        for o in range(y.shape[0]):
            y[o] = one / (one + _exp_float32(-(z[o] + b[o])))
    else:
        for o in range(y.shape[0]):
            y[o] = one / (one + math.exp(-(z[o] + b[o])))


@inlined
def _derived(dy: Any, y: Any, factor: Any, code: Any, dz: Any) -> None:
    zero, one = dy.dtype.type(0), dy.dtype.type(1)
    if code == 2:
        for o in range(dz.shape[0]):
            dz[o] = (one - y[o]) * y[o] * dy[o] * factor
    elif code == 1:
        for o in range(dz.shape[0]):
            dz[o] = dy[o] * (one if y[o] > zero else zero) * factor
    else:
        for o in range(dz.shape[0]):
            dz[o] = dy[o] * factor


@loop
def _through_activation(dy: Any, y: Any, scale: Any, code: Any, dz: Any) -> None:
    one = dy.dtype.type(1)
    for row in prange(dy.shape[0]):
        _derived(dy[row], y[row], scale[row] if scale.shape[0] > 0 else one, code, dz[row])


@loop
def _through_activation_and_sum(dy: Any, y: Any, scale: Any, code: Any, dz: Any, sums: Any, db: Any) -> None:
    one = dy.dtype.type(1)
    for part in prange(sums.shape[0]):
        sums_O = sums[part]
        sums_O[:] = 0
        for row in range(part * ROWS_A_SUM, min((part + 1) * ROWS_A_SUM, dy.shape[0])):
            dz_O = dz[row]
            _derived(dy[row], y[row], scale[row] if scale.shape[0] > 0 else one, code, dz_O)
            for o in range(dz_O.shape[0]):
                sums_O[o] += dz_O[o]
    add_up(sums, db)
