"""The generator's noise z, and first weights: a function of (seed, stream, step, row, column).

    uniform:  low + (high - low) · u,   u = (word >> 8) · 2^-24, the product and the sum rounded one after the other
    normal:   Box and Muller's pairs

The layout of the words is in ``fastgan.kernels.common.philox``. Uniforms in [0, 1) are the same bits on every backend;
normals agree to rounding.
"""

from __future__ import annotations

from fastgan.kernels.common.arrays import Array, Counter, require_array
from fastgan.kernels.common.backends import implementation


def uniform(
    out: Array,
    *,
    low: float,
    high: float,
    seed: int,
    stream: int,
    step: Counter = 0,
    row_offset: int = 0,
    backend: str = "auto",
) -> Array:
    """Fill ``out`` with uniform noise in [low, high).

    Parameters
    ----------
    out : (B, Z) float32 or float64
        Where the noise goes.
    low, high : float
        The range; ``high`` itself can be reached by rounding only.
    seed, stream : int
        Key and stream (``philox.stream_id``).
    step : int or (1,) int64
        The step; an array is read when the operation runs.
    row_offset : int
        Number of the first row.
    backend : str
        As for ``backends.resolve``.

    Returns
    -------
    (B, Z) array
        ``out``.
    """
    require_array("out", out, (None, None))
    if not low <= high:
        raise ValueError(f"low is {low} and high {high}; low must not be greater")
    implementation(__name__, backend, out=out).uniform(out, low, high, seed, stream, step, row_offset)
    return out


def normal(
    out: Array, *, seed: int, stream: int, step: Counter = 0, row_offset: int = 0, backend: str = "auto"
) -> Array:
    """Fill ``out`` with standard normal noise.

    Parameters
    ----------
    out : (B, Z) float32 or float64
        Where the noise goes.
    seed, stream, step, row_offset, backend
        As for ``uniform``.

    Returns
    -------
    (B, Z) array
        ``out``.
    """
    require_array("out", out, (None, None))
    implementation(__name__, backend, out=out).normal(out, seed, stream, step, row_offset)
    return out
