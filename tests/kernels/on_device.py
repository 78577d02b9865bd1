"""Lets tests that speak NumPy run on a backend whose arrays live on a device.

A call's arrays go up, the call runs there, and what it returns or changed comes back into the caller's own arrays.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from typing import Any

import numpy as np
import pytest

from fastgan.kernels.common import backends, devices
from fastgan.kernels.common.arrays import Workspace, home_of

# What a backend says of arrays of float64 that has none: a test of float64 has nothing to test there.
_NO_FLOAT64 = "computes in float32"
# Arrays keep their place within a line of this many bytes: what is not aligned on the host is not there either.
_LINE = 64


def on(operations: Any, backend: str) -> Any:
    """Give a module's public functions, or one function, such that they take arrays of the host on any backend.

    Parameters
    ----------
    operations : module or function
        Of ``fastgan.kernels``.
    backend : str
        A backend on a GPU; for those of the host ``operations`` itself is the result.

    Returns
    -------
    module, namespace or function
        Calls with ``backend=`` naming the backend upload every NumPy array among the arguments, also those inside
        dataclasses and tuples; arrays that share memory share it there. Outputs (``out…``) that share none go up
        unwritten, so that a kernel has to write all of them. Other calls go through as they are.
    """
    if backend not in backends.ON_A_GPU:
        return operations
    if inspect.isfunction(operations):
        return _wrapped(operations, backend)
    names = {name: value for name, value in vars(operations).items() if not name.startswith("_")}
    return types.SimpleNamespace(
        **{
            name: _wrapped(value, backend)
            if inspect.isfunction(value) and value.__module__ == operations.__name__
            else value
            for name, value in names.items()
        }
    )


def put_on(monkeypatch: Any, module: types.ModuleType, backend: str) -> None:
    """Put ``on(…)`` in the place of every operation that a test module has imported.

    Parameters
    ----------
    monkeypatch : pytest.MonkeyPatch
    module : module
        The test module.
    backend : str
        As for ``on``.
    """
    for name, value in list(vars(module).items()):
        if isinstance(value, types.ModuleType):
            origin, is_operation = value.__name__, hasattr(value, "__path__")
        elif inspect.isfunction(value):
            origin, is_operation = value.__module__, "backend" in inspect.signature(value).parameters
        else:
            continue
        if is_operation and origin.startswith("fastgan.kernels.") and origin != "fastgan.kernels.common":
            monkeypatch.setattr(module, name, on(value, backend))


def _wrapped(function: Any, backend: str) -> Any:
    signature = inspect.signature(function)
    if "backend" not in signature.parameters:
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("backend") != backend:
            return function(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        transfer = _Transfer(devices.device(backend), given.arguments)
        given.arguments.update({name: transfer.up(value) for name, value in given.arguments.items()})
        try:
            result = function(*given.args, **given.kwargs)
        except TypeError as error:
            if _NO_FLOAT64 in str(error):
                pytest.skip(str(error))
            raise
        transfer.write_back()
        return transfer.down(result)

    return call


def _arrays_in(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, tuple | list):
        return [array for one in value for array in _arrays_in(one)]
    return []


@dataclasses.dataclass
class _Block:
    """A stretch of the host's memory, with the arrays that lie in it, and its copy on the device."""

    start: int
    end: int
    arrays: list[np.ndarray]
    is_output: bool
    there: Any = None


class _Transfer:
    """The arrays of one call, here and there."""

    def __init__(self, device: devices.HostDevice, arguments: dict[str, Any]) -> None:
        self._device = device
        self._pairs: list[tuple[np.ndarray, Any]] = []
        found: dict[int, np.ndarray] = {}
        inputs: set[int] = set()
        for name, value in arguments.items():
            for array in _arrays_in(value):
                if not array.flags.c_contiguous:
                    raise ValueError(f"{name} is not contiguous; only contiguous arrays are brought to the device")
                found[id(array)] = array
                if not name.startswith("out"):
                    inputs.add(id(array))
        self._blocks: list[_Block] = []
        for array in sorted(found.values(), key=lambda a: a.ctypes.data):
            start, end = array.ctypes.data, array.ctypes.data + array.nbytes
            if self._blocks and start < self._blocks[-1].end:
                last = self._blocks[-1]
                last.end, last.is_output = max(last.end, end), False
                last.arrays.append(array)
            else:
                self._blocks.append(_Block(start, end, [array], id(array) not in inputs))
        for block in self._blocks:
            self._upload(block)

    def _upload(self, block: _Block) -> None:
        first = block.start - block.start % _LINE
        if block.is_output:
            block.there = self._device.empty((block.end - first,), np.uint8)
        else:
            memory = np.zeros(block.end - first, np.uint8)
            for array in block.arrays:
                at = array.ctypes.data - first
                memory[at : at + array.nbytes] = array.reshape(-1).view(np.uint8)
            block.there = self._device.upload(memory)
        for array in block.arrays:
            at = array.ctypes.data - first
            view = block.there[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
            self._pairs.append((array, view))

    def up(self, value: Any) -> Any:
        """Give what stands for an argument on the device."""
        if isinstance(value, np.ndarray):
            return next(there for here, there in self._pairs if here is value)
        if isinstance(value, Workspace):
            return self._device.workspace()
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            changed = {name: self.up(one) for name, one in fields.items() if _arrays_in(one)}
            return dataclasses.replace(value, **changed) if changed else value
        if isinstance(value, tuple | list):
            return type(value)(self.up(one) for one in value)
        return value

    def write_back(self) -> None:
        """Bring what the call changed to the caller's arrays; those it only read stay untouched."""
        for here, there in self._pairs:
            now = self._device.download(there)
            if now.tobytes() != here.tobytes():
                here[...] = now

    def down(self, result: Any) -> Any:
        """Give a result of the host's: the caller's own array where the call returned what it was given."""
        if isinstance(result, tuple | list):
            return type(result)(self.down(one) for one in result)
        for here, there in self._pairs:
            if result is there:
                return here
        if home_of(result) == self._device.backend:
            return self._device.download(result)
        return result
