"""Philox4x32-10 within Numba's kernels: the words that ``fastgan.kernels.common.philox`` defines, four at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common import philox
from fastgan.kernels.common.arrays import Array, Counter
from fastgan.kernels.common.numba_runtime import device_function

# In 64 bits throughout, as the simulator's 32-bit words would warn when they overflow; the compiler sees that the upper
# halves are zero.
_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_8 = np.uint32(8)


class Draw(NamedTuple):
    """What decides an array of words, but for the part of the step that is on the device."""

    k0: np.uint32
    k1: np.uint32
    stream: np.uint32
    row_offset: np.uint32
    step: np.uint32


def draw(seed: int, stream: int, step: Counter, row_offset: int) -> tuple[Draw, Array]:
    """Give a kernel's two arguments: the numbers, and the step's element on the device, which is added to theirs."""
    on_device, on_host = runtime.counter(step)
    numbers = (seed, seed >> 32, stream, row_offset, on_host)
    return Draw(*(np.uint32(number & 0xFFFFFFFF) for number in numbers)), on_device


@device_function
def encrypted(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Encrypt a counter under a key, all uint64 below 2^32, and give the four words as uint32."""
    for _ in range(philox.NUM_ROUNDS):
        p0 = c0 * _M0
        p1 = c2 * _M1
        c0 = (p1 >> _32) ^ c1 ^ k0
        c1 = p1 & _LOW
        c2 = (p0 >> _32) ^ c3 ^ k1
        c3 = p0 & _LOW
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return np.uint32(c0), np.uint32(c1), np.uint32(c2), np.uint32(c3)


@device_function
def words(draw: Any, step: Any, row: Any, quad: Any) -> Any:
    """Give the words of the columns 4·quad … 4·quad + 3 of a row; ``step`` is the element on the device."""
    return encrypted(
        np.uint64(quad),
        np.uint64(row + np.int64(draw.row_offset)) & _LOW,
        np.uint64(step[0] + np.int64(draw.step)) & _LOW,
        np.uint64(draw.stream),
        np.uint64(draw.k0),
        np.uint64(draw.k1),
    )


@device_function
def top24(word: Any) -> Any:
    """Give the 24 bits of a word that masks and uniforms are made from."""
    return word >> _8
