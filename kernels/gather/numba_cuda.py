"""An epoch's order and a minibatch as Numba CUDA kernels.

    out[b] = data[order(start + b)] / divisor        (B, D)

Reads B·D bytes of uint8 (4·B·D of float32), writes 4·B·D; a block gathers one row, whose number its first thread finds:
8 encryptions, and 8 more for each walk beyond the last row (fewer than 4 walks, 2 on average at worst).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common import philox
from fastgan.kernels.common.arrays import Array, Counter
from fastgan.kernels.common.numba_philox import encrypted
from fastgan.kernels.common.numba_runtime import cuda, device_function, kernel

_THREADS = 128
_ROUNDS = 8
_STREAM = np.uint64(philox.stream_id(philox.Purpose.ORDER))
_LOW = np.uint64(0xFFFFFFFF)


class _Order(NamedTuple):
    """What decides an order, but for the parts of epoch and place that are on the device."""

    k0: np.uint32
    k1: np.uint32
    right_bits: np.uint32
    left_mask: np.uint32
    right_mask: np.uint32


def order(num_rows: int, seed: int, epoch: int, start: int, count: int) -> NDArray[np.int64]:
    """Give the row numbers at places start … start + count - 1; they stay on the device."""
    result = runtime.empty((count,), np.int64)
    runtime.launch(
        _order, (runtime.divide_up(count, _THREADS),), (_THREADS,),
        np.int64(num_rows), _numbers(num_rows, seed), *_both(epoch), *_both(start), result,
    )  # fmt: skip
    return result


def rows(
    data_ND: Array, divisor: float, out: Array, seed: int, epoch: Counter, start: Counter, start_offset: int
) -> None:
    """Gather and divide."""
    runtime.launch(
        _rows, (out.shape[0],), (_THREADS,),
        data_ND, out.dtype.type(divisor), _numbers(data_ND.shape[0], seed),
        *_both(epoch), *_both(start, start_offset), out,
    )  # fmt: skip


def _numbers(num_rows: int, seed: int) -> _Order:
    bits = max(2, (num_rows - 1).bit_length())
    right_bits = bits - bits // 2
    numbers = (seed & 0xFFFFFFFF, seed >> 32, right_bits, (1 << (bits // 2)) - 1, (1 << right_bits) - 1)
    return _Order(*(np.uint32(number) for number in numbers))


def _both(value: Counter, more: int = 0) -> tuple[Array, np.int64]:
    on_device, on_host = runtime.counter(value)
    return on_device, np.int64(on_host + more)


@device_function
def _word(half: Any, number: Any, epoch: Any, order: Any) -> Any:
    word, _, _, _ = encrypted(
        np.uint64(half), np.uint64(number), epoch, _STREAM, np.uint64(order.k0), np.uint64(order.k1)
    )
    return np.int64(word)


@device_function
def _row(place: Any, num_rows: Any, order: Any, epoch: Any) -> Any:
    """Send a place through the Feistel network until it lands on a row."""
    right_bits = np.int64(order.right_bits)
    left_mask, right_mask = np.int64(order.left_mask), np.int64(order.right_mask)
    of_epoch = np.uint64(epoch) & _LOW
    place = np.int64(place)
    while True:
        left, right = place >> right_bits, place & right_mask
        for number in range(0, _ROUNDS, 2):
            left ^= _word(right, number, of_epoch, order) & left_mask
            right ^= _word(left, number + 1, of_epoch, order) & right_mask
        place = (left << right_bits) | right
        if place < num_rows:
            return place


@kernel
def _order(num_rows: Any, order: Any, epoch: Any, more_epoch: Any, start: Any, more_start: Any, result: Any) -> None:
    i = cuda.blockIdx.x * _THREADS + cuda.threadIdx.x
    if i < result.shape[0]:
        result[i] = _row(start[0] + more_start + i, num_rows, order, epoch[0] + more_epoch)


@kernel
def _rows(
    data: Any, divisor: Any, order: Any, epoch: Any, more_epoch: Any, start: Any, more_start: Any, out: Any
) -> None:
    number = cuda.shared.array(1, np.int64)
    b = cuda.blockIdx.x
    if cuda.threadIdx.x == 0:
        number[0] = _row(start[0] + more_start + b, data.shape[0], order, epoch[0] + more_epoch)
    cuda.syncthreads()
    for d in range(cuda.threadIdx.x, out.shape[1], _THREADS):
        out[b, d] = out.dtype.type(data[number[0], d]) / divisor
