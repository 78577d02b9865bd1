"""Launches of ``linear_maxout.cu``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import arguments
from fastgan.kernels.common.arrays import Array, Rate, Workspace
from fastgan.kernels.common.gemm_tile import Operand, arithmetic_of, choose, launch_product
from fastgan.kernels.common.launcher import launch
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.dropout.cupy_raw import kept_bits
from fastgan.kernels.sgd.cupy_raw import clip_columns

_SOURCE: Final = "linear_maxout/linear_maxout.cu"


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
    arguments.require_float32(x=x_BI)
    (B, I), columns = x_BI.shape, W_IUP.shape[1]
    x, W = Operand(k_fast=True, plain=dropout is None), Operand(k_fast=False, plain=True)
    tiling = choose(B, columns, I, x, W, arithmetic_of(precision), pieces=num_pieces)
    kernel = tiling.kernel(
        _SOURCE, f"linear_maxout_forward<{_bool(dropout)}>", x, W, PIECES=num_pieces, **tiling.aligned(x_BI, W_IUP)
    )
    kept = kept_bits(dropout, x_BI.shape, workspace, again=False)
    launch_product(
        tiling, kernel, B, columns, workspace,
        x=x_BI, W=W_IUP, b=b_UP, y=out, pieces=out_pieces,
        **_sizes(B, I, columns // num_pieces), **arguments.kept(kept, dropout),
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
    arguments.require_float32(dy=dy_BU)
    (B, U), I = dy_BU.shape, W_IUP.shape[0]
    dz, W = Operand(k_fast=True, plain=False), Operand(k_fast=True, plain=True)
    tiling = choose(B, I, U * num_pieces, dz, W, arithmetic_of(precision))
    kernel = tiling.kernel(
        _SOURCE, f"linear_maxout_backward_input<{_bool(dropout)}>", dz, W, PIECES=num_pieces,
        **tiling.aligned(W_IUP, out),
    )  # fmt: skip
    kept = kept_bits(dropout, out.shape, workspace, again=True)
    launch_product(
        tiling, kernel, B, I, workspace,
        dy=dy_BU, pieces=pieces_BU, row_scale=row_scale_B, W=W_IUP, dx=out,
        **_sizes(B, I, U), **arguments.kept(kept, dropout),
    )  # fmt: skip


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
    _weights(
        "linear_maxout_backward_weights", x_BI, dy_BU, pieces_BU, num_pieces, dropout, row_scale_B, precision,
        workspace, {"dW": dW_IUP, "db": db_UP}, {},
    )  # fmt: skip


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
    _weights(
        "linear_maxout_backward_update", x_BI, dy_BU, pieces_BU, num_pieces, dropout, row_scale_B, precision,
        workspace, {"W": W_IUP, "b": b_UP, "vW": vW_IUP, "vb": vb_UP}, arguments.rates(learning_rate, momentum, skip),
    )  # fmt: skip
    if max_col_norm is not None:
        clip_columns(W_IUP, max_col_norm, skip)


def _weights(
    kernel: str,
    x_BI: Array,
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    num_pieces: int,
    dropout: Dropout | None,
    row_scale_B: Array | None,
    precision: str,
    workspace: Workspace,
    outputs: dict[str, Array],
    rates: dict[str, Any],
) -> None:
    arguments.require_float32(x=x_BI)
    (B, I), U = x_BI.shape, dy_BU.shape[1]
    x, dz = Operand(k_fast=False, plain=dropout is None), Operand(k_fast=False, plain=False)
    tiling = choose(I, U * num_pieces, B, x, dz, arithmetic_of(precision), split=False)
    kept = kept_bits(dropout, x_BI.shape, workspace, again=True)
    launch(
        tiling.kernel(
            _SOURCE, f"{kernel}<{_bool(dropout)}>", x, dz, PIECES=num_pieces, **tiling.aligned(x_BI, *outputs.values())
        ),
        tiling.grid(I, U * num_pieces),
        x=x_BI, dy=dy_BU, pieces=pieces_BU, row_scale=row_scale_B, **outputs, **_sizes(B, I, U), **rates,
        **arguments.kept(kept, dropout),
    )  # fmt: skip


def _sizes(B: int, I: int, U: int) -> dict[str, np.int32]:
    return {"B": np.int32(B), "I": np.int32(I), "U": np.int32(U)}


def _bool(value: object) -> str:
    return "true" if value else "false"
