"""Launches of ``linear.cu``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from fastgan.kernels.common import arguments
from fastgan.kernels.common.arrays import Array, Rate, Workspace
from fastgan.kernels.common.gemm_tile import Operand, arithmetic_of, choose, launch_product
from fastgan.kernels.common.launcher import launch
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.dropout.cupy_raw import kept_bits
from fastgan.kernels.sgd.cupy_raw import clip_columns

_SOURCE: Final = "linear/linear.cu"
_ACTIVATIONS: Final = {"identity": 0, "relu": 1, "sigmoid": 2}


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
    arguments.require_float32(x=x_BI)
    (B, I), O = x_BI.shape, W_IO.shape[1]
    x, W = Operand(k_fast=True, plain=dropout is None), Operand(k_fast=False, plain=True)
    tiling = choose(B, O, I, x, W, arithmetic_of(precision))
    name = f"linear_forward<{_ACTIVATIONS[activation]}, {_bool(dropout)}>"
    kernel = tiling.kernel(_SOURCE, name, x, W, **tiling.aligned(x_BI, W_IO, b_O, out))
    kept = kept_bits(dropout, x_BI.shape, workspace, again=False)
    launch_product(
        tiling, kernel, B, O, workspace,
        x=x_BI, W=W_IO, b=b_O, y=out, **_sizes(B, I, O), **arguments.kept(kept, dropout),
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
    arguments.require_float32(dy=dy_BO)
    (B, O), I = dy_BO.shape, W_IO.shape[0]
    plain = activation == "identity" and row_scale_B is None
    dz, W = Operand(k_fast=True, plain=plain), Operand(k_fast=True, plain=True)
    tiling = choose(B, I, O, dz, W, arithmetic_of(precision))
    name = f"linear_backward_input<{_bool(plain)}, {_ACTIVATIONS[activation]}, {_bool(dropout)}>"
    kept = kept_bits(dropout, out.shape, workspace, again=True)
    launch_product(
        tiling, tiling.kernel(_SOURCE, name, dz, W, **tiling.aligned(dy_BO, y_BO, W_IO, out)), B, I, workspace,
        dy=dy_BO, y=y_BO, row_scale=row_scale_B, W=W_IO, dx=out, **_sizes(B, I, O), **arguments.kept(kept, dropout),
    )  # fmt: skip


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
    _weights(
        "linear_backward_weights", x_BI, dy_BO, y_BO, activation, dropout, row_scale_B, precision, workspace,
        {"dW": dW_IO, "db": db_O}, {},
    )  # fmt: skip


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
    _weights(
        "linear_backward_update", x_BI, dy_BO, y_BO, activation, dropout, row_scale_B, precision, workspace,
        {"W": W_IO, "b": b_O, "vW": vW_IO, "vb": vb_O}, arguments.rates(learning_rate, momentum, skip),
    )  # fmt: skip
    if max_col_norm is not None:
        clip_columns(W_IO, max_col_norm, skip)


def _weights(
    kernel: str,
    x_BI: Array,
    dy_BO: Array,
    y_BO: Array,
    activation: str,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    precision: str,
    workspace: Workspace,
    outputs: dict[str, Array],
    rates: dict[str, Any],
) -> None:
    arguments.require_float32(x=x_BI)
    (B, I), O = x_BI.shape, dy_BO.shape[1]
    plain = activation == "identity" and row_scale_B is None
    x, dz = Operand(k_fast=False, plain=dropout is None), Operand(k_fast=False, plain=plain)
    tiling = choose(I, O, B, x, dz, arithmetic_of(precision), split=False)
    name = f"{kernel}<{_bool(plain)}, {_ACTIVATIONS[activation]}, {_bool(dropout)}>"
    kept = kept_bits(dropout, x_BI.shape, workspace, again=True)
    launch(
        tiling.kernel(_SOURCE, name, x, dz, **tiling.aligned(x_BI, dy_BO, y_BO, *outputs.values())),
        tiling.grid(I, O),
        x=x_BI, dy=dy_BO, y=y_BO, row_scale=row_scale_B, **outputs, **_sizes(B, I, O), **rates,
        **arguments.kept(kept, dropout),
    )  # fmt: skip


def _sizes(B: int, I: int, O: int) -> dict[str, np.int32]:
    return {"B": np.int32(B), "I": np.int32(I), "O": np.int32(O)}


def _bool(value: object) -> str:
    return "true" if value else "false"
