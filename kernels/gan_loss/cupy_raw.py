"""The launch of ``gan_loss.cu``."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import arguments
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch

_KERNEL: Final = Kernel("gan_loss/gan_loss.cu", "gan_loss", shared_bytes=5 * 256 * 8)


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
    arguments.require_float32(logits=logits)
    launch(
        _KERNEL, (1, 1, 1),
        logits=logits, num_real=np.int32(num_real), num_generated=np.int32(len(logits) - num_real),
        sign=np.float64(1 if objective == "minimax" else -1),
        out_discriminator=out_discriminator, out_generator=out_generator, values=out, sums=sums,
        non_finite=non_finite,
    )  # fmt: skip
