"""The definition of the losses, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array


def gan_loss(
    logits: Array,
    num_real: int,
    objective: str,
    out_discriminator: Array | None,
    out_generator: Array | None,
    sums: NDArray[np.float64] | None,
    non_finite: NDArray[np.int64] | None,
    out: NDArray[np.float64],
) -> None:
    """Write the gradients asked for and the four values; a few hundred numbers, so all of it in float64."""
    a = logits.astype(np.float64)
    a_real, a_generated = a[:num_real], a[num_real:]
    out.fill(0)
    if out_discriminator is not None:
        out[0] = 0.5 * (_softplus(-a_real).mean() + _softplus(a_generated).mean())
        out[2], out[3] = _sigmoid(a_real).mean(), _sigmoid(a_generated).mean()
        out_discriminator[:num_real] = -0.5 * _sigmoid(-a_real) / len(a_real)
        out_discriminator[num_real:] = 0.5 * _sigmoid(a_generated) / len(a_generated)
    if out_generator is not None:
        # The minimax loss is log(1 - D(G(z))) = -softplus(a): the same function with the other sign on both sides.
        sign = 1.0 if objective == "minimax" else -1.0
        out[1] = -sign * _softplus(sign * a_generated).mean()
        out_generator[...] = -_sigmoid(sign * a_generated) / len(a_generated)
    if sums is not None:
        sums += out
    if non_finite is not None and (non_finite[0] or not np.isfinite(out).all()):
        non_finite[0] = 1


def _softplus(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute log(1 + exp(a)) without overflow; a NaN passes on without a warning, the flag is for it."""
    with np.errstate(invalid="ignore"):
        return np.logaddexp(0.0, a)


def _sigmoid(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute 1 / (1 + exp(-a)) without overflow and without losing a small result to cancellation."""
    return np.exp(-_softplus(-a))
