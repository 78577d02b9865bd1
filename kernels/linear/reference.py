"""The definition of a layer of linear units, in NumPy over BLAS."""

from __future__ import annotations

import numpy as np

from fastgan.kernels.common.arrays import Array, Rate, Workspace
from fastgan.kernels.common.blas import gemm
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.dropout import reference as dropout_reference
from fastgan.kernels.sgd import reference as sgd_reference


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
    dropped_BI = x_BI
    if dropout is not None:
        dropped_BI = workspace.array("dropped", x_BI.shape, x_BI.dtype)
        dropout_reference.apply(x_BI, dropout, dropped_BI)
    gemm(dropped_BI, W_IO, out)
    np.add(out, b_O, out=out)
    if activation == "relu":
        np.maximum(out, 0, out=out)
    elif activation == "sigmoid":
        sigmoid(out, out)


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
    gemm(_dz(dy_BO, y_BO, activation, row_scale_B, workspace), W_IO.T, out)
    if dropout is not None:
        dropout_reference.apply_again(out, dropout, out)


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
    dz_BO = _dz(dy_BO, y_BO, activation, row_scale_B, workspace)
    gemm(redropped(x_BI, dropout, workspace).T, dz_BO, dW_IO)
    np.sum(dz_BO, axis=0, out=db_O)


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
    dz_BO = _dz(dy_BO, y_BO, activation, row_scale_B, workspace)
    x_BI = redropped(x_BI, dropout, workspace)
    sgd_reference.update_from_product(
        x_BI, dz_BO, W_IO, b_O, vW_IO, vb_O, learning_rate, momentum, max_col_norm, skip, workspace
    )


def sigmoid(z: Array, out: Array) -> None:
    """Compute 1 / (1 + exp(-z)); exp's overflow to infinity gives the right 0, so it is no fault."""
    np.negative(z, out=out)
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.reciprocal(out, out=out)


def redropped(x_BI: Array, dropout: Dropout | None, workspace: Workspace) -> Array:
    """Give the input as the product of ``forward`` saw it."""
    if dropout is None:
        return x_BI
    dropped_BI = workspace.array("dropped", x_BI.shape, x_BI.dtype)
    dropout_reference.apply_again(x_BI, dropout, dropped_BI)
    return dropped_BI


def _dz(dy_BO: Array, y_BO: Array, activation: str, row_scale_B: Array | None, workspace: Workspace) -> Array:
    """Carry dy through the activation: row_scale · dy · f'."""
    if activation == "identity" and row_scale_B is None:
        return dy_BO
    dz_BO = workspace.array("dz", dy_BO.shape, dy_BO.dtype)
    if activation == "relu":
        np.multiply(dy_BO, y_BO > 0, out=dz_BO)
    elif activation == "sigmoid":
        np.subtract(1, y_BO, out=dz_BO)
        np.multiply(dz_BO, y_BO, out=dz_BO)
        np.multiply(dz_BO, dy_BO, out=dz_BO)
    else:
        np.copyto(dz_BO, dy_BO)
    if row_scale_B is not None:
        np.multiply(dz_BO, row_scale_B[:, None], out=dz_BO)
    return dz_BO
