"""The losses, their gradients and the report's sums as one Numba CUDA kernel of one block.

num_real + B logits are read once (4 bytes each) and their gradients written once; some 60 FLOP and two exponentials
and logarithms a logit, in float64. Each of 128 threads takes every 128th logit; their sums are added in a tree: one
order, the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.numba_runtime import cuda, device_function, kernel

_THREADS = 128


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
    """Write the gradients asked for and the four values."""
    no_gradient = runtime.zero(logits.dtype)
    runtime.launch(
        _losses, (1,), (_THREADS,),
        logits, np.int32(num_real), np.float64(1.0 if objective == "minimax" else -1.0),
        np.int32(out_discriminator is not None), no_gradient if out_discriminator is None else out_discriminator,
        np.int32(out_generator is not None), no_gradient if out_generator is None else out_generator,
        out, np.int32(sums is not None), runtime.zero(np.float64) if sums is None else sums,
        np.int32(non_finite is not None), runtime.zero(np.int64) if non_finite is None else non_finite,
    )  # fmt: skip


@device_function
def _softplus(a: Any) -> Any:
    """Compute log(1 + exp(a)) without overflow."""
    return a + math.log1p(math.exp(-a)) if a > 0.0 else math.log1p(math.exp(a))


@device_function
def _sigmoid(a: Any) -> Any:
    """Compute 1 / (1 + exp(-a)) without overflow and without losing a small result to cancellation."""
    return math.exp(-_softplus(-a))


@kernel
def _losses(
    logits: Any, num_real: Any, sign: Any, wants_d: Any, d_scale: Any, wants_g: Any, g_scale: Any,
    values: Any, has_sums: Any, sums: Any, has_flag: Any, non_finite: Any,
) -> None:  # fmt: skip
    # D's loss on real and on generated rows, G's loss, D(x), D(G(z)).
    shared = cuda.shared.array((5, _THREADS), np.float64)
    thread = cuda.threadIdx.x
    num_generated = logits.shape[0] - num_real
    of_real, of_generated, of_generator, D_x, D_G_z = 0.0, 0.0, 0.0, 0.0, 0.0
    for b in range(thread, logits.shape[0], _THREADS):
        a = np.float64(logits[b])
        if wants_d != 0:
            if b < num_real:
                of_real += _softplus(-a)
                D_x += _sigmoid(a)
                d_scale[b] = -0.5 * _sigmoid(-a) / num_real
            else:
                of_generated += _softplus(a)
                D_G_z += _sigmoid(a)
                d_scale[b] = 0.5 * _sigmoid(a) / num_generated
        if wants_g != 0 and b >= num_real:
            # The minimax loss is log(1 - D(G(z))) = -softplus(a): the same function with the other sign on both sides.
            of_generator += _softplus(sign * a)
            g_scale[b - num_real] = -_sigmoid(sign * a) / num_generated
    shared[0, thread] = of_real
    shared[1, thread] = of_generated
    shared[2, thread] = of_generator
    shared[3, thread] = D_x
    shared[4, thread] = D_G_z
    half = _THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if thread < half:
            for i in range(5):
                shared[i, thread] += shared[i, thread + half]
        half //= 2
    # The first thread has made the last sums itself.
    if thread == 0:
        values[0], values[1], values[2], values[3] = 0.0, 0.0, 0.0, 0.0
        if wants_d != 0:
            values[0] = 0.5 * (shared[0, 0] / num_real + shared[1, 0] / num_generated)
            values[2] = shared[3, 0] / num_real
            values[3] = shared[4, 0] / num_generated
        if wants_g != 0:
            values[1] = -sign * shared[2, 0] / num_generated
        for i in range(4):
            if has_sums != 0:
                sums[i] += values[i]
            if has_flag != 0 and not math.isfinite(values[i]):
                non_finite[0] = 1
        # Also where an update before this loss has left its mark.
        if has_flag != 0 and non_finite[0] != 0:
            non_finite[0] = 1
