"""The two players' losses and their gradients, from D's logits a (D = σ(a)).

    D:  ½ · [mean softplus(-a_real) + mean softplus(a_generated)]
        da_real = -½ σ(-a) / B,   da_generated = ½ σ(a) / B
    G, non-saturating:  mean softplus(-a_generated)     = -mean log D(G(z));        da = -σ(-a) / B
    G, minimax:        -mean softplus(a_generated)      = mean log(1 - D(G(z)));    da = -σ(a) / B

Equation 1 and section 3 of the paper; the ½ is the released code's. As a logit is one number a row, these gradients are
the factors by which a row's unit backward pass is scaled, for either player. Axes: B rows of each kind.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, require_array, require_choice, require_out
from fastgan.kernels.common.backends import implementation

OBJECTIVES = ("non-saturating", "minimax")
# What the sums hold, in this order.
SUMS = ("discriminator_loss", "generator_loss", "D_x", "D_G_z")
_FLOAT64 = np.dtype(np.float64)
_INT64 = np.dtype(np.int64)


def gan_loss(
    logits: Array,
    num_real: int,
    objective: str = "non-saturating",
    *,
    out_discriminator: Array | None = None,
    out_generator: Array | None = None,
    sums: NDArray[np.float64] | None = None,
    non_finite: NDArray[np.int64] | None = None,
    out: NDArray[np.float64] | None = None,
    backend: str = "auto",
) -> NDArray[np.float64]:
    """Compute the losses asked for and their gradients with respect to the logits.

    Parameters
    ----------
    logits : (num_real + B,) float32 or float64
        D's logits, real rows first.
    num_real : int
        How many of them are real: B, or 0 where only G's loss is wanted.
    objective : {"non-saturating", "minimax"}
        What G minimises.
    out_discriminator : (num_real + B,), optional
        Where D's gradient goes; without it D's loss and the means of D are not computed (they are 0).
    out_generator : (B,), optional
        Where G's gradient goes; without it G's loss is not computed (it is 0).
    sums : (4,) float64, optional
        The report's sums; the values are added to it.
    non_finite : (1,) int64, optional
        The step's flag. Set to 1 where a loss is NaN or infinite, and where an update before it left its mark there
        (``kernels.sgd.update``); never set back.
    out : (4,) float64, optional
        Where the values go.
    backend : str
        As for ``backends.resolve``.

    Returns
    -------
    (4,) float64
        D's loss, G's loss, mean D(x), mean D(G(z)).

    Raises
    ------
    TypeError, ValueError
        An argument is not of this kind; the message names it.
    """
    require_choice("objective", objective, OBJECTIVES)
    require_array("logits", logits, (None,))
    num_rows = len(logits)
    num_generated = num_rows - num_real
    if num_real < 0 or num_generated < 1:
        raise ValueError(f"num_real is {num_real} of {num_rows} logits; it must be 0 to {num_rows - 1}")
    if out_discriminator is None and out_generator is None:
        raise ValueError("out_discriminator and out_generator are both None; one of them must be given")
    if out_discriminator is not None:
        require_array("out_discriminator", out_discriminator, (num_rows,), (logits.dtype,))
        if num_real == 0:
            raise ValueError("num_real is 0; D's loss needs real rows")
    if out_generator is not None:
        require_array("out_generator", out_generator, (num_generated,), (logits.dtype,))
    if sums is not None:
        require_array("sums", sums, (4,), (_FLOAT64,))
    if non_finite is not None:
        require_array("non_finite", non_finite, (1,), (_INT64,))
    out = require_out("out", out, (4,), _FLOAT64, logits)
    implementation(
        __name__, backend, logits=logits, out_discriminator=out_discriminator, out_generator=out_generator,
        sums=sums, non_finite=non_finite, out=out,
    ).gan_loss(logits, num_real, objective, out_discriminator, out_generator, sums, non_finite, out)  # fmt: skip
    return out
