"""The definition of the update, in NumPy over BLAS."""

from __future__ import annotations

import numpy as np

from fastgan.kernels.common.arrays import Array, Rate, Workspace, read_rate
from fastgan.kernels.common.blas import gemm


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
    np.multiply(v, W.dtype.type(read_rate(momentum)), out=v)
    v -= W.dtype.type(read_rate(learning_rate)) * dW
    np.add(W, v, out=W)
    if max_col_norm is not None:
        clip_columns(W, max_col_norm)
    raise_flag(v, skip)


def update_from_product(
    x_BI: Array,
    dz_BO: Array,
    W_IO: Array,
    b_O: Array,
    vW_IO: Array,
    vb_O: Array,
    learning_rate: Rate,
    momentum: Rate,
    max_col_norm: float | None,
    skip: Array | None,
    workspace: Workspace,
) -> None:
    """Update with dW = xᵀ dz and db = Σ_B dz.

    The product's own scale and accumulation make v ← momentum · v - learning_rate · xᵀ dz at once.
    """
    if skip is not None and skip[0]:
        return
    rate, m = read_rate(learning_rate), read_rate(momentum)
    gemm(x_BI.T, dz_BO, vW_IO, alpha=-rate, beta=m)
    np.add(W_IO, vW_IO, out=W_IO)
    db_O = workspace.array("db", b_O.shape, b_O.dtype)
    np.sum(dz_BO, axis=0, out=db_O)
    if max_col_norm is not None:
        clip_columns(W_IO, max_col_norm)
    raise_flag(vW_IO, skip)
    update(b_O, vb_O, db_O, rate, m, None, skip)


def raise_flag(v: Array, flag: Array | None) -> None:
    """Set the flag where a velocity holds a NaN or an infinity."""
    if flag is None:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        # The sum of squares shows every one of them in the quickest pass over memory that there is, BLAS's: a plain sum
        # takes twice as long. As it may overflow by itself, the rest is asked then.
        if not np.isfinite(np.vdot(v, v)) and not np.isfinite(v).all():
            flag[0] = 1


def clip_columns(W_IO: Array, max_col_norm: float) -> None:
    """Scale the columns so that none is longer than the norm; the 1e-7 is Pylearn2's."""
    norms_O = np.sqrt(np.einsum("io,io->o", W_IO, W_IO))
    W_IO *= np.clip(norms_O, 0, W_IO.dtype.type(max_col_norm)) / (W_IO.dtype.type(1e-7) + norms_O)
