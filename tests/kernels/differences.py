"""Central differences along random directions: checks of gradients that need two evaluations, not one a parameter."""

import numpy as np


def directional(function, arrays, directions, epsilon=1e-5):
    """Differentiate ``function()`` with respect to ``arrays``, changed in place, along ``directions``."""
    values = []
    for sign in (1.0, -1.0):
        for array, direction in zip(arrays, directions, strict=True):
            array += sign * epsilon * direction
        values.append(function())
        for array, direction in zip(arrays, directions, strict=True):
            array -= sign * epsilon * direction
    return (values[0] - values[1]) / (2 * epsilon)


def assert_gradient(function, arrays, gradients, rng, relative=1e-6, epsilon=1e-5):
    """Compare gradients with central differences of ``function()`` along three random directions.

    Test functions must be smooth at the point: no tie of pieces and no unit at a kink. The more units, the nearer is
    one to a kink, and the smaller ``epsilon`` must be.
    """
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    for _ in range(3):
        directions = [rng.normal(size=array.shape) for array in arrays]
        expected = directional(function, arrays, directions, epsilon)
        found = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        scale = sum(float(np.sqrt((g**2).sum())) for g in gradients)
        assert abs(found - expected) <= relative * max(scale, 1e-3), (found, expected)
