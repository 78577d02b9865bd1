"""The losses in one compiled pass over the logits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.loops import inlined, loop


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
    out.fill(0)
    sign = 1.0 if objective == "minimax" else -1.0
    # An empty array where nothing is asked for: loops are compiled for arrays.
    out_discriminator = logits[:0] if out_discriminator is None else out_discriminator
    out_generator = logits[:0] if out_generator is None else out_generator
    sums = out[:0] if sums is None else sums
    non_finite = _NO_FLAG if non_finite is None else non_finite
    _losses(logits, num_real, sign, out_discriminator, out_generator, out, sums, non_finite)


_NO_FLAG = np.empty(0, np.int64)


@inlined
def _softplus(a: Any) -> Any:
    """Compute log(1 + exp(a)) without overflow."""
    return a + math.log1p(math.exp(-a)) if a > 0.0 else math.log1p(math.exp(a))


@inlined
def _sigmoid(a: Any) -> Any:
    """Compute 1 / (1 + exp(-a)) without overflow and without losing a small result to cancellation."""
    return math.exp(-_softplus(-a))


@loop
def _losses(
    logits: Any, num_real: Any, sign: Any, d_scale: Any, g_scale: Any, values: Any, sums: Any, non_finite: Any
) -> None:
    num_generated = logits.shape[0] - num_real
    if d_scale.shape[0] > 0:
        of_real, D_x = 0.0, 0.0
        for b in range(num_real):
            a = np.float64(logits[b])
            of_real += _softplus(-a)
            D_x += _sigmoid(a)
            d_scale[b] = -0.5 * _sigmoid(-a) / num_real
        of_generated, D_G_z = 0.0, 0.0
        for b in range(num_real, logits.shape[0]):
            a = np.float64(logits[b])
            of_generated += _softplus(a)
            D_G_z += _sigmoid(a)
            d_scale[b] = 0.5 * _sigmoid(a) / num_generated
        values[0] = 0.5 * (of_real / num_real + of_generated / num_generated)
        values[2], values[3] = D_x / num_real, D_G_z / num_generated
    if g_scale.shape[0] > 0:
        # The minimax loss is log(1 - D(G(z))) = -softplus(a): the same function with the other sign on both sides.
        of_generator = 0.0
        for b in range(num_generated):
            a = sign * np.float64(logits[num_real + b])
            of_generator += _softplus(a)
            g_scale[b] = -_sigmoid(a) / num_generated
        values[1] = -sign * of_generator / num_generated
    for i in range(sums.shape[0]):
        sums[i] += values[i]
    if non_finite.shape[0] > 0:
        for i in range(4):
            if non_finite[0] != 0 or not math.isfinite(values[i]):
                non_finite[0] = 1
