"""Arrays of the emulated device: as much of CuPy's ndarray as the project may use, and nothing more."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np


class Allocation:
    """A piece of the device's memory, which is freed with its last view."""

    def __init__(self, address: int) -> None:
        self.address = address


class DeviceArray:
    """A strided view of device memory that the host cannot touch.

    Whatever would make CuPy copy to the host in silence, launch a kernel of its own or raise, raises ``TypeError``.

    Parameters
    ----------
    allocation : Allocation
        The memory.
    address : int
        Of the first element.
    shape : tuple of int
    dtype : dtype
    strides : tuple of int, optional
        In bytes; by default of C order.
    """

    # Where ``arrays.home_of`` takes it to live.
    fastgan_home = "cupy"
    __array_ufunc__ = None

    def __init__(
        self,
        allocation: Allocation,
        address: int,
        shape: tuple[int, ...],
        dtype: Any,
        strides: tuple[int, ...] | None = None,
    ) -> None:
        self._allocation, self.address = allocation, address
        self.shape, self.dtype = tuple(int(length) for length in shape), np.dtype(dtype)
        self.strides = self._c_strides() if strides is None else strides

    def _c_strides(self) -> tuple[int, ...]:
        return tuple(self.dtype.itemsize * math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def itemsize(self) -> int:
        return int(self.dtype.itemsize)

    @property
    def is_contiguous(self) -> bool:
        return self.size == 0 or all(
            length == 1 or have == want
            for length, have, want in zip(self.shape, self.strides, self._c_strides(), strict=True)
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None if self.is_contiguous else self.strides,
            "version": 3,
        }

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __getitem__(self, key: Any) -> DeviceArray:
        keys = key if isinstance(key, tuple) else (key,)
        if sum(k is Ellipsis for k in keys) > 1 or not all(
            k is Ellipsis or k is None or isinstance(k, slice | int | np.integer) for k in keys
        ):
            raise TypeError(f"the device's arrays are sliced, not indexed by {key!r}")
        given = sum(k is not Ellipsis and k is not None for k in keys)
        if given > self.ndim:
            raise IndexError(f"{given} indices for an array of {self.ndim} axes")
        rest = (slice(None),) * (self.ndim - given)
        if any(k is Ellipsis for k in keys):
            at = next(i for i, k in enumerate(keys) if k is Ellipsis)
            keys = (*keys[:at], *rest, *keys[at + 1 :])
        else:
            keys = (*keys, *rest)
        address, axis = self.address, 0
        shape: list[int] = []
        strides: list[int] = []
        for k in keys:
            if k is None:
                shape.append(1)
                strides.append(0)
                continue
            length, stride = self.shape[axis], self.strides[axis]
            axis += 1
            if isinstance(k, slice):
                start, stop, step = k.indices(length)
                count = len(range(start, stop, step))
                if count:
                    address += start * stride
                shape.append(count)
                strides.append(step * stride)
            else:
                if not -length <= k < length:
                    raise IndexError(f"index {k} of an axis of {length}")
                address += int(k) % length * stride
        return DeviceArray(self._allocation, address, tuple(shape), self.dtype, tuple(strides))

    def reshape(self, *shape: Any) -> DeviceArray:
        lengths = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else list(shape)
        if -1 in lengths:
            known = math.prod(length for length in lengths if length != -1)
            lengths[lengths.index(-1)] = self.size // known if known else 0
        if math.prod(lengths) != self.size:
            raise ValueError(f"an array of shape {self.shape} cannot take the shape {tuple(lengths)}")
        if not self.is_contiguous:
            raise ValueError("reshape of an array that is not C-contiguous would copy it")
        return DeviceArray(self._allocation, self.address, tuple(lengths), self.dtype)

    def ravel(self) -> DeviceArray:
        return self.reshape(-1)

    def view(self, dtype: Any) -> DeviceArray:
        other = np.dtype(dtype)
        if other.itemsize == self.dtype.itemsize:
            return DeviceArray(self._allocation, self.address, self.shape, other, self.strides)
        if not self.is_contiguous or not self.shape or self.shape[-1] * self.dtype.itemsize % other.itemsize:
            raise ValueError(f"an array of shape {self.shape} and dtype {self.dtype} has no view as {other}")
        last = self.shape[-1] * self.dtype.itemsize // other.itemsize
        return DeviceArray(self._allocation, self.address, (*self.shape[:-1], last), other)

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"

    __hash__ = object.__hash__


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: DeviceArray, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"{name} would bring the device's memory to the host, or compute outside the project's kernels")

    return refuse


_OPERATORS = (
    "eq ne lt le gt ge neg pos abs invert and or xor add sub mul truediv floordiv mod pow matmul "
    "radd rsub rmul rtruediv rfloordiv rmod rpow rmatmul iadd isub imul itruediv "
    "array bool int float complex index iter contains setitem"
)
for _name in (*(f"__{word}__" for word in _OPERATORS.split()), "item", "tolist"):
    setattr(DeviceArray, _name, _refusal(_name))
