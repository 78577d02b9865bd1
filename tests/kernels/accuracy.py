"""Tolerances that are measured: an error is held against that of plain float32 NumPy on the same numbers."""

import numpy as np


def rms(array):
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def assert_as_exact(result, exact, plain, factor=2.0, floor=1e-7):
    """Hold ``result`` against the float64 ``exact``: its rms error at most ``factor`` times that of ``plain``, and a
    floor relative to the rms of ``exact``: about one rounding of float32, where plain NumPy is right by chance. Of few
    numbers it may be right altogether, so that its error measures nothing: there the floor is eight roundings.
    """
    if exact.size < 16:
        floor = max(floor, 5e-7)
    assert result.shape == exact.shape
    # First of all: a NaN must never pass a comparison.
    assert np.isfinite(result).all()
    error, plain_error = rms(result - exact), rms(plain - exact)
    assert error <= factor * plain_error + floor * rms(exact), (error, plain_error)
