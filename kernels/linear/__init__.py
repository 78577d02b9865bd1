"""A layer of linear units, with its input's dropout and its activation: forward, and backward to everything.

    y = f(x' W + b),   x' = dropout(x),   f = identity, relu or sigmoid
    dz = row_scale · dy · f'(z);   dx = mask(dz Wᵀ) / keep;   dW = x'ᵀ dz;   db = Σ_B dz

f' is found from y: relu' = [y > 0] (0 at 0), sigmoid' = y (1 - y). NaN passes on. Axes: B batch, I inputs, O outputs.
"""

from __future__ import annotations

from fastgan.kernels.common.arrays import Array, Rate, Workspace, require_array, require_choice, require_out
from fastgan.kernels.common.backends import implementation
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.sgd import check_update

ACTIVATIONS = ("identity", "relu", "sigmoid")


def forward(
    x_BI: Array,
    W_IO: Array,
    b_O: Array,
    activation: str = "identity",
    *,
    dropout: Dropout | None = None,
    out: Array | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> Array:
    """Compute ``y = f(dropout(x) W + b)``.

    Parameters
    ----------
    x_BI : (B, I) float32 or float64
        The input.
    W_IO : (I, O)
        The weights, of x's dtype.
    b_O : (O,)
        The biases.
    activation : {"identity", "relu", "sigmoid"}
        f.
    dropout : Dropout, optional
        The input's dropout.
    out : (B, O), optional
        Where y goes.
    precision : {"float32", "tf32"}
        Arithmetic of the product: TF32 has 10 bits of mantissa, sums are float32; backend cupy on a GPU from sm_80 on.
    workspace : Workspace, optional
        Scratch to use again.
    backend : str
        As for ``backends.resolve``.

    Returns
    -------
    (B, O) array
        y.

    Raises
    ------
    TypeError, ValueError
        An argument is not of this kind; the message names it.
    """
    require_choice("activation", activation, ACTIVATIONS)
    require_array("x", x_BI, (None, None))
    B, I = x_BI.shape
    require_array("W", W_IO, (I, None), (x_BI.dtype,))
    O = W_IO.shape[1]
    require_array("b", b_O, (O,), (x_BI.dtype,))
    out = require_out("out", out, (B, O), x_BI.dtype, x_BI)
    implementation(__name__, backend, precision, x=x_BI, W=W_IO, b=b_O, out=out).forward(
        x_BI, W_IO, b_O, activation, dropout, out, precision, workspace or Workspace.beside(x_BI)
    )
    return out


def backward_input(
    dy_BO: Array,
    y_BO: Array,
    W_IO: Array,
    activation: str = "identity",
    *,
    dropout: Dropout | None = None,
    row_scale_B: Array | None = None,
    out: Array | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> Array:
    """Carry a gradient to the input: ``dx = mask(dz Wᵀ) / keep`` with ``dz = row_scale · dy · f'``.

    Parameters
    ----------
    dy_BO, y_BO : (B, O)
        The gradient of y, and y as ``forward`` gave it.
    W_IO : (I, O)
        The weights that ``forward`` used.
    activation, dropout, precision, workspace, backend
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
    B, _, I = _check_backward(dy_BO, y_BO, activation, row_scale_B, W_IO)
    out = require_out("out", out, (B, I), dy_BO.dtype, dy_BO)
    implementation(
        __name__, backend, precision, dy=dy_BO, y=y_BO, W=W_IO, row_scale=row_scale_B, out=out
    ).backward_input(
        dy_BO, y_BO, W_IO, activation, dropout, row_scale_B, out, precision, workspace or Workspace.beside(dy_BO)
    )
    return out


def backward_weights(
    x_BI: Array,
    dy_BO: Array,
    y_BO: Array,
    activation: str = "identity",
    *,
    dropout: Dropout | None = None,
    row_scale_B: Array | None = None,
    out_dW: Array | None = None,
    out_db: Array | None = None,
    precision: str = "float32",
    workspace: Workspace | None = None,
    backend: str = "auto",
) -> tuple[Array, Array]:
    """Compute the gradients of weights and biases: ``dW = x'ᵀ dz``, ``db = Σ_B dz``. They are written, not added.

    Parameters
    ----------
    x_BI : (B, I)
        The input of ``forward``, before its dropout.
    dy_BO, y_BO, activation, dropout, row_scale_B, precision, workspace, backend
        As for ``backward_input``.
    out_dW, out_db : (I, O) and (O,), optional
        Where the gradients go.

    Returns
    -------
    dW, db : (I, O) and (O,) arrays
    """
    B, O, _ = _check_backward(dy_BO, y_BO, activation, row_scale_B)
    require_array("x", x_BI, (B, None), (dy_BO.dtype,))
    dW = require_out("out_dW", out_dW, (x_BI.shape[1], O), dy_BO.dtype, dy_BO)
    db = require_out("out_db", out_db, (O,), dy_BO.dtype, dy_BO)
    implementation(
        __name__, backend, precision, x=x_BI, dy=dy_BO, y=y_BO, row_scale=row_scale_B, out_dW=dW, out_db=db
    ).backward_weights(
        x_BI, dy_BO, y_BO, activation, dropout, row_scale_B, dW, db, precision, workspace or Workspace.beside(dy_BO)
    )
    return dW, db


def backward_update(
    x_BI: Array,
    dy_BO: Array,
    y_BO: Array,
    activation: str,
    W_IO: Array,
    b_O: Array,
    vW_IO: Array,
    vb_O: Array,
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
    x_BI, dy_BO, y_BO, activation, dropout, row_scale_B, precision, workspace, backend
        As for ``backward_weights``.
    W_IO, b_O, vW_IO, vb_O : (I, O), (O,), (I, O), (O,)
        Weights, biases and their velocities; overwritten. ``backward_input`` needs W as it was: call it before.
    learning_rate, momentum, max_col_norm, skip
        As for ``sgd.update``; the column norm is of W alone.
    """
    B, O, I = _check_backward(dy_BO, y_BO, activation, row_scale_B, W_IO)
    require_array("x", x_BI, (B, I), (dy_BO.dtype,))
    check_update(W_IO, vW_IO, max_col_norm, skip)
    require_array("b", b_O, (O,), (W_IO.dtype,))
    require_array("vb", vb_O, (O,), (W_IO.dtype,))
    implementation(
        __name__, backend, precision, x=x_BI, dy=dy_BO, y=y_BO, W=W_IO, b=b_O, vW=vW_IO, vb=vb_O,
        row_scale=row_scale_B, skip=skip,
    ).backward_update(
        x_BI, dy_BO, y_BO, activation, W_IO, b_O, vW_IO, vb_O,
        learning_rate, momentum, max_col_norm, dropout, row_scale_B, skip,
        precision, workspace or Workspace.beside(dy_BO),
    )  # fmt: skip


def _check_backward(
    dy_BO: Array, y_BO: Array, activation: str, row_scale_B: Array | None, W_IO: Array | None = None
) -> tuple[int, int, int]:
    require_choice("activation", activation, ACTIVATIONS)
    require_array("dy", dy_BO, (None, None))
    B, O = dy_BO.shape
    require_array("y", y_BO, (B, O), (dy_BO.dtype,))
    if row_scale_B is not None:
        require_array("row_scale", row_scale_B, (B,), (dy_BO.dtype,))
    if W_IO is None:
        return B, O, 0
    require_array("W", W_IO, (None, O), (dy_BO.dtype,))
    return B, O, W_IO.shape[0]
