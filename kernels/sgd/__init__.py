"""Stochastic gradient descent with momentum and Pylearn2's maximal column norm.

    v ← momentum · v - learning_rate · g;   W ← W + v
    with a column norm c:   W ← W · clip(‖w_col‖, 0, c) / (1e-7 + ‖w_col‖)

No Nesterov step; the column norm leaves the velocity alone. Columns are a unit's (a piece's) incoming weights.
"""

from __future__ import annotations

import numpy as np

from fastgan.kernels.common.arrays import Array, Rate, require_array
from fastgan.kernels.common.backends import implementation

# What an update on a GPU adds to the flag of 8 bytes: 1 in its upper half.
MARK = 1 << 32


def update(
    W: Array,
    v: Array,
    dW: Array,
    *,
    learning_rate: Rate,
    momentum: Rate,
    max_col_norm: float | None = None,
    skip: Array | None = None,
    backend: str = "auto",
) -> None:
    """Update a parameter and its velocity in place.

    Parameters
    ----------
    W, v, dW : (I, O) or (O,) float32 or float64
        Parameter, velocity and gradient, of one shape and dtype.
    learning_rate, momentum : float or (1,) float32
        An array is read when the operation runs.
    max_col_norm : float, optional
        Greatest norm of a column of W after the update, > 0; W must have two axes.
    skip : (1,) int64, optional
        The step's flag. Where it is set, to 1, when the operation runs, nothing is changed. Where the new velocity
        holds a NaN or an infinity the CPU's backends set it; this parameter then holds them too, no later one. A
        GPU's leave ``MARK`` in it: it holds up no update, since blocks of one must agree, until ``gan_loss`` or
        ``step.advance`` comes after it and sets the flag.
    backend : str
        As for ``backends.resolve``.
    """
    check_update(W, v, max_col_norm, skip)
    require_array("dW", dW, W.shape, (W.dtype,))
    implementation(__name__, backend, W=W, v=v, dW=dW, skip=skip).update(
        W, v, dW, learning_rate, momentum, max_col_norm, skip
    )


def check_update(W: Array, v: Array, max_col_norm: float | None, skip: Array | None) -> None:
    """Check the arguments that every update shares."""
    require_array("W", W, (None,) * W.ndim)
    require_array("v", v, W.shape, (W.dtype,))
    if max_col_norm is not None and (W.ndim != 2 or not max_col_norm > 0):
        raise ValueError(f"max_col_norm is {max_col_norm} for W of {W.ndim} axes; it must be > 0, and W a matrix")
    if skip is not None:
        require_array("skip", skip, (1,), (np.dtype(np.int64),))
