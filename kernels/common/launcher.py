"""Compiles the ``.cu`` files and launches them; ``cupy_runtime.py``, and nothing else, speaks to CuPy.

An operation's ``cupy_raw.py`` describes a launch (``Kernel``, grid, arguments by name) and never imports CuPy itself,
so that the tests can put another runtime in CuPy's place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol

import numpy as np

from fastgan.errors import BackendError
from fastgan.kernels.common import cupy_runtime
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.kernel import Kernel


class Runtime(Protocol):
    """What launches kernels: CuPy on a GPU, or the emulator of the tests.

    Attributes
    ----------
    number : int
        Which GPU.
    architecture : int
        Compute capability, major · 10 + minor.
    num_multiprocessors : int
    max_shared_bytes : int
        The most dynamic shared memory that a block can have.
    """

    number: int
    architecture: int
    num_multiprocessors: int
    max_shared_bytes: int

    def branch(self) -> AbstractContextManager[None]:
        """Launch what the block launches beside what follows it: after all that came before, and before ``join``."""
        ...

    def join(self) -> None:
        """Let what follows wait for all branches."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Make an array on the device whose content is undefined."""
        ...

    def upload(self, array: Array) -> Array:
        """Copy an array of the host to the device."""
        ...

    def download(self, array: Array) -> Array:
        """Copy an array of the device to the host, when all that was launched before is done."""
        ...

    def overwrite(self, target: Array, source: Array) -> None:
        """Copy an array of the host over one of the device, when all that was launched before is done."""
        ...

    def launch(self, kernel: Kernel, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        """Launch: arguments are device arrays (their pointer is passed), NumPy scalars, and None (a null pointer)."""
        ...

    def repeat(self, sequence: Callable[[], None], times: int, should_stop: Callable[[], bool]) -> None:
        """Run a sequence of launches so many times, as ``devices.HostDevice.repeat`` says."""
        ...

    def forget(self) -> None:
        """Drop what ``repeat`` keeps of a sequence, whose arrays are about to change places."""
        ...

    def describe(self) -> str:
        """Name the device, its driver and what compiles for it."""
        ...


_runtime: Runtime | None = None


def runtime(number: int | None = None) -> Runtime:
    """Give what launches here.

    Parameters
    ----------
    number : int, optional
        Which GPU is wanted; by default the one in use, or the first. A process uses one.

    Raises
    ------
    BackendError
        There is neither CuPy with a GPU nor another runtime.
    """
    global _runtime
    if _runtime is None:
        _runtime = cupy_runtime.CupyRuntime(number or 0)
    if number not in (None, _runtime.number):
        raise BackendError(f"this process computes on GPU {_runtime.number} and cannot change to GPU {number}")
    return _runtime


def set_runtime(other: Runtime | None) -> None:
    """Put another runtime in CuPy's place, or, with None, take it away again."""
    global _runtime
    _runtime = other
    why_not.cache_clear()


@cache
def why_not() -> str | None:
    """Say why nothing can be launched here, or None."""
    if _runtime is None:
        try:
            cupy_runtime.import_cupy()
        except BackendError as error:
            return str(error)
    return None


def launch(kernel: Kernel, grid: tuple[int, int, int], **arguments: Any) -> None:
    """Launch a kernel on the current device.

    Parameters
    ----------
    kernel : Kernel
        What to launch.
    grid : three ints
        Blocks along x, y and z.
    **arguments
        In the order of the kernel's parameters: arrays of the device, NumPy scalars of the parameters' exact types,
        None for a null pointer.

    Raises
    ------
    TypeError
        An argument is none of these: an array of the host, or a bare Python number, whose width would be a guess.
    BackendError
        The kernel cannot be compiled or launched here.
    """
    there = runtime()
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            raise TypeError(f"{name} lies on the host; the backend cupy needs it on the GPU: cupy.asarray({name})")
        if value is not None and not isinstance(value, np.generic) and not hasattr(value, "__cuda_array_interface__"):
            raise TypeError(
                f"{name} is a {type(value).__name__}; a kernel takes arrays of the device and NumPy scalars"
            )
    if kernel.shared_bytes > there.max_shared_bytes:
        raise BackendError(
            f"The kernel {kernel.name} needs {kernel.shared_bytes} bytes of shared memory a block, "
            f"and the GPU has {there.max_shared_bytes}"
        )
    there.launch(kernel, grid, tuple(arguments.values()))
