"""Where a backend's arrays live, and how a fixed sequence of operations is repeated there.

A backend on a GPU has a class of its own here: the same few methods over the device's memory, with ``repeat`` capturing
the sequence once as a graph and replaying it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from fastgan.errors import BackendError
from fastgan.kernels.common import launcher
from fastgan.kernels.common.arrays import Array, Workspace, aligned_empty
from fastgan.kernels.common.backends import recorded, require_precision, resolve
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.dropout import cupy_raw as dropout_cupy

# The architecture from which on tensor cores compute in TF32.
TF32_FROM: Final = 80


class HostDevice:
    """The memory of the CPU's own backends: NumPy arrays.

    Parameters
    ----------
    backend : str
        The backend's own name.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.precision = "float32"
        self._recorded: tuple[Callable[[], None], list[Callable[[], object]]] | None = None

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

    def workspace(self) -> Workspace:
        """Make a place for scratch arrays."""
        return Workspace(self.empty, self.upload)

    def branch_workspace(self, shared: Workspace) -> Workspace:
        """Give the scratch of operations that run in branches: where they run in turn, the shared one."""
        return shared

    @contextlib.contextmanager
    def branch(self) -> Iterator[None]:
        """Mark operations that nothing before ``join`` depends on: a device may run them beside what follows."""
        yield

    def join(self) -> None:
        """Let what follows come after all branches."""

    def drawn_ahead(self, dropout: Dropout) -> Dropout:
        """Give the dropout for a linear or maxout layer, marked as drawn where ``draw_mask`` is to come before it."""
        return dropout

    def draw_mask(self, dropout: Dropout, num_columns: int) -> None:
        """Draw the packed mask of what ``drawn_ahead`` gave; where layers draw theirs in passing, do nothing."""

    def repeat(self, sequence: Callable[[], None], times: int, should_stop: Callable[[], bool]) -> None:
        """Run a sequence of operations so many times, or until ``should_stop`` says so between two of them.

        The sequence must use the same arrays each time: a device may keep it, until ``forget``.
        """
        for _ in range(times):
            if self.backend != "cpu":
                sequence()
            elif self._recorded is None or self._recorded[0] != sequence:
                # Between the loops of a step Python looks at two hundred arguments: a tenth of the step's time, and
                # each time the same. So the checked calls are kept, as a GPU keeps the launches.
                with recorded() as calls:
                    sequence()
                self._recorded = sequence, calls
            else:
                for call in self._recorded[1]:
                    call()
            if should_stop():
                return

    def forget(self) -> None:
        """Drop what ``repeat`` keeps of a sequence: called where arrays are replaced by others."""
        self._recorded = None


class CupyDevice(HostDevice):
    """A GPU's memory, by way of what launches kernels there.

    Parameters
    ----------
    number : int, optional
        Which GPU; by default the one in use, or the first.
    precision : {"float32", "tf32"}
        Arithmetic of the products.

    Raises
    ------
    BackendError
        There is no such GPU, or it has no TF32.
    """

    def __init__(self, number: int | None = None, precision: str = "float32") -> None:
        super().__init__("cupy")
        self.precision = precision
        self._runtime = launcher.runtime(number)
        if precision == "tf32" and self._runtime.architecture < TF32_FROM:
            raise BackendError(
                f"The GPU has compute capability {self._runtime.architecture / 10:.1f} and TF32 needs "
                f"{TF32_FROM / 10:.1f} or newer; leave --precision out"
            )

    def describe(self) -> str:
        """Name the GPU, its driver and CuPy."""
        return self._runtime.describe()

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """Make an array whose content is undefined."""
        return self._runtime.empty(shape, dtype)

    def upload(self, array: Array) -> Array:
        """Copy an array of the host here."""
        return self._runtime.upload(np.ascontiguousarray(array))

    def download(self, array: Array) -> Array:
        """Give a copy on the host."""
        return self._runtime.download(array)

    def overwrite(self, target: Array, source: Array) -> None:
        """Copy an array of the host over one that lives here."""
        self._runtime.overwrite(target, source)

    def branch_workspace(self, shared: Workspace) -> Workspace:
        """Give scratch that no other operation uses."""
        return self.workspace()

    @contextlib.contextmanager
    def branch(self) -> Iterator[None]:
        """Launch on another stream, or another branch of the graph."""
        with self._runtime.branch():
            yield

    def join(self) -> None:
        """Let what follows come after all branches."""
        self._runtime.join()

    def drawn_ahead(self, dropout: Dropout) -> Dropout:
        """Mark it as drawn: masks depend on nothing but the step, and so are drawn beside what a step begins with."""
        return replace(dropout, drawn=True)

    def draw_mask(self, dropout: Dropout, num_columns: int) -> None:
        """Draw the packed mask into its bits."""
        assert dropout.bits is not None
        dropout_cupy.draw(dropout, len(dropout.bits), num_columns)

    def repeat(self, sequence: Callable[[], None], times: int, should_stop: Callable[[], bool]) -> None:
        """Capture the sequence once as a graph and replay it."""
        self._runtime.repeat(sequence, times, should_stop)

    def forget(self) -> None:
        """Drop the graph."""
        self._runtime.forget()


class NumbaCudaDevice(HostDevice):
    """A GPU's memory, by way of Numba.

    Parameters
    ----------
    number : int, optional
        Which GPU; by default the one in use, or the first.

    Raises
    ------
    BackendError
        There is no such GPU.
    """

    def __init__(self, number: int | None = None) -> None:
        super().__init__("numba-cuda")
        # Imported here, as it imports Numba.
        from fastgan.kernels.common import numba_runtime

        self._runtime = numba_runtime
        numba_runtime.select(number)

    def describe(self) -> str:
        """Name the GPU, its driver and Numba."""
        return self._runtime.describe()

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """Make an array whose content is undefined."""
        return self._runtime.empty(shape, dtype)

    def upload(self, array: Array) -> Array:
        """Copy an array of the host here."""
        return self._runtime.upload(np.ascontiguousarray(array))

    def download(self, array: Array) -> Array:
        """Wait for what was launched, and give a copy on the host."""
        return self._runtime.download(array)

    def overwrite(self, target: Array, source: Array) -> None:
        """Copy an array of the host over one that lives here."""
        self._runtime.overwrite(target, source)

    def repeat(self, sequence: Callable[[], None], times: int, should_stop: Callable[[], bool]) -> None:
        """Launch the sequence again and again, and wait for it before each look."""
        self._runtime.repeat(sequence, times, should_stop)


def device(backend: str = "auto", number: int | None = None, precision: str = "float32") -> HostDevice:
    """Give the device that a backend computes on.

    Parameters
    ----------
    backend : str
        As for ``backends.resolve``.
    number : int, optional
        Which GPU; by default the one that the process computes on already, or the first. The CPU's backends have only
        number 0.
    precision : {"float32", "tf32"}
        Arithmetic of the products.

    Raises
    ------
    BackendError
        The backend cannot run here, or lacks this device or precision.
    """
    name = resolve(backend)
    require_precision(name, precision)
    if name == "cupy":
        return CupyDevice(number, precision)
    if name == "numba-cuda":
        return NumbaCudaDevice(number)
    if number not in (None, 0):
        raise BackendError(f"The backend {name} runs on the CPU and has no device {number}; leave --device out")
    return HostDevice(name)
