"""``launcher.Runtime`` without a GPU: the project's kernels, compiled for the host, run thread by thread and checked.

What it finds and how is at the top of ``runtime.cpp``.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastgan.errors import FastganError
from fastgan.kernels.common import backends, launcher
from fastgan.kernels.common.kernel import Kernel, program_text
from tests.cuda_emulator import build
from tests.cuda_emulator.device_array import Allocation, DeviceArray

# What the arena can hold; pages that are not touched cost nothing.
_ARENA_BYTES = 1 << 30
_MAX_PARAMETERS = 128
_MAX_THREADS, _MAX_CLUSTER, _CLUSTERS_FROM = 1024, 8, 90


class EmulatorError(FastganError):
    """A kernel or its launch does what a GPU forbids, or what it only seems to allow."""


class _Parameter(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_char),
        ("pointee", ctypes.c_char),
        ("size", ctypes.c_int),
        ("pointee_size", ctypes.c_int),
    )


@dataclass(frozen=True)
class _Compiled:
    """A kernel that was loaded."""

    path: Path
    entry: int
    parameters: tuple[_Parameter, ...]
    loaded: ctypes.CDLL


@dataclass(frozen=True)
class _Recorded:
    kernel: Kernel
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]


class EmulatedRuntime:
    """Launches kernels on the emulator.

    Parameters
    ----------
    architecture : int
        The compute capability to compile for: 75, 80 or 90.
    num_multiprocessors, max_shared_bytes : int
        What the device says of itself.
    bare : bool, optional
        Leave the checks of loads and stores out, for long runs. By default where $FASTGAN_EMULATOR is "bare".
    seed : int
        Above 0: blocks, warps and threads take their turns in an order drawn from it; 0: in order.
    replays : bool
        Whether ``repeat`` records a second run of the sequence and replays the record, as a CUDA graph; otherwise it
        runs the sequence again and again.
    """

    def __init__(
        self,
        architecture: int = 90,
        num_multiprocessors: int = 132,
        max_shared_bytes: int = 227 * 1024,
        *,
        bare: bool | None = None,
        seed: int = 0,
        replays: bool = True,
    ) -> None:
        reason = build.why_not()
        if reason is not None:
            raise EmulatorError(reason)
        self.number = 0
        self.architecture = architecture
        self.num_multiprocessors = num_multiprocessors
        self.max_shared_bytes = max_shared_bytes
        self.bare = os.environ.get("FASTGAN_EMULATOR") == "bare" if bare is None else bare
        self.seed = seed
        self.num_launches = 0
        self._replays = replays
        self._library, self._library_path = build.library()
        if self._library.emulator_start(_ARENA_BYTES):
            raise EmulatorError("the emulator cannot map its memory: the system limits virtual memory")
        # Whatever a test before this one left open.
        self._library.emulator_join()
        self._in_branch, self._open_branches = False, 0
        self._recording: list[_Recorded | str] | None = None
        self._graph: tuple[Callable[[], None], list[_Recorded | str]] | None = None
        self._compiled: dict[Kernel, _Compiled] = {}

    def describe(self) -> str:
        """Name the emulator."""
        how = "bare" if self.bare else "checked"
        return f"CUDA emulator ({how}), compute capability {self.architecture / 10:.1f}"

    # --- memory ---

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """Make an array that counts as unwritten."""
        self._not_while_recording("empty")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        address = self._library.emulator_allocate(size)
        if not address:
            raise EmulatorError(f"the emulator's memory of {_ARENA_BYTES} bytes has no room for {size} more")
        allocation = Allocation(address)
        weakref.finalize(allocation, self._library.emulator_free, address).atexit = False
        return DeviceArray(allocation, address, shape, dtype)

    def upload(self, array: Any) -> Any:
        """Copy an array of the host."""
        array = np.asarray(array)
        target = self.empty(array.shape, array.dtype)
        self.overwrite(target, array)
        return target

    def download(self, array: Any) -> np.ndarray[Any, Any]:
        """Copy to the host.

        Raises
        ------
        EmulatorError
            Some of it was never written, or branches were not joined.
        """
        self._not_while_recording("download")
        self._not_beside_branches("download")
        self._require_device(array)
        if not array.is_contiguous:
            raise EmulatorError("download takes contiguous arrays")
        at = -1 if self.bare else self._library.emulator_unwritten(array.address, array.nbytes)
        if at >= 0:
            index = tuple(int(i) for i in np.unravel_index(at // array.itemsize, array.shape))
            raise EmulatorError(f"download reads element {index} of {array!r}, which nobody wrote")
        copy = np.empty(array.shape, array.dtype)
        ctypes.memmove(copy.ctypes.data, array.address, array.nbytes)
        return copy

    def overwrite(self, target: Any, source: Any) -> None:
        """Copy an array of the host over one of the device."""
        self._not_while_recording("overwrite")
        self._not_beside_branches("overwrite")
        self._require_device(target)
        source = np.ascontiguousarray(source)
        if source.shape != target.shape or source.dtype != target.dtype or not target.is_contiguous:
            raise EmulatorError(f"overwrite of {target!r} with an array of shape {source.shape}, dtype {source.dtype}")
        ctypes.memmove(target.address, source.ctypes.data, source.nbytes)
        self._library.emulator_written(target.address, source.nbytes)

    # --- order ---

    @contextlib.contextmanager
    def branch(self) -> Iterator[None]:
        """Let the launches of the block count as beside all that follows until ``join``."""
        if self._in_branch:
            yield
            return
        self._mark("branch")
        self._in_branch = True
        try:
            yield
        finally:
            self._in_branch = False
            self._mark("branch_end")

    def join(self) -> None:
        """Order all branches before what follows."""
        self._mark("join")

    def _mark(self, what: str) -> None:
        self._open_branches = 0 if what == "join" else self._open_branches + (what == "branch")
        if self._recording is not None:
            self._recording.append(what)
        else:
            self._do_mark(what)

    def _do_mark(self, what: str) -> None:
        getattr(self._library, f"emulator_{what}")()

    def repeat(self, sequence: Callable[[], None], times: int, should_stop: Callable[[], bool]) -> None:
        """Run the sequence once, record a second run of it, and execute that record, in later calls too."""
        if self._graph is None or self._graph[0] != sequence:
            if times < 1:
                return
            sequence()
            times -= 1
            self._not_beside_branches("the end of a repeated sequence")
            self._graph = (sequence, self._recorded(sequence) if self._replays else [])
        _, recorded = self._graph
        while times and not should_stop():
            times -= 1
            if not self._replays:
                sequence()
            for one in recorded:
                if isinstance(one, str):
                    self._do_mark(one)
                else:
                    self._execute(one.kernel, one.grid, one.arguments)

    def forget(self) -> None:
        """Drop what ``repeat`` recorded."""
        self._graph = None

    def _recorded(self, sequence: Callable[[], None]) -> list[_Recorded | str]:
        recorded: list[_Recorded | str] = []
        self._recording = recorded
        try:
            sequence()
            self._not_beside_branches("the end of a repeated sequence")
        finally:
            self._recording = None
        return recorded

    def _not_while_recording(self, what: str) -> None:
        if self._recording is not None:
            raise EmulatorError(f"{what} in a step that is captured as a graph, which only replays launches")

    def _not_beside_branches(self, what: str) -> None:
        if self._open_branches:
            raise EmulatorError(f"{what} comes while branches are open; join them first")

    def _require_device(self, array: Any) -> None:
        if not isinstance(array, DeviceArray):
            raise TypeError(f"a {type(array).__name__} is no array of the device")

    # --- launches ---

    def launch(self, kernel: Kernel, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        """Run a kernel to its end, or record it.

        Raises
        ------
        EmulatorError
            What the kernel or its launch does wrong; ``file:line`` comes first where it is known.
        TypeError
            The arguments do not fit the kernel's parameters.
        """
        if self._recording is not None:
            self._recording.append(_Recorded(kernel, grid, arguments))
        else:
            self._execute(kernel, grid, arguments)

    def _execute(self, kernel: Kernel, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        self._check_launch(kernel, grid)
        compiled = self._compiled.get(kernel)
        if compiled is None:
            compiled = self._compiled[kernel] = self._compile(kernel)
        values = _packed(kernel, compiled.parameters, arguments)
        pointers = np.array([value.ctypes.data for value in values], np.uint64)
        blocks = np.array(grid, np.uint32)
        self.num_launches += 1
        seed = (self.seed * 1_000_003 + self.num_launches) % 2**32 if self.seed else 0
        failed = self._library.emulator_launch(
            compiled.entry,
            pointers.ctypes.data,
            blocks.ctypes.data,
            kernel.threads,
            kernel.shared_bytes,
            kernel.cluster,
            seed,
            not self.bare,
        )
        if failed:
            raise EmulatorError(self._report(kernel, compiled))

    def _check_launch(self, kernel: Kernel, grid: tuple[int, int, int]) -> None:
        def require(good: bool, what: str) -> None:
            if not good:
                raise EmulatorError(f"The launch of {kernel.name} of {kernel.source}: {what}")

        x, y, z = grid
        require(1 <= x < 2**31 and 1 <= y < 65536 and 1 <= z < 65536, f"a grid of {grid} blocks")
        require(1 <= kernel.threads <= _MAX_THREADS, f"{kernel.threads} threads a block")
        require(
            0 <= kernel.shared_bytes <= self.max_shared_bytes,
            f"{kernel.shared_bytes} bytes of shared memory a block, and the device has {self.max_shared_bytes}",
        )
        require(1 <= kernel.cluster <= _MAX_CLUSTER, f"a cluster of {kernel.cluster} blocks")
        require(
            kernel.cluster == 1 or self.architecture >= _CLUSTERS_FROM,
            f"a cluster on compute capability {self.architecture / 10:.1f}",
        )
        require(
            kernel.architecture in ("", f"sm_{self.architecture}a"),
            f"a kernel for {kernel.architecture} on compute capability {self.architecture / 10:.1f}",
        )
        require(z % kernel.cluster == 0, f"{z} blocks along z are no multiple of the cluster of {kernel.cluster}")

    def _compile(self, kernel: Kernel) -> _Compiled:
        defines = (f"-D__CUDA_ARCH__={self.architecture * 10}", *(f"-D{n}={value}" for n, value in kernel.defines))
        if kernel.architecture:
            # As nvcc says it: what only this architecture has.
            defines = (f"-D__CUDA_ARCH_FEAT_SM{self.architecture}_ALL", *defines)
        stem = re.sub(r"\W+", "-", f"{Path(kernel.source).stem}-{kernel.name}")[:60].strip("-")
        path = build.build_kernel(stem, program_text(kernel.source), kernel.name, defines, not self.bare)
        loaded = ctypes.CDLL(str(path))
        parameters = (_Parameter * _MAX_PARAMETERS)()
        count = loaded.emulated_parameters(parameters)
        entry = ctypes.cast(loaded.emulated_entry, ctypes.c_void_p).value
        assert entry is not None
        return _Compiled(path, entry, tuple(parameters[:count]), loaded)

    def _report(self, kernel: Kernel, compiled: _Compiled) -> str:
        address, file, line = ctypes.c_uint64(), ctypes.c_char_p(), ctypes.c_int()
        text = self._library.emulator_report(ctypes.byref(address), ctypes.byref(file), ctypes.byref(line)).decode()
        if file.value:
            places = [f"{file.value.decode()}:{line.value}"]
        elif address.value:
            places = build.lines_at(compiled.path, address.value - self._library.emulator_image(address.value) - 1)
        else:
            places = []
        first = f"{places[0]}: " if places else ""
        outer = f", from {', '.join(places[1:])}" if len(places) > 1 else ""
        return f"{first}{text} (kernel {kernel.name} of {kernel.source}{outer})"


def _packed(kernel: Kernel, parameters: tuple[_Parameter, ...], arguments: tuple[Any, ...]) -> list[Any]:
    """Check the arguments against the signature and give each as words of memory."""
    where = f"{kernel.name} of {kernel.source}"
    if len(parameters) != len(arguments):
        raise TypeError(f"{where} has {len(parameters)} parameters and is given {len(arguments)} arguments")
    packed = []
    for number, (parameter, value) in enumerate(zip(parameters, arguments, strict=True), 1):
        kind, pointee = parameter.kind.decode(), parameter.pointee.decode()
        words = np.zeros((parameter.size + 7) // 8, np.uint64)
        packed.append(words)
        if kind == "p":
            if value is None:
                continue
            if not isinstance(value, DeviceArray):
                raise TypeError(f"parameter {number} of {where} is a pointer and is given a {type(value).__name__}")
            is_float, wants_float = value.dtype.kind == "f", pointee == "f"
            if pointee not in "vs" and (
                is_float != wants_float or (is_float and value.itemsize != parameter.pointee_size)
            ):
                raise TypeError(
                    f"parameter {number} of {where} points to {_words(pointee, parameter.pointee_size)} "
                    f"and is given an array of {value.dtype}"
                )
            words[0] = value.address
            continue
        given = {"V": "s"}.get(value.dtype.kind, value.dtype.kind) if isinstance(value, np.generic) else None
        if given != kind or value.nbytes != parameter.size:
            name = value.dtype if isinstance(value, np.generic) else type(value).__name__
            raise TypeError(f"parameter {number} of {where} is {_words(kind, parameter.size)} and is given {name}")
        words.view(np.uint8)[: parameter.size] = np.frombuffer(value.tobytes(), np.uint8)
    return packed


def _words(kind: str, size: int) -> str:
    names = {"i": f"int{8 * size}", "u": f"uint{8 * size}", "f": f"float{8 * size}", "b": "bool"}
    return names.get(kind, f"a struct of {size} bytes")


@contextlib.contextmanager
def emulated(**options: Any) -> Iterator[EmulatedRuntime]:
    """Launch on the emulator within the block.

    Parameters
    ----------
    **options
        Of ``EmulatedRuntime``.
    """
    runtime = EmulatedRuntime(**options)
    before = launcher._runtime
    _put(runtime)
    try:
        yield runtime
    finally:
        _put(before)


def _put(runtime: launcher.Runtime | None) -> None:
    launcher.set_runtime(runtime)
    # What runs here is remembered.
    backends.resolve.cache_clear()
