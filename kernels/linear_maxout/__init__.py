"""A layer of maxout units, with its input's dropout: forward, and backward to everything.

    z = x' W + b,   x' = dropout(x);   y[b, u] = max_p z[b, u·P + p],   piece[b, u] = the lowest p that attains it
    dz[b, u·P + p] = row_scale[b] · dy[b, u] · [p = piece[b, u]]
    dx = mask(dz Wᵀ) / keep;   dW = x'ᵀ dz;   db = Σ_B dz

The pieces of a unit are contiguous columns of W. The lowest piece wins a tie. NaN passes on as in np.maximum, and the
first piece that is NaN is the one that wins. Maxout: Goodfellow et al., 2013. Axes: B batch, I inputs, U units, P
pieces.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, Rate, Workspace, require_array, require_out
from fastgan.kernels.common.backends import implementation
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.sgd import check_update

MAX_PIECES = 255
_UINT8 = np.dtype(np.uint8)


def forward(
    x_BI: Array,
    W_IUP: Array,
    b_UP: Array,
    num_pieces: int,
    *,
    dropout: Dropout | None = None,
    out: Array | None = None,
    out_pieces: NDArray[np.uint8] | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> tuple[Array, NDArray[np.uint8]]:
    """Compute ``y = max over pieces of dropout(x) W + b``, and which piece won.

    Parameters
    ----------
    x_BI : (B, I) float32 or float64
        The input.
    W_IUP : (I, U·P)
        The weights, of x's dtype; column u·P + p is piece p of unit u.
    b_UP : (U·P,)
        A bias a piece.
    num_pieces : int
        P, 1 to 255.
    dropout : Dropout, optional
        The input's dropout.
    out : (B, U), optional
        Where y goes.
    out_pieces : (B, U) uint8, optional
        Where the winning pieces go.
    precision : {"float32", "tf32"}
        Arithmetic of the product: TF32 has 10 bits of mantissa, sums are float32; backend cupy on a GPU from sm_80 on.
    workspace : Workspace, optional
        Scratch to use again.
    backend : str
        As for ``backends.resolve``.

    Returns
    -------
    y, pieces : (B, U) array and (B, U) uint8

    Raises
    ------
    TypeError, ValueError
        An argument is not of this kind; the message names it.
    """
    require_array("x", x_BI, (None, None))
    B, I = x_BI.shape
    U = _num_units(W_IUP, num_pieces, I, x_BI.dtype)
    require_array("b", b_UP, (U * num_pieces,), (x_BI.dtype,))
    out = require_out("out", out, (B, U), x_BI.dtype, x_BI)
    out_pieces = require_out("out_pieces", out_pieces, (B, U), _UINT8, x_BI)
    implementation(__name__, backend, precision, x=x_BI, W=W_IUP, b=b_UP, out=out, out_pieces=out_pieces).forward(
        x_BI, W_IUP, b_UP, num_pieces, dropout, out, out_pieces, precision, workspace or Workspace.beside(x_BI)
    )
    return out, out_pieces


def backward_input(
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    W_IUP: Array,
    num_pieces: int,
    *,
    dropout: Dropout | None = None,
    row_scale_B: Array | None = None,
    out: Array | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> Array:
    """Carry a gradient to the input: ``dx = mask(dz Wᵀ) / keep``.

    Parameters
    ----------
    dy_BU : (B, U) float32 or float64
        The gradient of y.
    pieces_BU : (B, U) uint8
        The winning pieces, as ``forward`` gave them.
    W_IUP : (I, U·P)
        The weights that ``forward`` used.
    num_pieces, dropout, precision, workspace, backend
        As for ``forward``.
    row_scale_B : (B,), optional
        A factor a row.
    out : (B, I), optional
        Where dx goes.

    Returns
    -------
    (B, I) array
        dx.
    """
    B, U = _check_backward(dy_BU, pieces_BU, row_scale_B)
    require_array("W", W_IUP, (None, U * num_pieces), (dy_BU.dtype,))
    _num_units(W_IUP, num_pieces, None, dy_BU.dtype)
    out = require_out("out", out, (B, W_IUP.shape[0]), dy_BU.dtype, dy_BU)
    implementation(
        __name__, backend, precision, dy=dy_BU, pieces=pieces_BU, W=W_IUP, row_scale=row_scale_B, out=out
    ).backward_input(
        dy_BU, pieces_BU, W_IUP, num_pieces, dropout, row_scale_B, out, precision, workspace or Workspace.beside(dy_BU)
    )
    return out


def backward_weights(
    x_BI: Array,
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    num_pieces: int,
    *,
    dropout: Dropout | None = None,
    row_scale_B: Array | None = None,
    out_dW: Array | None = None,
    out_db: Array | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> tuple[Array, Array]:
    """Compute the gradients of weights and biases. They are written, not added.

    Parameters
    ----------
    x_BI : (B, I)
        The input of ``forward``, before its dropout.
    dy_BU, pieces_BU, num_pieces, dropout, row_scale_B, precision, workspace, backend
        As for ``backward_input``.
    out_dW, out_db : (I, U·P) and (U·P,), optional
        Where the gradients go.

    Returns
    -------
    dW, db : (I, U·P) and (U·P,) arrays
    """
    B, U = _check_backward(dy_BU, pieces_BU, row_scale_B)
    _check_pieces(num_pieces)
    require_array("x", x_BI, (B, None), (dy_BU.dtype,))
    dW = require_out("out_dW", out_dW, (x_BI.shape[1], U * num_pieces), dy_BU.dtype, dy_BU)
    db = require_out("out_db", out_db, (U * num_pieces,), dy_BU.dtype, dy_BU)
    implementation(
        __name__, backend, precision, x=x_BI, dy=dy_BU, pieces=pieces_BU, row_scale=row_scale_B, out_dW=dW, out_db=db
    ).backward_weights(
        x_BI,
        dy_BU,
        pieces_BU,
        num_pieces,
        dropout,
        row_scale_B,
        dW,
        db,
        precision,
        workspace or Workspace.beside(dy_BU),
    )
    return dW, db


def backward_update(
    x_BI: Array,
    dy_BU: Array,
    pieces_BU: NDArray[np.uint8],
    num_pieces: int,
    W_IUP: Array,
    b_UP: Array,
    vW_IUP: Array,
    vb_UP: Array,
    *,
    learning_rate: Rate,
    momentum: Rate,
    max_col_norm: float | None = None,
    dropout: Dropout | None = None,
    row_scale_B: Array | None = None,
    skip: Array | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> None:
    """Find the gradients of ``backward_weights`` and apply ``sgd.update`` with them, in place: no gradient is stored.

    Parameters
    ----------
    x_BI, dy_BU, pieces_BU, num_pieces, dropout, row_scale_B, precision, workspace, backend
        As for ``backward_weights``.
    W_IUP, b_UP, vW_IUP, vb_UP : (I, U·P), (U·P,), (I, U·P), (U·P,)
        Weights, biases and their velocities; overwritten. ``backward_input`` needs W as it was: call it before.
    learning_rate, momentum, max_col_norm, skip
        As for ``sgd.update``; the column norm is of W's columns, a piece each.
    """
    B, U = _check_backward(dy_BU, pieces_BU, row_scale_B)
    require_array("x", x_BI, (B, None), (dy_BU.dtype,))
    _num_units(W_IUP, num_pieces, x_BI.shape[1], dy_BU.dtype)
    require_array("W", W_IUP, (x_BI.shape[1], U * num_pieces), (dy_BU.dtype,))
    check_update(W_IUP, vW_IUP, max_col_norm, skip)
    require_array("b", b_UP, (U * num_pieces,), (W_IUP.dtype,))
    require_array("vb", vb_UP, (U * num_pieces,), (W_IUP.dtype,))
    implementation(
        __name__, backend, precision, x=x_BI, dy=dy_BU, pieces=pieces_BU, W=W_IUP, b=b_UP, vW=vW_IUP, vb=vb_UP,
        row_scale=row_scale_B, skip=skip,
    ).backward_update(
        x_BI, dy_BU, pieces_BU, num_pieces, W_IUP, b_UP, vW_IUP, vb_UP,
        learning_rate, momentum, max_col_norm, dropout, row_scale_B, skip,
        precision, workspace or Workspace.beside(dy_BU),
    )  # fmt: skip


def _check_pieces(num_pieces: int) -> None:
    if not 1 <= num_pieces <= MAX_PIECES:
        raise ValueError(
            f"num_pieces is {num_pieces}; it must be 1 to {MAX_PIECES}, as a winning piece is kept in a byte"
        )


def _num_units(W_IUP: Array, num_pieces: int, I: int | None, dtype: np.dtype[np.generic]) -> int:
    _check_pieces(num_pieces)
    require_array("W", W_IUP, (I, None), (dtype,))
    if W_IUP.shape[1] % num_pieces:
        raise ValueError(f"W has {W_IUP.shape[1]} columns; their number must be a multiple of num_pieces, {num_pieces}")
    return int(W_IUP.shape[1]) // num_pieces


def _check_backward(dy_BU: Array, pieces_BU: Array, row_scale_B: Array | None) -> tuple[int, int]:
    require_array("dy", dy_BU, (None, None))
    B, U = dy_BU.shape
    require_array("pieces", pieces_BU, (B, U), (_UINT8,))
    if row_scale_B is not None:
        require_array("row_scale", row_scale_B, (B,), (dy_BU.dtype,))
    return B, U
