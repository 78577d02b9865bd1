"""Where a backend's arrays live, and how a fixed sequence of operations is repeated there.

A backend on a GPU has a class of its own here: the same few methods over the device's memory, with ``repeat`` capturing
the sequence once as a graph and replaying it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastgan.errors import BackendError
from fastgan.kernels.common.arrays import Array, aligned_empty
from fastgan.kernels.common.backends import resolve


class HostDevice:
    """The memory of the CPU's own backends: NumPy arrays.

    Parameters
    ----------
    backend : str
        The backend's own name.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def describe(self) -> str:
        """Name the device for a run's record."""
        return "cpu"

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """Make an array whose content is undefined."""
        return aligned_empty(shape, dtype)

    def upload(self, array: Array) -> Array:
        """Bring an array of the host here; on the host that is the array itself."""
        return np.ascontiguousarray(array)

    def download(self, array: Array) -> Array:
        """Give a copy on the host."""
        return np.array(array)

    def overwrite(self, target: Array, source: Array) -> None:
        """Copy an array of the host over one that lives here."""
        target[...] = source

    def repeat(self, sequence: Callable[[], None], times: int, should_stop: Callable[[], bool]) -> None:
        """Run a sequence of operations so many times, or until ``should_stop`` says so between two of them."""
        for _ in range(times):
            sequence()
            if should_stop():
                return


def device(backend: str = "auto", number: int = 0, precision: str = "float32") -> HostDevice:
    """Give the device that a backend computes on.

    Parameters
    ----------
    backend : str
        As for ``backends.resolve``.
    number : int
        Which GPU; the CPU's backends have only number 0.
    precision : {"float32", "tf32"}
        Arithmetic of the products.

    Raises
    ------
    BackendError
        The backend cannot run here, or lacks this device or precision.
    """
    name = resolve(backend)
    if number != 0:
        raise BackendError(f"The backend {name} runs on the CPU and has no device {number}; leave --device out")
    if precision != "float32":
        raise BackendError(f"The backend {name} computes in float32 and has no {precision}; leave --precision out")
    return HostDevice(name)
