"""Arguments that many kernels share, as ``launcher.launch`` takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgan.kernels.common.arrays import Array, Counter, Rate
from fastgan.kernels.common.philox import keep_threshold
from fastgan.kernels.dropout import Dropout

_LOW = 0xFFFFFFFF


def require_float32(**arrays: Array | None) -> None:
    """Raise unless all are float32.

    Raises
    ------
    TypeError
        One is not; the sentence names it.
    """
    for name, array in arrays.items():
        if array is not None and array.dtype != np.float32:
            raise TypeError(f"{name} has dtype {array.dtype}; the backend cupy computes in float32")


def counter(name: str, value: Counter) -> dict[str, Any]:
    """A counter: where it is on the device, or its value."""
    if isinstance(value, int):
        return {f"{name}_at": None, name: np.int64(value)}
    return {f"{name}_at": value, name: np.int64(0)}


def draw(seed: int, stream: int, step: Counter, row_offset: int) -> dict[str, Any]:
    """``DRAW_PARAMETERS`` of philox.cuh."""
    at, now = (None, step & _LOW) if isinstance(step, int) else (step, 0)
    return {
        "k0": np.uint32(seed & _LOW), "k1": np.uint32(seed >> 32), "stream": np.uint32(stream),
        "row_offset": np.uint32(row_offset), "step_at": at, "step": np.uint32(now),
    }  # fmt: skip


def mask(dropout: Dropout) -> dict[str, Any]:
    """``MASK_PARAMETERS`` of philox.cuh."""
    return {
        **draw(dropout.seed, dropout.stream, dropout.step, dropout.row_offset),
        "threshold": np.uint32(keep_threshold(dropout.keep)), "scale": np.float32(dropout.scale),
    }  # fmt: skip


def kept(bits: Array | None, dropout: Dropout | None) -> dict[str, Any]:
    """``KEPT_PARAMETERS`` of layer.cuh; without dropout they are not read."""
    return {"kept": bits, "scale": np.float32(0 if dropout is None else dropout.scale)}


def rates(learning_rate: Rate, momentum: Rate, skip: Array | None) -> dict[str, Any]:
    """``RATE_PARAMETERS`` of layer.cuh."""
    arguments: dict[str, Any] = {}
    for name, value in (("learning_rate", learning_rate), ("momentum", momentum)):
        on_host = isinstance(value, int | float)
        arguments[f"{name}_at"] = None if on_host else value
        arguments[name] = np.float32(value if on_host else 0)
    return {**arguments, "skip": skip}
