"""An epoch's order and a minibatch in compiled loops: each row finds its own number, whatever came before it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import philox
from fastgan.kernels.common.arrays import Array, Counter, read_counter
from fastgan.kernels.common.loops import inlined, loop, prange
from fastgan.kernels.common.philox_loops import word0

_NUM_FEISTEL_ROUNDS = 8
_STREAM = np.uint32(philox.stream_id(philox.Purpose.ORDER))
# What a row's number costs, in elements of a simple pass: 8 encryptions or more.
_COST = 256


def order(num_rows: int, seed: int, epoch: int, start: int, count: int) -> NDArray[np.int64]:
    """Give the row numbers at places start … start + count - 1."""
    result = np.empty(count, np.int64)
    _order(result, num_rows, _bits(num_rows), start, *_key(seed, epoch), size=_COST * count)
    return result


def rows(
    data_ND: Array, divisor: float, out: Array, seed: int, epoch: Counter, start: Counter, start_offset: int
) -> None:
    """Gather and divide."""
    _rows(
        data_ND, out.dtype.type(divisor), out, _bits(len(data_ND)), read_counter(start) + start_offset,
        *_key(seed, read_counter(epoch)), size=_COST * len(out) + out.size,
    )  # fmt: skip


def _bits(num_rows: int) -> int:
    return max(2, (num_rows - 1).bit_length())


def _key(seed: int, epoch: int) -> tuple[np.uint32, np.uint32, np.uint32]:
    return np.uint32(epoch & 0xFFFFFFFF), np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32)


@inlined
def _row(place: Any, num_rows: Any, bits: Any, epoch: Any, k0: Any, k1: Any) -> Any:
    """Send a place through the Feistel network until it lands on a row."""
    right_bits = bits - bits // 2
    left_mask, right_mask = (1 << (bits // 2)) - 1, (1 << right_bits) - 1
    while True:
        left, right = place >> right_bits, place & right_mask
        for number in range(0, _NUM_FEISTEL_ROUNDS, 2):
            left ^= np.int64(word0(right, number, epoch, _STREAM, k0, k1)) & left_mask
            right ^= np.int64(word0(left, number + 1, epoch, _STREAM, k0, k1)) & right_mask
        place = (left << right_bits) | right
        if place < num_rows:
            return place


@loop
def _order(result: Any, num_rows: Any, bits: Any, start: Any, epoch: Any, k0: Any, k1: Any) -> None:
    for i in prange(result.shape[0]):
        result[i] = _row(start + i, num_rows, bits, epoch, k0, k1)


@loop
def _rows(data: Any, divisor: Any, out: Any, bits: Any, start: Any, epoch: Any, k0: Any, k1: Any) -> None:
    for b in prange(out.shape[0]):
        row_D, out_D = data[_row(start + b, data.shape[0], bits, epoch, k0, k1)], out[b]
        for d in range(out.shape[1]):
            out_D[d] = out.dtype.type(row_D[d]) / divisor
