"""The definition of an epoch's order and of a minibatch, in NumPy."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import philox
from fastgan.kernels.common.arrays import Array, Counter, read_counter

NUM_FEISTEL_ROUNDS = 8
# A block of the order costs hardly more than a batch of it in NumPy, whose calls, not the arithmetic, take the time.
_BLOCK = 8192


def order(num_rows: int, seed: int, epoch: int, start: int, count: int) -> NDArray[np.int64]:
    """Give the row numbers at places start … start + count - 1."""
    first, last = start // _BLOCK, (start + count - 1) // _BLOCK
    blocks = [_block(num_rows, seed, epoch, index) for index in range(first, last + 1)]
    joined = blocks[0] if len(blocks) == 1 else np.concatenate(blocks) if blocks else np.empty(0, np.int64)
    return joined[start - first * _BLOCK :][:count]


def rows(
    data_ND: Array, divisor: float, out: Array, seed: int, epoch: Counter, start: Counter, start_offset: int
) -> None:
    """Gather and divide."""
    indices = order(len(data_ND), seed, read_counter(epoch), read_counter(start) + start_offset, len(out))
    np.divide(data_ND[indices], out.dtype.type(divisor), out=out)


@lru_cache(maxsize=4)
def _block(num_rows: int, seed: int, epoch: int, index: int) -> NDArray[np.int64]:
    places = np.arange(index * _BLOCK, min((index + 1) * _BLOCK, num_rows), dtype=np.uint32)
    result = _feistel(places, num_rows, seed, epoch)
    outside = result >= num_rows
    while outside.any():
        result[outside] = _feistel(result[outside], num_rows, seed, epoch)
        outside = result >= num_rows
    block = result.astype(np.int64)
    block.setflags(write=False)
    return block


def _feistel(places: NDArray[np.uint32], num_rows: int, seed: int, epoch: int) -> NDArray[np.uint32]:
    bits = max(2, (num_rows - 1).bit_length())
    right_bits = bits - bits // 2
    left_mask, right_mask = np.uint32((1 << (bits // 2)) - 1), np.uint32((1 << right_bits) - 1)
    left, right = places >> np.uint32(right_bits), places & right_mask
    counters = np.empty((len(places), 4), np.uint32)
    counters[:, 2] = epoch
    counters[:, 3] = philox.stream_id(philox.Purpose.ORDER)
    key = (seed & 0xFFFFFFFF, seed >> 32)
    for number in range(NUM_FEISTEL_ROUNDS):
        counters[:, 0] = right if number % 2 == 0 else left
        counters[:, 1] = number
        random = philox.philox4x32(counters, key)[:, 0]
        if number % 2 == 0:
            left = left ^ (random & left_mask)
        else:
            right = right ^ (random & right_mask)
    return (left << np.uint32(right_bits)) | right
