"""A transposed convolution ("deconvolution") with a bias a pixel: forward, and backward to everything.

    y[b, o, m, n] = b[o, m, n] + Σ x[b, c, i, j] · W[c, o, k, l]   over all c and i·stride + k = m, j·stride + l = n
    dx[b, c, i, j] = Σ_{o, k, l} dy[b, o, i·stride + k, j·stride + l] · W[c, o, k, l]
    dW[c, o, k, l] = Σ_{b, i, j} x[b, c, i, j] · dy[b, o, i·stride + k, j·stride + l];   db = Σ_B dy

Every pixel of x puts its kernel, times itself, into y: H' = stride·(H - 1) + K, no padding, square kernels. It is the
gradient of a convolution with respect to its input. No nonlinearity.
Axes: B batch, C channels of the input, O of the output, H and W rows and columns of an image, K of a kernel.
"""

from __future__ import annotations

import numpy as np

from fastgan.kernels.common.arrays import Array, Rate, Workspace, require_array, require_out
from fastgan.kernels.common.backends import implementation
from fastgan.kernels.sgd import check_update


def forward(
    x_BCHW: Array,
    W_COKK: Array,
    b_OHW: Array,
    stride: int,
    *,
    out: Array | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> Array:
    """Compute the transposed convolution of x with W, plus b.

    Parameters
    ----------
    x_BCHW : (B, C, H, W) float32 or float64
        The input.
    W_COKK : (C, O, K, K)
        The kernels, of x's dtype.
    b_OHW : (O, H', W')
        A bias a pixel of the output.
    stride : int
        Steps from one input pixel's place in the output to the next one's, 1 or more.
    out : (B, O, H', W'), optional
        Where y goes; H' = stride·(H - 1) + K.
    precision : {"float32", "tf32"}
        Arithmetic of the product, as for ``linear.forward``.
    workspace : Workspace, optional
        Scratch to use again.
    backend : str
        As for ``backends.resolve``.

    Returns
    -------
    (B, O, H', W') array
        y.

    Raises
    ------
    TypeError, ValueError
        An argument is not of this kind; the message names it.
    """
    require_array("x", x_BCHW, (None, None, None, None))
    B, C, H, W = x_BCHW.shape
    O, K = _check_kernels(W_COKK, C, stride, x_BCHW.dtype)
    image = (O, output_length(H, K, stride), output_length(W, K, stride))
    require_array("b", b_OHW, image, (x_BCHW.dtype,))
    out = require_out("out", out, (B, *image), x_BCHW.dtype, x_BCHW)
    implementation(__name__, backend, precision, x=x_BCHW, W=W_COKK, b=b_OHW, out=out).forward(
        x_BCHW, W_COKK, b_OHW, stride, out, precision, workspace or Workspace.beside(x_BCHW)
    )
    return out


def backward_input(
    dy_BOHW: Array,
    W_COKK: Array,
    stride: int,
    *,
    out: Array | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> Array:
    """Carry a gradient to the input.

    Parameters
    ----------
    dy_BOHW : (B, O, H', W') float32 or float64
        The gradient of y; H' - K and W' - K must be multiples of the stride.
    W_COKK : (C, O, K, K)
        The kernels that ``forward`` used.
    stride, precision, workspace, backend
        As for ``forward``.
    out : (B, C, H, W), optional
        Where dx goes; H = (H' - K) / stride + 1.

    Returns
    -------
    (B, C, H, W) array
        dx.
    """
    require_array("dy", dy_BOHW, (None, None, None, None))
    B, _, height, width = dy_BOHW.shape
    O, K = _check_kernels(W_COKK, None, stride, dy_BOHW.dtype)
    require_array("dy", dy_BOHW, (None, O, None, None))
    shape = (B, W_COKK.shape[0], _input_length("H", height, K, stride), _input_length("W", width, K, stride))
    out = require_out("out", out, shape, dy_BOHW.dtype, dy_BOHW)
    implementation(__name__, backend, precision, dy=dy_BOHW, W=W_COKK, out=out).backward_input(
        dy_BOHW, W_COKK, stride, out, precision, workspace or Workspace.beside(dy_BOHW)
    )
    return out


def backward_weights(
    x_BCHW: Array,
    dy_BOHW: Array,
    stride: int,
    *,
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
        The input of ``forward``.
    dy_BOHW, stride, precision, workspace, backend
        As for ``backward_input``.
    out_dW, out_db : (C, O, K, K) and (O, H', W'), optional
        Where the gradients go; K = H' - stride·(H - 1).

    Returns
    -------
    dW, db : (C, O, K, K) and (O, H', W') arrays
    """
    _, O, height, width = _check_pair(x_BCHW, dy_BOHW, stride)
    _, C, H, W = x_BCHW.shape
    K = height - stride * (H - 1)
    if K < 1 or width - stride * (W - 1) != K:
        raise ValueError(
            f"x has images of {H} x {W} and dy of {height} x {width}; with stride {stride} no square kernel makes one "
            "of the other"
        )
    dW = require_out("out_dW", out_dW, (C, O, K, K), dy_BOHW.dtype, dy_BOHW)
    db = require_out("out_db", out_db, (O, height, width), dy_BOHW.dtype, dy_BOHW)
    implementation(__name__, backend, precision, x=x_BCHW, dy=dy_BOHW, out_dW=dW, out_db=db).backward_weights(
        x_BCHW, dy_BOHW, stride, dW, db, precision, workspace or Workspace.beside(dy_BOHW)
    )
    return dW, db


def backward_update(
    x_BCHW: Array,
    dy_BOHW: Array,
    W_COKK: Array,
    b_OHW: Array,
    vW_COKK: Array,
    vb_OHW: Array,
    stride: int,
    *,
    learning_rate: Rate,
    momentum: Rate,
    skip: Array | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> None:
    """Find the gradients of ``backward_weights`` and apply ``sgd.update`` with them, in place: no gradient is stored.

    Parameters
    ----------
    x_BCHW, dy_BOHW, stride, precision, workspace, backend
        As for ``backward_weights``.
    W_COKK, b_OHW, vW_COKK, vb_OHW : (C, O, K, K), (O, H', W'), (C, O, K, K), (O, H', W')
        Kernels, biases and their velocities; overwritten. ``backward_input`` needs W as it was: call it before.
    learning_rate, momentum, skip
        As for ``sgd.update``.
    """
    B, O, height, width = _check_pair(x_BCHW, dy_BOHW, stride)
    _, C, H, W = x_BCHW.shape
    outputs, K = _check_kernels(W_COKK, C, stride, dy_BOHW.dtype)
    expected = (B, outputs, output_length(H, K, stride), output_length(W, K, stride))
    if (B, O, height, width) != expected:
        raise ValueError(f"dy has shape {(B, O, height, width)}; for x, W and stride {stride} it must be {expected}")
    check_update(W_COKK, vW_COKK, None, skip)
    require_array("b", b_OHW, (O, height, width), (dy_BOHW.dtype,))
    require_array("vb", vb_OHW, (O, height, width), (dy_BOHW.dtype,))
    implementation(
        __name__, backend, precision, x=x_BCHW, dy=dy_BOHW, W=W_COKK, b=b_OHW, vW=vW_COKK, vb=vb_OHW, skip=skip
    ).backward_update(
        x_BCHW, dy_BOHW, W_COKK, b_OHW, vW_COKK, vb_OHW, stride, learning_rate, momentum, skip,
        precision, workspace or Workspace.beside(dy_BOHW),
    )  # fmt: skip


def output_length(length: int, K: int, stride: int) -> int:
    """Give the rows or columns of the output: ``stride·(length - 1) + K``."""
    return stride * (length - 1) + K


def _input_length(axis: str, length: int, K: int, stride: int) -> int:
    if length < K or (length - K) % stride:
        raise ValueError(
            f"{axis} of dy is {length}; it must be {K}, the kernel's size, or a multiple of the stride, {stride}, more"
        )
    return (length - K) // stride + 1


def _check_stride(stride: int) -> None:
    if stride < 1:
        raise ValueError(f"stride is {stride}; it must be 1 or more")


def _check_kernels(W_COKK: Array, C: int | None, stride: int, dtype: np.dtype[np.generic]) -> tuple[int, int]:
    """Check W; give O and K."""
    _check_stride(stride)
    require_array("W", W_COKK, (C, None, None, None), (dtype,))
    _, O, K, columns = W_COKK.shape
    if columns != K:
        raise ValueError(f"W has kernels of {K} x {columns}; they must be square")
    return O, K


def _check_pair(x_BCHW: Array, dy_BOHW: Array, stride: int) -> tuple[int, int, int, int]:
    _check_stride(stride)
    require_array("dy", dy_BOHW, (None, None, None, None))
    B, O, H, W = dy_BOHW.shape
    require_array("x", x_BCHW, (B, None, None, None), (dy_BOHW.dtype,))
    return B, O, H, W
