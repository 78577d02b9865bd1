"""The definition of the maximum over windows, in NumPy: a pass over the whole batch for every place in a window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array


def forward(x_BCHW: Array, size: int, stride: int, out: Array, out_places: NDArray[np.uint8]) -> None:
    """Write y and the places."""
    out[...] = x_BCHW[:, :, : (out.shape[2] - 1) * stride + 1 : stride, : (out.shape[3] - 1) * stride + 1 : stride]
    out_places.fill(0)
    for k in range(size):
        for l in range(size):
            x = x_BCHW[:, :, k::stride, l::stride][:, :, : out.shape[2], : out.shape[3]]
            # Windows at the edge have no such place where x has fewer rows or columns.
            best, places = (array[:, :, : x.shape[2], : x.shape[3]] for array in (out, out_places))
            # Not (x <= best) is true for a greater one and for NaN on either side; what is NaN stays.
            wins = ~(x <= best) & (best == best)
            np.copyto(best, x, where=wins)
            np.copyto(places, np.uint8(k * size + l), where=wins)


def backward(dy_BCHW: Array, places_BCHW: NDArray[np.uint8], size: int, stride: int, out: Array) -> None:
    """Write dx into ``out``."""
    out.fill(0)
    for k in range(size):
        for l in range(size):
            dx = out[:, :, k::stride, l::stride][:, :, : dy_BCHW.shape[2], : dy_BCHW.shape[3]]
            dy, places = (array[:, :, : dx.shape[2], : dx.shape[3]] for array in (dy_BCHW, places_BCHW))
            np.add(dx, dy, out=dx, where=places == k * size + l)
