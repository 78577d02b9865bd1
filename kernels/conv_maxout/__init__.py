"""A convolution of maxout units, with its input's dropout: forward, and backward to everything.

    z[b, u·P + p, i, j] = b[u·P + p] + Σ_{c, k, l} x'[b, c, i + k - pad, j + l - pad] · W[c, k, l, u·P + p]
    x' = dropout(x), 0 outside of the image;   y[b, u, i, j] = max_p z[b, u·P + p, i, j],   piece = the lowest such p
    dz[b, u·P + p, i, j] = row_scale[b] · dy[b, u, i, j] · [p = piece[b, u, i, j]]
    dx'[b, c, m, n] = Σ_{u·P + p, k, l} dz[b, u·P + p, m - k + pad, n - l + pad] · W[c, k, l, u·P + p];
    dx = mask(dx') / keep
    dW[c, k, l, u·P + p] = Σ_{b, i, j} x'[b, c, i + k - pad, j + l - pad] · dz[b, u·P + p, i, j];   db = Σ_{b, i, j} dz

The kernel is not turned round: a cross-correlation, as in all networks of the field. Stride 1, square kernels, the same
padding with zeros on all sides, so H' = H + 2·pad - K + 1. With an image's patches as rows this is ``linear_maxout``:
pieces of a unit are contiguous columns of W, seen as the matrix (C·K·K, U·P); the lowest piece wins a tie; NaN passes
on as there. The dropout mask is that of the flattened rows (B, C·H·W). Goodfellow et al., "Maxout Networks", 2013.
Axes: B batch, C channels, H and W rows and columns of an image, K of a kernel, U units (the output's channels), P
pieces.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, Rate, Workspace, require_array, require_out
from fastgan.kernels.common.backends import implementation
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.linear_maxout import MAX_PIECES
from fastgan.kernels.sgd import check_update

_UINT8 = np.dtype(np.uint8)


def forward(
    x_BCHW: Array,
    W_CKKUP: Array,
    b_UP: Array,
    num_pieces: int,
    *,
    pad: int = 0,
    dropout: Dropout | None = None,
    out: Array | None = None,
    out_pieces: NDArray[np.uint8] | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> tuple[Array, NDArray[np.uint8]]:
    """Compute the maximum over pieces of the convolutions of dropout(x) with W, plus b, and which piece won.

    Parameters
    ----------
    x_BCHW : (B, C, H, W) float32 or float64
        The images.
    W_CKKUP : (C, K, K, U·P)
        The kernels, of x's dtype; [:, :, :, u·P + p] is piece p of unit u.
    b_UP : (U·P,)
        A bias a piece, the same at every place.
    num_pieces : int
        P, 1 to 255.
    pad : int
        Rows and columns of zeros put round the image, 0 to K - 1.
    dropout : Dropout, optional
        The input's dropout; its mask is that of the rows (B, C·H·W).
    out : (B, U, H', W'), optional
        Where y goes; H' = H + 2·pad - K + 1.
    out_pieces : (B, U, H', W') uint8, optional
        Where the winning pieces go.
    precision : {"float32", "tf32"}
        Arithmetic of the product, as for ``linear_maxout.forward``.
    workspace : Workspace, optional
        Scratch to use again.
    backend : str
        As for ``backends.resolve``.

    Returns
    -------
    y, pieces : (B, U, H', W') array and uint8

    Raises
    ------
    TypeError, ValueError
        An argument is not of this kind; the message names it.
    """
    require_array("x", x_BCHW, (None, None, None, None))
    B, C, H, W = x_BCHW.shape
    U, K = _check_kernels(W_CKKUP, num_pieces, C, x_BCHW.dtype)
    _check_pad(pad, K)
    shape = (B, U, output_length("H", H, K, pad), output_length("W", W, K, pad))
    require_array("b", b_UP, (U * num_pieces,), (x_BCHW.dtype,))
    out = require_out("out", out, shape, x_BCHW.dtype, x_BCHW)
    out_pieces = require_out("out_pieces", out_pieces, shape, _UINT8, x_BCHW)
    implementation(__name__, backend, precision, x=x_BCHW, W=W_CKKUP, b=b_UP, out=out, out_pieces=out_pieces).forward(
        x_BCHW, W_CKKUP, b_UP, num_pieces, pad, dropout, out, out_pieces, precision,
        workspace or Workspace.beside(x_BCHW),
    )  # fmt: skip
    return out, out_pieces


def backward_input(
    dy_BUHW: Array,
    pieces_BUHW: NDArray[np.uint8],
    W_CKKUP: Array,
    num_pieces: int,
    *,
    pad: int = 0,
    dropout: Dropout | None = None,
    row_scale_B: Array | None = None,
    out: Array | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> Array:
    """Carry a gradient to the input.

    Parameters
    ----------
    dy_BUHW : (B, U, H', W') float32 or float64
        The gradient of y.
    pieces_BUHW : (B, U, H', W') uint8
        The winning pieces, as ``forward`` gave them.
    W_CKKUP : (C, K, K, U·P)
        The kernels that ``forward`` used.
    num_pieces, pad, dropout, precision, workspace, backend
        As for ``forward``.
    row_scale_B : (B,), optional
        A factor an image.
    out : (B, C, H, W), optional
        Where dx goes; H = H' - 2·pad + K - 1.

    Returns
    -------
    (B, C, H, W) array
        dx.
    """
    B, U, height, width = _check_backward(dy_BUHW, pieces_BUHW, row_scale_B)
    units, K = _check_kernels(W_CKKUP, num_pieces, None, dy_BUHW.dtype)
    _check_pad(pad, K)
    if units != U:
        raise ValueError(f"W has {units} units of {num_pieces} pieces and dy has {U} channels; they must be as many")
    C = W_CKKUP.shape[0]
    shape = (B, C, _input_length("H", height, K, pad), _input_length("W", width, K, pad))
    out = require_out("out", out, shape, dy_BUHW.dtype, dy_BUHW)
    implementation(
        __name__, backend, precision, dy=dy_BUHW, pieces=pieces_BUHW, W=W_CKKUP, row_scale=row_scale_B, out=out
    ).backward_input(
        dy_BUHW, pieces_BUHW, W_CKKUP, num_pieces, pad, dropout, row_scale_B, out, precision,
        workspace or Workspace.beside(dy_BUHW),
    )  # fmt: skip
    return out


def backward_weights(
    x_BCHW: Array,
    dy_BUHW: Array,
    pieces_BUHW: NDArray[np.uint8],
    num_pieces: int,
    *,
    pad: int = 0,
    dropout: Dropout | None = None,
    row_scale_B: Array | None = None,
    out_dW: Array | None = None,
    out_db: Array | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> tuple[Array, Array]:
    """Compute the gradients of kernels and biases. They are written, not added.

    Parameters
    ----------
    x_BCHW : (B, C, H, W)
        The input of ``forward``, before its dropout.
    dy_BUHW, pieces_BUHW, num_pieces, pad, dropout, row_scale_B, precision, workspace, backend
        As for ``backward_input``.
    out_dW, out_db : (C, K, K, U·P) and (U·P,), optional
        Where the gradients go; K = H + 2·pad - H' + 1.

    Returns
    -------
    dW, db : (C, K, K, U·P) and (U·P,) arrays
    """
    B, U, height, width = _check_backward(dy_BUHW, pieces_BUHW, row_scale_B)
    _check_pieces(num_pieces)
    require_array("x", x_BCHW, (B, None, None, None), (dy_BUHW.dtype,))
    _, C, H, W = x_BCHW.shape
    K = H + 2 * pad - height + 1
    if K < 1 or W + 2 * pad - width + 1 != K:
        raise ValueError(
            f"x has images of {H} x {W} and dy of {height} x {width}; with pad {pad} no square kernel makes one of the "
            "other"
        )
    _check_pad(pad, K)
    dW = require_out("out_dW", out_dW, (C, K, K, U * num_pieces), dy_BUHW.dtype, dy_BUHW)
    db = require_out("out_db", out_db, (U * num_pieces,), dy_BUHW.dtype, dy_BUHW)
    implementation(
        __name__, backend, precision,
        x=x_BCHW, dy=dy_BUHW, pieces=pieces_BUHW, row_scale=row_scale_B, out_dW=dW, out_db=db,
    ).backward_weights(
        x_BCHW, dy_BUHW, pieces_BUHW, num_pieces, pad, dropout, row_scale_B, dW, db, precision,
        workspace or Workspace.beside(dy_BUHW),
    )  # fmt: skip
    return dW, db


def backward_update(
    x_BCHW: Array,
    dy_BUHW: Array,
    pieces_BUHW: NDArray[np.uint8],
    num_pieces: int,
    W_CKKUP: Array,
    b_UP: Array,
    vW_CKKUP: Array,
    vb_UP: Array,
    *,
    pad: int = 0,
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
    x_BCHW, dy_BUHW, pieces_BUHW, num_pieces, pad, dropout, row_scale_B, precision, workspace, backend
        As for ``backward_weights``.
    W_CKKUP, b_UP, vW_CKKUP, vb_UP : (C, K, K, U·P), (U·P,), (C, K, K, U·P), (U·P,)
        Kernels, biases and their velocities; overwritten. ``backward_input`` needs W as it was: call it before.
    learning_rate, momentum, max_col_norm, skip
        As for ``sgd.update``; the column norm is of W as a matrix (C·K·K, U·P): of the whole kernel of a piece.
    """
    B, U, height, width = _check_backward(dy_BUHW, pieces_BUHW, row_scale_B)
    require_array("x", x_BCHW, (B, None, None, None), (dy_BUHW.dtype,))
    _, C, H, W = x_BCHW.shape
    units, K = _check_kernels(W_CKKUP, num_pieces, C, dy_BUHW.dtype)
    _check_pad(pad, K)
    expected = (B, units, output_length("H", H, K, pad), output_length("W", W, K, pad))
    if (B, U, height, width) != expected:
        raise ValueError(f"dy has shape {(B, U, height, width)}; for x, W and pad {pad} it must be {expected}")
    require_array("W", W_CKKUP, W_CKKUP.shape, (dy_BUHW.dtype,))
    require_array("vW", vW_CKKUP, W_CKKUP.shape, (dy_BUHW.dtype,))
    matrix = (C * K * K, U * num_pieces)
    check_update(W_CKKUP.reshape(matrix), vW_CKKUP.reshape(matrix), max_col_norm, skip)
    require_array("b", b_UP, (U * num_pieces,), (W_CKKUP.dtype,))
    require_array("vb", vb_UP, (U * num_pieces,), (W_CKKUP.dtype,))
    implementation(
        __name__, backend, precision, x=x_BCHW, dy=dy_BUHW, pieces=pieces_BUHW, W=W_CKKUP, b=b_UP, vW=vW_CKKUP,
        vb=vb_UP, row_scale=row_scale_B, skip=skip,
    ).backward_update(
        x_BCHW, dy_BUHW, pieces_BUHW, num_pieces, W_CKKUP, b_UP, vW_CKKUP, vb_UP, pad,
        learning_rate, momentum, max_col_norm, dropout, row_scale_B, skip,
        precision, workspace or Workspace.beside(dy_BUHW),
    )  # fmt: skip


def output_length(axis: str, length: int, K: int, pad: int) -> int:
    """Give the rows or columns of the output: ``length + 2·pad - K + 1``.

    Raises
    ------
    ValueError
        The kernel is larger than the padded image.
    """
    result = length + 2 * pad - K + 1
    if result < 1:
        raise ValueError(
            f"{axis} is {length}, with padding {length + 2 * pad}; a kernel of {K} x {K} does not fit into that"
        )
    return result


def _input_length(axis: str, length: int, K: int, pad: int) -> int:
    result = length - 2 * pad + K - 1
    if result < 1:
        raise ValueError(f"{axis} of dy is {length}; no image has that with a kernel of {K} x {K} and pad {pad}")
    return result


def _check_pieces(num_pieces: int) -> None:
    if not 1 <= num_pieces <= MAX_PIECES:
        raise ValueError(
            f"num_pieces is {num_pieces}; it must be 1 to {MAX_PIECES}, as a winning piece is kept in a byte"
        )


def _check_pad(pad: int, K: int) -> None:
    if not 0 <= pad < K:
        raise ValueError(f"pad is {pad}; it must be 0 to {K - 1}: less than the kernel")


def _check_kernels(W_CKKUP: Array, num_pieces: int, C: int | None, dtype: np.dtype[np.generic]) -> tuple[int, int]:
    """Check W; give U and K."""
    _check_pieces(num_pieces)
    require_array("W", W_CKKUP, (C, None, None, None), (dtype,))
    _, K, columns, num_outputs = W_CKKUP.shape
    if columns != K:
        raise ValueError(f"W has kernels of {K} x {columns}; they must be square")
    if num_outputs % num_pieces:
        raise ValueError(f"W has {num_outputs} kernels; their number must be a multiple of num_pieces, {num_pieces}")
    return num_outputs // num_pieces, K


def _check_backward(dy_BUHW: Array, pieces_BUHW: Array, row_scale_B: Array | None) -> tuple[int, int, int, int]:
    require_array("dy", dy_BUHW, (None, None, None, None))
    B, U, H, W = dy_BUHW.shape
    require_array("pieces", pieces_BUHW, (B, U, H, W), (_UINT8,))
    if row_scale_B is not None:
        require_array("row_scale", row_scale_B, (B,), (dy_BUHW.dtype,))
    return B, U, H, W
