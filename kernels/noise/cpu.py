"""The noise in compiled loops: words are drawn and scaled in one pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastgan.kernels.common.arrays import Array, Counter
from fastgan.kernels.common.loops import loop, prange
from fastgan.kernels.common.philox_loops import draw, new_row, row_words


def uniform(out: Array, low: float, high: float, seed: int, stream: int, step: Counter, row_offset: int) -> None:
    """Fill ``out`` with uniforms in [low, high)."""
    number = out.dtype.type
    _uniform(out, number(low), number(high - low), *draw(seed, stream, step, row_offset), size=out.size)


def normal(out: Array, seed: int, stream: int, step: Counter, row_offset: int) -> None:
    """Fill ``out`` with standard normals; in float64, rounded once at the end."""
    # A logarithm, a root, a sine or a cosine for each number.
    _normal(out, *draw(seed, stream, step, row_offset), size=32 * out.size)


@loop
def _uniform(out: Any, low: Any, width: Any, row_offset: Any, step: Any, stream: Any, k0: Any, k1: Any) -> None:
    unit = out.dtype.type(2.0**-24)
    for b in prange(out.shape[0]):
        words = row_words(new_row(out.shape[1]), b, row_offset, step, stream, k0, k1)
        out_Z = out[b]
        for z in range(out.shape[1]):
            # Rounded twice, never fused: Numba contracts nothing unless it is told to.
            out_Z[z] = out.dtype.type(words[z] >> np.uint32(8)) * unit * width + low


@loop
def _normal(out: Any, row_offset: Any, step: Any, stream: Any, k0: Any, k1: Any) -> None:
    for b in prange(out.shape[0]):
        words = row_words(new_row(out.shape[1]), b, row_offset, step, stream, k0, k1)
        for z in range(0, out.shape[1], 2):
            # From (0, 1], so that the logarithm is finite.
            u = (np.float64(words[z] >> np.uint32(8)) + 1.0) * 2.0**-24
            angle = 2.0 * math.pi * (np.float64(words[z + 1] >> np.uint32(8)) * 2.0**-24)
            radius = math.sqrt(-2.0 * math.log(u))
            out[b, z] = radius * math.cos(angle)
            if z + 1 < out.shape[1]:
                out[b, z + 1] = radius * math.sin(angle)
