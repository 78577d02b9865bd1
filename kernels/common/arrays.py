"""Checks of arguments, and values that may live on the device.

A check reads shapes, dtypes and strides, never an element: so it never waits for a device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# What changes from step to step may be a number of the host or one element of the step's struct, read when the
# operation runs: so that a captured sequence of launches sees the new value at every replay.
Counter: TypeAlias = "int | NDArray[np.int64]"
Rate: TypeAlias = "float | NDArray[np.float32]"
Array: TypeAlias = NDArray[Any]

# Bytes of a line of the cache.
_LINE = 64

# The package that makes an array -> the backend whose memory it is in.
_HOMES = {"cupy": "cupy", "numba": "numba-cuda", "numba_cuda": "numba-cuda"}

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def home_of(array: Any) -> str | None:
    """Say where an array lives: "host", or the backend whose memory it is in; None where no operation takes such."""
    if isinstance(array, np.ndarray):
        return "host"
    return _HOMES.get(type(array).__module__.partition(".")[0]) or getattr(type(array), "fastgan_home", None)


def is_contiguous(array: Array) -> bool:
    """Tell whether an array's elements lie one after the other in C order."""
    if isinstance(array, np.ndarray):
        return array.flags.c_contiguous
    # Numba's arrays have no flags as NumPy's, but all have strides.
    expected = array.dtype.itemsize
    for length, stride in zip(reversed(array.shape), reversed(array.strides), strict=True):
        if length != 1 and stride != expected:
            return array.size == 0
        expected *= length
    return True


def read_counter(value: Counter) -> int:
    """Read a counter on the host."""
    return int(value) if isinstance(value, int) else int(value[0])


def read_rate(value: Rate) -> float:
    """Read a rate on the host."""
    return float(value) if isinstance(value, int | float) else float(value[0])


def require_array(
    name: str, array: Array, shape: tuple[int | None, ...], dtypes: tuple[np.dtype[Any], ...] = FLOATS
) -> None:
    """Raise unless ``array`` has this shape (None: any length), one of these dtypes and C order.

    Raises
    ------
    TypeError
        It is no array, or has another dtype.
    ValueError
        It has another shape or is not C-contiguous.
    """
    if home_of(array) is None:
        kind = f"{type(array).__module__.partition('.')[0]}.{type(array).__name__}"
        hint = "; numpy.from_dlpack or cupy.from_dlpack share its memory" if hasattr(array, "__dlpack__") else ""
        raise TypeError(f"{name} is a {kind.removeprefix('builtins.')}; it must be an array{hint}")
    if array.dtype not in dtypes:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise TypeError(f"{name} has dtype {array.dtype}; it must be {wanted}")
    if len(array.shape) != len(shape) or any(
        want is not None and have != want for have, want in zip(array.shape, shape, strict=True)
    ):
        wanted = "(" + ", ".join("any" if length is None else str(length) for length in shape) + ")"
        raise ValueError(f"{name} has shape {tuple(array.shape)}; it must be {wanted}")
    if not is_contiguous(array):
        raise ValueError(f"{name} is not C-contiguous; pass a contiguous copy of it")


def require_out(name: str, out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], beside: Array) -> Array:
    """Check an output that was given, or make one where ``beside`` lives."""
    if out is None:
        return empty_beside(beside, shape, dtype)
    require_array(name, out, shape, (dtype,))
    return out


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of the names."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Make an array whose content is undefined and that begins where a line of the cache does.

    NumPy's own begin 16 bytes after one, so that each of the widest vectors lies in two lines: the sums over maxout's
    winners then take a third longer.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    array: Array = memory[start : start + size].view(dtype).reshape(shape)
    return array


def empty_beside(array: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Make an array whose content is undefined in the memory that ``array`` is in."""
    if isinstance(array, np.ndarray):
        return np.empty(shape, dtype)
    made: Array = _device_of(array).empty(shape, dtype)
    return made


def _device_of(array: Array) -> Any:
    # Devices are made of what is in this file.
    from fastgan.kernels.common.devices import device

    return device(home_of(array) or "auto")


class Workspace:
    """Scratch arrays by name, made once and used again, so that a training step allocates nothing.

    What a name holds is valid within one call of one operation only.

    Parameters
    ----------
    empty : callable, optional
        Makes an array of a shape and dtype; by default on the host.
    upload : callable, optional
        Brings an array of the host to where ``empty`` makes them; by default the host.
    """

    def __init__(
        self,
        empty: Callable[[tuple[int, ...], Any], Array] = aligned_empty,
        upload: Callable[[Array], Array] = np.ascontiguousarray,
    ) -> None:
        self._empty, self._upload = empty, upload
        self._arrays: dict[tuple[str, tuple[int, ...], np.dtype[Any]], Array] = {}

    @classmethod
    def beside(cls, array: Array) -> Workspace:
        """Make one whose arrays are in the memory that ``array`` is in."""
        if isinstance(array, np.ndarray):
            return cls()
        return _device_of(array).workspace()

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the scratch array of this name, shape and dtype; its content is whatever was left in it."""
        key = (name, shape, dtype)
        if key not in self._arrays:
            self._arrays[key] = self._empty(shape, dtype)
        return self._arrays[key]

    def zeros(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the scratch array of this name, shape and dtype, which is all 0 at its first use; users leave it so."""
        key = (name, shape, dtype)
        if key not in self._arrays:
            self._arrays[key] = self._upload(np.zeros(shape, dtype))
        return self._arrays[key]
