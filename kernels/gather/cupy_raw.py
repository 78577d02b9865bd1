"""Launches of ``gather.cu``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import arguments
from fastgan.kernels.common.arrays import Array, Counter
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch, runtime
from fastgan.kernels.common.philox import Purpose, stream_id

_ORDER: Final = Kernel("gather/gather.cu", "gather_order")
_ROWS: Final = {
    np.dtype(np.uint8): Kernel("gather/gather.cu", "gather_rows<byte>"),
    np.dtype(np.float32): Kernel("gather/gather.cu", "gather_rows<float>"),
}


def order(num_rows: int, seed: int, epoch: int, start: int, count: int) -> NDArray[np.int64]:
    """Give the row numbers at places start … start + count - 1, an array of the device."""
    out: NDArray[np.int64] = runtime().empty((count,), np.int64)
    if count:
        launch(
            _ORDER, (-(-count // _ORDER.threads), 1, 1),
            out=out, count=np.int32(count), start=np.int64(start), **_order(num_rows, seed, epoch),
        )  # fmt: skip
    return out


def rows(
    data_ND: Array, divisor: float, out: Array, seed: int, epoch: Counter, start: Counter, start_offset: int
) -> None:
    """Gather and divide."""
    arguments.require_float32(out=out)
    if out.size:
        launch(
            _ROWS[data_ND.dtype], (len(out), 1, 1),
            data=data_ND, out=out, D=np.int32(out.shape[1]), divisor=np.float32(divisor),
            **arguments.counter("start", start), start_offset=np.int64(start_offset),
            **_order(len(data_ND), seed, epoch),
        )  # fmt: skip


def _order(num_rows: int, seed: int, epoch: Counter) -> dict[str, Any]:
    """``ORDER_PARAMETERS`` of gather.cu."""
    bits = max(2, (num_rows - 1).bit_length())
    right_bits = bits - bits // 2
    return {
        "num_rows": np.uint32(num_rows), "right_bits": np.uint32(right_bits),
        "left_mask": np.uint32((1 << (bits // 2)) - 1), "right_mask": np.uint32((1 << right_bits) - 1),
        "k0": np.uint32(seed & 0xFFFFFFFF), "k1": np.uint32(seed >> 32),
        "stream": np.uint32(stream_id(Purpose.ORDER)), **arguments.counter("epoch", epoch),
    }  # fmt: skip
