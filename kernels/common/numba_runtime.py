"""Numba CUDA, as the backend ``numba-cuda`` uses it: whether it runs here, memory, and launches.

Importing it imports Numba, so only the files ``numba_cuda.py`` and the device class do. Kernels are compiled when they
are first launched, for the types they meet: so an operation passes the same types each time, C-contiguous arrays and
NumPy scalars of fixed widths. What may be a number of the host or an element on the device is passed as both, a
one-element array and a number that is added to it (``counter``, ``rate``); an array that may be missing as an array of
one zero and a flag.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import time
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numba
import numpy as np
from numba import cuda as _cuda

from fastgan.errors import BackendError, one_line
from fastgan.kernels.common.arrays import Array, Counter, Rate
from fastgan.kernels.common.cupy_runtime import NUMBA_CUDA_REMEDY, OLDEST

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Numba has no types here. Files of kernels import it under this name, which the simulator looks for.
cuda: Any = _cuda
_settings: Any = numba.config
# How far the host may run ahead of a stop.
_SECONDS_AHEAD = 0.1


def kernel(function: _Function) -> _Function:
    """Compile a function that ``launch`` is given."""
    compiled: _Function = cuda.jit(function)
    return compiled


def device_function(function: _Function) -> _Function:
    """Compile a function that kernels call: it becomes a part of each.

    Outside the module of its kernel it must not name ``cuda``, which the simulator exchanges in that module only.
    """
    compiled: _Function = cuda.jit(device=True)(function)
    return compiled


def simulated() -> bool:
    """Tell whether Numba's simulator runs the kernels (NUMBA_ENABLE_CUDASIM=1 when Numba was first imported)."""
    return bool(_settings.ENABLE_CUDASIM)


def why_not() -> str | None:
    """Say why the kernels cannot run here, or None where they can."""
    if simulated():
        return None
    try:
        count = len(cuda.gpus)
    except Exception as error:
        # Numba raises what it meets: no driver, one that is too old, no device, no bindings.
        return f"no GPU answers ({one_line(error).rstrip(' .:')})"
    if count == 0:
        return "no GPU answers (the driver counts none)"
    major, minor = cuda.gpus[0].compute_capability
    if 10 * major + minor < OLDEST:
        return f"the GPU has compute capability {major}.{minor} and the kernels need {OLDEST / 10:.1f} or newer"
    try:
        # Needs the libraries that a kernel needs, and takes a fraction of a second.
        cuda.compile_ptx(_nothing, (), cc=(major, minor))
    except Exception as error:
        return f"Numba cannot compile for the GPU ({one_line(error)}): {NUMBA_CUDA_REMEDY}"
    return None


def _nothing() -> None:
    pass


_number: int | None = None


def select(number: int | None) -> None:
    """Choose the GPU of this process.

    Raises
    ------
    BackendError
        There is no such GPU, or the process computes on another already.
    """
    global _number
    if number is None:
        number = _number or 0
    count = len(cuda.gpus)
    if not 0 <= number < count:
        raise BackendError(f"there is no GPU {number}: the driver counts {count}, from 0 on")
    if _number not in (None, number):
        raise BackendError(f"this process computes on GPU {_number} and cannot change to GPU {number}")
    if _number is None:
        cuda.select_device(number)
        _number = number


def describe() -> str:
    """Name the GPU, its driver and Numba."""
    numba_version = f"Numba {numba.__version__}"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        numba_version += f", numba-cuda {importlib.metadata.version('numba-cuda')}"
    if simulated():
        return f"Numba's CUDA simulator, {numba_version}"
    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    major, minor = cuda.cudadrv.driver.get_version()
    return f"{name}, {device.MULTIPROCESSOR_COUNT} multiprocessors, CUDA driver {major}.{minor}, {numba_version}"


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Make an array whose content is undefined; out of memory is a sentence."""
    try:
        array: Array = cuda.device_array(shape, dtype)
    except Exception as error:
        # Numba's error, or that of CUDA's bindings below it: both name the driver's.
        if "OUT_OF_MEMORY" not in str(error):
            raise
        size = math.prod(shape) * np.dtype(dtype).itemsize
        free, total = cuda.current_context().get_memory_info()
        raise BackendError(
            f"The GPU is out of memory: {size} more bytes are asked for, and {free} of {total} are free; "
            "use a smaller --batch-size or network"
        ) from error
    return array


def upload(array: Array) -> Array:
    """Copy to the device; the copy is done when this returns."""
    target = empty(array.shape, array.dtype)
    overwrite(target, array)
    return target


def on_device(array: Array) -> Array:
    """Give an array that lies on the host or on the device as one of the device."""
    return upload(array) if isinstance(array, np.ndarray) else array


def download(array: Array) -> Array:
    """Wait for what was launched, and copy."""
    copy: Array = _as_any(array).copy_to_host()
    return copy


def overwrite(target: Array, source: Array) -> None:
    """Wait for what was launched, and copy an array of the host over one of the device."""
    # An array without elements has no memory to copy to.
    if math.prod(target.shape):
        _as_any(target).copy_to_device(np.ascontiguousarray(source))
        cuda.synchronize()


@cache
def zero(dtype: Any) -> Array:
    """Give an array of one zero: what stands for an array that is not there."""
    return upload(np.zeros(1, dtype))


def flag(word: Array | None) -> Array:
    """Give the step's flag as its two halves, which kernels read and mark; a single zero where there is none."""
    # Little-endian, as a GPU is: the lower half comes first.
    return zero(np.int32) if word is None else word.view(np.int32)


def counter(value: Counter) -> tuple[Array, int]:
    """Give a counter as an element on the device and a number of the host, whose sum it is."""
    return (zero(np.int64), int(value)) if isinstance(value, int | np.integer) else (value, 0)


def rate(value: Rate) -> tuple[Array, np.float64]:
    """Give a rate as an element on the device and a number of the host, whose sum it is."""
    if isinstance(value, int | float | np.number):
        return zero(np.float32), np.float64(value)
    return value, np.float64(0)


def launch(kernel: Any, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> None:
    """Launch a kernel; nothing waits for it.

    Parameters
    ----------
    kernel : compiled function
        What to launch.
    grid, block : tuples of int
        Blocks, and threads of a block; a grid of no blocks launches nothing.
    *arguments
        Arrays of the device, NumPy scalars, and named tuples of them.

    Raises
    ------
    TypeError
        An argument is an array of the host, which Numba would copy to the device and back.
    """
    for value in arguments:
        if isinstance(value, np.ndarray):
            raise TypeError(
                "an array lies on the host; the backend numba-cuda needs it on the GPU: numba.cuda.to_device(array)"
            )
    if math.prod(grid):
        _configured(kernel, grid, block)(*arguments)


def repeat(sequence: Callable[[], None], times: int, should_stop: Callable[[], bool]) -> None:
    """Launch a sequence so many times, as ``devices.HostDevice.repeat`` says, and wait for it before each look.

    Twice as many are launched before the next look while that stays short: the device should not wait for the host.
    """
    ahead = 1
    while times:
        began, launched = time.perf_counter(), min(ahead, times)
        for _ in range(launched):
            sequence()
        cuda.synchronize()
        times -= launched
        if should_stop():
            return
        if time.perf_counter() - began < _SECONDS_AHEAD / 2:
            ahead = 2 * launched


def divide_up(a: int, b: int) -> int:
    """Divide and round up: blocks that cover a length."""
    return -(-a // b)


def _configure(kernel: Any, grid: tuple[int, ...], block: tuple[int, ...]) -> Any:
    with warnings.catch_warnings():
        # That a grid is small for the GPU, as a batch of 100 rows makes it, is nothing the caller could change.
        warnings.filterwarnings("ignore", "Grid size")
        return kernel[grid, block]


# The simulator keeps the grid in the kernel itself, so there a configuration holds until the next one only.
_configured = _configure if simulated() else cache(_configure)


def _as_any(array: Any) -> Any:
    return array
