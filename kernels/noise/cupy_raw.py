"""Launches of ``noise.cu``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from fastgan.kernels.common import arguments
from fastgan.kernels.common.arrays import Array, Counter
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch

_UNIFORM: Final = Kernel("noise/noise.cu", "noise_uniform")
_NORMAL: Final = Kernel("noise/noise.cu", "noise_normal")


def uniform(out: Array, low: float, high: float, seed: int, stream: int, step: Counter, row_offset: int) -> None:
    """Fill ``out`` with uniforms in [low, high)."""
    _launch(_UNIFORM, out, {"low": np.float32(low), "width": np.float32(high - low)}, seed, stream, step, row_offset)


def normal(out: Array, seed: int, stream: int, step: Counter, row_offset: int) -> None:
    """Fill ``out`` with standard normals."""
    _launch(_NORMAL, out, {}, seed, stream, step, row_offset)


def _launch(
    kernel: Kernel, out: Array, limits: dict[str, Any], seed: int, stream: int, step: Counter, row_offset: int
) -> None:
    arguments.require_float32(out=out)
    B, Z = out.shape
    blocks = -(-B * -(-Z // 4) // kernel.threads)
    if blocks:
        launch(
            kernel, (blocks, 1, 1),
            out=out, B=np.int32(B), Z=np.int32(Z), **limits, **arguments.draw(seed, stream, step, row_offset),
        )  # fmt: skip
