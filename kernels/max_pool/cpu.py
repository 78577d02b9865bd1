"""The maximum over windows in compiled loops."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.loops import Loop, loop, prange


def forward(x_BCHW: Array, size: int, stride: int, out: Array, out_places: NDArray[np.uint8]) -> None:
    """Write y and the places."""
    _max_over(size, stride)(_planes(x_BCHW), _planes(out), _planes(out_places), size=out.size * size * size)


def backward(dy_BCHW: Array, places_BCHW: NDArray[np.uint8], size: int, stride: int, out: Array) -> None:
    """Write dx into ``out``."""
    _give_back(_planes(dy_BCHW), _planes(places_BCHW), size, stride, _planes(out), size=out.size)


def _planes(array_BCHW: Array) -> Array:
    return array_BCHW.reshape(-1, *array_BCHW.shape[2:])


@cache
def _max_over(window: int, stride: int) -> Loop:
    """Compile the maximum for one kind of windows.

    A row of windows is taken place by place, so that vectors hold windows: with size and stride known LLVM loads every
    so-many-th pixel at once.
    """

    def max_over_windows(x: Any, out: Any, out_places: Any) -> None:
        height, width = x.shape[1], x.shape[2]
        for plane in prange(x.shape[0]):
            for i in range(out.shape[1]):
                best_W, places_W = out[plane, i], out_places[plane, i]
                for k in range(min(window, height - i * stride)):
                    x_W = x[plane, i * stride + k]
                    for l in range(window):
                        # Windows that reach over the edge do not have all places.
                        for j in range(min(out.shape[2], (width - 1 - l) // stride + 1)):
                            value, best = x_W[j * stride + l], best_W[j]
                            # Not (value <= best) is true for a greater one and for NaN on either side; what is NaN
                            # stays.
                            wins = (not value <= best) & (best == best) | (k + l == 0)
                            best_W[j] = value if wins else best
                            places_W[j] = np.uint8(k * window + l) if wins else places_W[j]

    return Loop(max_over_windows)


@loop
def _give_back(dy: Any, places: Any, window: Any, stride: Any, out: Any) -> None:
    for plane in prange(dy.shape[0]):
        out[plane] = 0
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                place = np.int64(places[plane, i, j])
                out[plane, i * stride + place // window, j * stride + place % window] += dy[plane, i, j]
