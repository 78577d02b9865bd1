"""The noise as Numba CUDA kernels: (B, Z) numbers, four a thread, which are the four words of one counter.

    uniform:  low + (high - low) · u;     normal: Box and Muller's pairs, in float64

Float32 uniforms have the reference's bits, [0, 1) ones in float64 too; scaled ones in float64 are within a rounding.
Writes 4·B·Z bytes; about 100 integer operations a counter, and for normals 2 logarithms, roots, sines and cosines.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common.arrays import Array, Counter
from fastgan.kernels.common.numba_philox import draw, top24, words
from fastgan.kernels.common.numba_runtime import cuda, device_function, kernel

# Counters of a row, and rows.
_BLOCK = (32, 4)
_UNIT = 2.0**-24


def uniform(out: Array, low: float, high: float, seed: int, stream: int, step: Counter, row_offset: int) -> None:
    """Fill ``out`` with uniforms in [low, high)."""
    number = out.dtype.type
    runtime.launch(
        _uniform, _grid(out), _BLOCK,
        *draw(seed, stream, step, row_offset), number(low), number(high - low), out,
    )  # fmt: skip


def normal(out: Array, seed: int, stream: int, step: Counter, row_offset: int) -> None:
    """Fill ``out`` with standard normals; in float64, rounded once at the end."""
    runtime.launch(_normal, _grid(out), _BLOCK, *draw(seed, stream, step, row_offset), out)


def _grid(array: Array) -> tuple[int, int]:
    num_rows, num_columns = array.shape
    return runtime.divide_up(num_columns, 4 * _BLOCK[0]), runtime.divide_up(num_rows, _BLOCK[1])


@device_function
def _uniform01(word: Any) -> Any:
    return np.float64(top24(word)) * _UNIT


@device_function
def _scaled(word: Any, low: Any, width: Any) -> Any:
    # The product of two float32 is exact in float64; its rounding to float32 stands between it and the sum, which the
    # compiler would otherwise join into one operation with one rounding.
    return type(low)(_uniform01(word) * np.float64(width)) + low


@kernel
def _uniform(draw: Any, step: Any, low: Any, width: Any, out: Any) -> None:
    quad, row = cuda.grid(2)
    column = 4 * quad
    if row < out.shape[0] and column < out.shape[1]:
        w0, w1, w2, w3 = words(draw, step, row, quad)
        out[row, column] = _scaled(w0, low, width)
        if column + 1 < out.shape[1]:
            out[row, column + 1] = _scaled(w1, low, width)
        if column + 2 < out.shape[1]:
            out[row, column + 2] = _scaled(w2, low, width)
        if column + 3 < out.shape[1]:
            out[row, column + 3] = _scaled(w3, low, width)


@device_function
def _store_pair(word_u: Any, word_v: Any, row: Any, column: Any, out: Any) -> None:
    if column < out.shape[1]:
        # From (0, 1], so that the logarithm is finite.
        radius = math.sqrt(-2.0 * math.log(_uniform01(word_u) + _UNIT))
        angle = 2.0 * math.pi * _uniform01(word_v)
        out[row, column] = radius * math.cos(angle)
        if column + 1 < out.shape[1]:
            out[row, column + 1] = radius * math.sin(angle)


@kernel
def _normal(draw: Any, step: Any, out: Any) -> None:
    quad, row = cuda.grid(2)
    if row < out.shape[0] and 4 * quad < out.shape[1]:
        w0, w1, w2, w3 = words(draw, step, row, quad)
        _store_pair(w0, w1, row, 4 * quad, out)
        _store_pair(w2, w3, row, 4 * quad + 2, out)
