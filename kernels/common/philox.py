"""Philox4x32-10 and the layout of its counters: randomness as a function of (seed, stream, step, row, column).

The generator is that of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

Layout, written down here once and kept by every backend:

- key = the run's seed, 64 bits: low word, high word.
- counter = (column // 4, row, step, stream); the element's word is number ``column % 4`` of the four that come out.
- stream = purpose · 2^24 + layer · 2^16 + sub-step (``stream_id``).
- a [0, 1) uniform is (word >> 8) · 2^-24, exact in float32.
- a dropout mask keeps where (word >> 8) < ceil(keep · 2^24).
- normals come in pairs of columns (0, 1) and (2, 3) of a counter, by Box and Muller: with u = ((w_even >> 8) + 1) ·
  2^-24
  and v = (w_odd >> 8) · 2^-24, r = sqrt(-2 ln u): the even column is r cos 2πv, the odd one r sin 2πv.
- rows of D's joined batch count on: real 0 … B-1, generated B … 2B-1.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Counter, read_counter

NUM_ROUNDS = 10
_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = 0x9E3779B9
_W1 = 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
# Counters are done in blocks whose working arrays (six of 8 bytes a counter) stay in a core's own cache.
_BLOCK = 4096


class Purpose(IntEnum):
    """What a stream of random words is for: the top 8 bits of its number. Never renumber: runs depend on them."""

    NOISE = 0
    DROPOUT = 1
    ORDER = 2
    GENERATOR_WEIGHTS = 3
    DISCRIMINATOR_WEIGHTS = 4
    SAMPLES = 5


def stream_id(purpose: Purpose, layer: int = 0, substep: int = 0) -> int:
    """Number a stream.

    Parameters
    ----------
    purpose : Purpose
        What the words are for.
    layer : int
        Index of the layer in its network, 0 to 255.
    substep : int
        Sub-step of the training step (0 to k), 0 to 65535.

    Returns
    -------
    int
        ``purpose · 2^24 + layer · 2^16 + substep``.
    """
    if not 0 <= layer <= 255:
        raise ValueError(f"layer is {layer}; it must be 0 to 255, the 8 bits that a stream's number has for it")
    if not 0 <= substep <= 65535:
        raise ValueError(f"substep is {substep}; it must be 0 to 65535, the 16 bits that a stream's number has for it")
    return (int(purpose) << 24) | (layer << 16) | substep


def philox4x32(counters: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Encrypt counters: the bare generator.

    Parameters
    ----------
    counters : (n, 4) uint32
        One counter a row.
    key : two ints
        The key's two 32-bit words.

    Returns
    -------
    (n, 4) uint32
        Four random words a counter.
    """
    out = np.empty((len(counters), 4), np.uint32)
    for start in range(0, len(counters), _BLOCK):
        block = np.ascontiguousarray(counters[start : start + _BLOCK].T, dtype=np.uint64)
        _encrypt(block, key, np.empty((2, block.shape[1]), np.uint64))
        out[start : start + _BLOCK] = block.T
    return out


def words(
    num_rows: int, num_columns: int, *, seed: int, stream: int, step: Counter = 0, row_offset: int = 0
) -> NDArray[np.uint32]:
    """Draw the words of a (rows, columns) array by the layout above.

    Parameters
    ----------
    num_rows, num_columns : int
        The array's shape.
    seed : int
        The key, 0 to 2^64 - 1.
    stream : int
        The stream's number, from ``stream_id``.
    step : int or (1,) int64
        The training step; 0 to 2^32 - 1.
    row_offset : int
        The number of the first row.

    Returns
    -------
    (num_rows, num_columns) uint32
        A view of an array whose rows are padded to a multiple of four words.
    """
    num_quads = -(-num_columns // 4)
    out = np.empty((num_rows, num_quads, 4), np.uint32)
    quads = np.arange(num_quads, dtype=np.uint64)
    key = (seed & 0xFFFFFFFF, seed >> 32)
    rows_a_block = max(1, _BLOCK // max(num_quads, 1))
    buffer = np.empty((4, rows_a_block, num_quads), np.uint64)
    scratch = np.empty((2, rows_a_block, num_quads), np.uint64)
    for start in range(0, num_rows, rows_a_block):
        block = buffer[:, : min(rows_a_block, num_rows - start)]
        block[0] = quads
        block[1] = np.arange(row_offset + start, row_offset + start + block.shape[1], dtype=np.uint64)[:, None]
        block[2] = np.uint64(read_counter(step) & 0xFFFFFFFF)
        block[3] = np.uint64(stream)
        _encrypt(block, key, scratch[:, : block.shape[1]])
        out[start : start + block.shape[1]] = np.moveaxis(block, 0, -1)
    return out.reshape(num_rows, num_quads * 4)[:, :num_columns]


def uniform01(random_words: NDArray[np.uint32], dtype: type[np.floating] = np.float32) -> NDArray[np.floating]:
    """Turn words into uniforms in [0, 1): the top 24 bits over 2^24, exact in float32."""
    uniforms: NDArray[np.floating] = (random_words >> np.uint32(8)).astype(dtype) * dtype(2.0**-24)
    return uniforms


def keep_threshold(keep: float) -> int:
    """Give the number of 24-bit values that a dropout mask keeps: ceil(keep · 2^24), 1 to 2^24."""
    return int(np.ceil(keep * 2.0**24))


def _encrypt(c: NDArray[np.uint64], key: tuple[int, int], scratch: NDArray[np.uint64]) -> None:
    """Run the ten rounds in place on ``c`` (4, ...), whose values fit 32 bits; ``scratch`` is (2, ...)."""
    k0, k1 = key
    p0, p1 = scratch
    c0, c1, c2, c3 = c
    for _ in range(NUM_ROUNDS):
        np.multiply(c0, _M0, out=p0)
        np.multiply(c2, _M1, out=p1)
        np.right_shift(p1, _32, out=c0)
        np.bitwise_xor(c0, c1, out=c0)
        np.bitwise_xor(c0, np.uint64(k0), out=c0)
        np.bitwise_and(p1, _LOW, out=c1)
        np.right_shift(p0, _32, out=c2)
        np.bitwise_xor(c2, c3, out=c2)
        np.bitwise_xor(c2, np.uint64(k1), out=c2)
        np.bitwise_and(p0, _LOW, out=c3)
        k0 = (k0 + _W0) & 0xFFFFFFFF
        k1 = (k1 + _W1) & 0xFFFFFFFF
