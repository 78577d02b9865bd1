"""A minibatch of the data: the epoch's order as a keyed bijection, and the rows it names.

    order(i) = a Feistel network over Philox on 0 … 2^bits - 1, walked until it lands below n

With bits = max(2, ceil(log2 n)), a left half of bits // 2 bits and a right half of the rest, there are 8 rounds: even
ones xor the left half, odd ones the right half, with word 0 of the counter (other half, round, epoch, stream of purpose
ORDER) under the run's seed, cut to the half's bits. Each round is its own inverse, so the whole is a bijection; walking
keeps it one on 0 … n - 1. No sort, no table, any place of any epoch by itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, Counter, require_array
from fastgan.kernels.common.backends import implementation

_STORED = (np.dtype(np.uint8), np.dtype(np.float32))


def order(num_rows: int, *, seed: int, epoch: int, start: int, count: int, backend: str = "auto") -> NDArray[np.int64]:
    """Give places ``start`` to ``start + count - 1`` of an epoch's order.

    Parameters
    ----------
    num_rows : int
        n, 1 to 2^31.
    seed : int
        The run's seed.
    epoch : int
        The epoch, from 1.
    start, count : int
        Which places; ``start + count <= num_rows``.
    backend : str
        The same order on every one.

    Returns
    -------
    (count,) int64
        Row numbers, all different.
    """
    if not 1 <= num_rows <= 2**31:
        raise ValueError(f"num_rows is {num_rows}; it must be 1 to 2^31")
    if not 0 <= start <= start + count <= num_rows:
        raise ValueError(
            f"places {start} to {start + count} are asked for; an epoch of {num_rows} rows has no such places"
        )
    result: NDArray[np.int64] = implementation(__name__, backend).order(num_rows, seed, epoch, start, count)
    return result


def rows(
    data_ND: Array,
    divisor: float,
    out: Array,
    *,
    seed: int,
    epoch: Counter,
    start: Counter,
    start_offset: int = 0,
    backend: str = "auto",
) -> Array:
    """Gather the next rows of an epoch's order as floats.

    Parameters
    ----------
    data_ND : (N, D) uint8 or float32
        The data as they are stored.
    divisor : float
        What uint8 values are divided by, > 0; 1 for float32.
    out : (B, D) float32 or float64
        Where ``data[order(start + start_offset + b)] / divisor`` goes.
    seed : int
        The run's seed.
    epoch, start : int or (1,) int64
        The epoch and the place in it; arrays are read when the operation runs.
    start_offset : int
        Added to ``start``: a sub-step's place in its step.
    backend : str
        As for ``backends.resolve``.

    Returns
    -------
    (B, D) array
        ``out``.
    """
    require_array("data", data_ND, (None, None), _STORED)
    require_array("out", out, (None, data_ND.shape[1]))
    if not divisor > 0:
        raise ValueError(f"divisor is {divisor}; it must be > 0")
    implementation(__name__, backend, data=data_ND, out=out).rows(
        data_ND, divisor, out, seed, epoch, start, start_offset
    )
    return out
