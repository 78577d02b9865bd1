"""Philox4x32-10 within compiled loops: the words that ``fastgan.kernels.common.philox`` defines, a row at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint32, uint64

from fastgan.kernels.common.arrays import Counter, read_counter
from fastgan.kernels.common.loops import inlined

_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint32(0x9E3779B9)
_W1 = np.uint32(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
# Counters that a row is padded to a multiple of: the widest vector's lanes, so that none is done by itself.
_LANES = 16


def draw(seed: int, stream: int, step: Counter, row_offset: int) -> tuple[np.uint32, ...]:
    """Give what decides the words of rows as the five numbers that ``row_words`` takes after the row's own."""
    numbers = (row_offset, read_counter(step), stream, seed, seed >> 32)
    return tuple(np.uint32(number & 0xFFFFFFFF) for number in numbers)


@inlined
def _round(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    # All in 64 bits whose upper halves LLVM can see to be zero: so it multiplies 8 or 16 pairs with one instruction.
    p0 = c0 * _M0
    p1 = c2 * _M1
    return (p1 >> _32) ^ c1 ^ uint64(k0), p1 & _LOW, (p0 >> _32) ^ c3 ^ uint64(k1), p0 & _LOW


@inlined
def _encrypted(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    # Written out, since LLVM vectorises the loop over counters only where it has no loop in it: 9 times as fast.
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    k0, k1 = uint32(k0 + _W0), uint32(k1 + _W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    k0, k1 = uint32(k0 + _W0), uint32(k1 + _W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    k0, k1 = uint32(k0 + _W0), uint32(k1 + _W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    k0, k1 = uint32(k0 + _W0), uint32(k1 + _W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    k0, k1 = uint32(k0 + _W0), uint32(k1 + _W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    k0, k1 = uint32(k0 + _W0), uint32(k1 + _W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    k0, k1 = uint32(k0 + _W0), uint32(k1 + _W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    k0, k1 = uint32(k0 + _W0), uint32(k1 + _W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    k0, k1 = uint32(k0 + _W0), uint32(k1 + _W1)
    return _round(c0, c1, c2, c3, k0, k1)


@inlined
def word0(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Encrypt one counter, whose words and key are uint32, and give the first word that comes out."""
    word, _, _, _ = _encrypted(
        uint64(uint32(c0)), uint64(uint32(c1)), uint64(uint32(c2)), uint64(uint32(c3)), uint32(k0), uint32(k1)
    )
    return uint32(word)


@inlined
def new_row(num_columns: Any) -> Any:
    """Make the scratch of ``row_words``: the row's words, then the four words of each counter apart."""
    num_counters = -(-num_columns // (4 * _LANES)) * _LANES
    return np.empty((2, 4 * num_counters), np.uint32)


@inlined
def row_words(scratch: Any, row: Any, row_offset: Any, step: Any, stream: Any, k0: Any, k1: Any) -> Any:
    """Draw the words of row ``row_offset + row``; they are ``scratch[0]``, which is returned."""
    words = scratch[0]
    n = words.shape[0] // 4
    w0, w1, w2, w3 = scratch[1, :n], scratch[1, n : 2 * n], scratch[1, 2 * n : 3 * n], scratch[1, 3 * n :]
    r, t, s = uint64(uint32(row_offset + row)), uint64(uint32(step)), uint64(uint32(stream))
    for q in range(n):
        c0, c1, c2, c3 = _encrypted(uint64(uint32(q)), r, t, s, uint32(k0), uint32(k1))
        w0[q], w1[q], w2[q], w3[q] = c0, c1, c2, c3
    # Put in order by a loop of its own: stores four apart in the first one take half as long again.
    for q in range(n):
        words[4 * q], words[4 * q + 1], words[4 * q + 2], words[4 * q + 3] = w0[q], w1[q], w2[q], w3[q]
    return words
