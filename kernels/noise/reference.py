"""The definition of the noise, in NumPy."""

from __future__ import annotations

import numpy as np

from fastgan.kernels.common import philox
from fastgan.kernels.common.arrays import Array, Counter


def uniform(out: Array, low: float, high: float, seed: int, stream: int, step: Counter, row_offset: int) -> None:
    """Fill ``out`` with uniforms in [low, high)."""
    words = philox.words(*out.shape, seed=seed, stream=stream, step=step, row_offset=row_offset)
    number = out.dtype.type
    np.multiply(philox.uniform01(words, number), number(high - low), out=out)
    np.add(out, number(low), out=out)


def normal(out: Array, seed: int, stream: int, step: Counter, row_offset: int) -> None:
    """Fill ``out`` with standard normals; in float64, rounded once at the end."""
    num_rows, num_columns = out.shape
    words = philox.words(num_rows, -(-num_columns // 2) * 2, seed=seed, stream=stream, step=step, row_offset=row_offset)
    # From (0, 1], so that the logarithm is finite.
    u = philox.uniform01(words[:, 0::2], np.float64) + 2.0**-24
    v = philox.uniform01(words[:, 1::2], np.float64)
    radius = np.sqrt(-2.0 * np.log(u))
    out[:, 0::2] = radius * np.cos(2.0 * np.pi * v)
    out[:, 1::2] = (radius * np.sin(2.0 * np.pi * v))[:, : num_columns // 2]
