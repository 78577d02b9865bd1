"""CuPy as what launches kernels: on the GPU, on a stream of its own, captured as graphs."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, cast

import numpy as np

from fastgan.errors import BackendError, one_line
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.kernel import Kernel, program_text

OLDEST: Final = 75
# Steps in the graph that is replayed most: launching a graph costs the host several microseconds, and the device idles
# between two graphs as it does not between two nodes of one.
_STEPS_A_GRAPH: Final = 16
# Graphs in flight before the host waits: it must not run minutes ahead of a stop.
_SECONDS_AHEAD: Final = 0.1
_NUM_BRANCHES: Final = 4


REMEDY: Final = "pip install 'cupy-cuda12x[ctk]', or 'cupy-cuda13x[ctk]' for a CUDA 13 driver"
NUMBA_CUDA_REMEDY: Final = "pip install 'numba-cuda[cu12]' 'numpy<2.5', or 'numba-cuda[cu13]' for a CUDA 13 driver"


def has_cupy() -> bool:
    """Tell whether CuPy is installed, whether or not it works."""
    return importlib.util.find_spec("cupy") is not None


@cache
def driver_version() -> int | None:
    """Give the version of the NVIDIA driver's CUDA (12040 for 12.4) where it answers and counts a GPU; else None."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count, version = ctypes.c_int(), ctypes.c_int()
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0:
            driver.cuDriverGetVersion(ctypes.byref(version))
            return version.value
    return None


def import_cupy() -> Any:
    """Import CuPy where it can run here.

    Raises
    ------
    BackendError
        CuPy is missing or broken, no GPU answers, or the GPU is too old; the sentence says which and what would help.
    """
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            missing = "" if driver_version() else ", and no GPU's driver answers"
            raise BackendError(f"CuPy is not installed ({REMEDY}){missing}") from error
        raise BackendError(f"CuPy cannot be imported ({one_line(error)})") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise BackendError(f"no GPU answers ({one_line(error)})") from error
    if count == 0:
        raise BackendError("no GPU answers (the driver counts none)")
    return cupy


class CupyRuntime:
    """``launcher.Runtime`` over CuPy.

    Parameters
    ----------
    number : int
        Which GPU.

    Raises
    ------
    BackendError
        It cannot run here; the sentence says why.
    """

    def __init__(self, number: int = 0) -> None:
        self._cupy = cupy = import_cupy()
        count = cupy.cuda.runtime.getDeviceCount()
        if not 0 <= number < count:
            raise BackendError(f"there is no GPU {number}: the driver counts {count}, from 0 on")
        self._device = cupy.cuda.Device(number)
        self._device.use()
        self.number = number
        self.architecture = int(self._device.compute_capability)
        if self.architecture < OLDEST:
            raise BackendError(
                f"the GPU {number} has compute capability {self.architecture / 10:.1f} and the kernels need "
                f"{OLDEST / 10:.1f} or newer"
            )
        attributes = self._device.attributes
        self.num_multiprocessors = int(attributes["MultiProcessorCount"])
        self.max_shared_bytes = int(attributes["MaxSharedMemoryPerBlockOptin"])
        # Graphs are captured and replayed here: the legacy default stream cannot be captured.
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._branches = [cupy.cuda.Stream(non_blocking=True) for _ in range(_NUM_BRANCHES)]
        self._num_opened = 0
        self._functions: dict[Kernel, Any] = {}
        # The sequence last repeated, one step of it and many.
        self._graphs: tuple[Callable[[], None], Any, Any] | None = None

    def describe(self) -> str:
        """Name the GPU, driver and CuPy."""
        properties = self._cupy.cuda.runtime.getDeviceProperties(self.number)
        driver = self._cupy.cuda.runtime.driverGetVersion()
        return (
            f"{properties['name'].decode()}, {self.num_multiprocessors} multiprocessors, "
            f"CUDA driver {driver // 1000}.{driver % 1000 // 10}, CuPy {self._cupy.__version__}"
        )

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Make an array; out of memory is a sentence."""
        try:
            array: Array = self._cupy.empty(shape, dtype)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            size = math.prod(shape) * np.dtype(dtype).itemsize
            free, total = self._device.mem_info
            raise BackendError(
                f"The GPU {self.number} is out of memory: {size} more bytes are asked for, "
                f"and {free} of {total} are free; use a smaller --batch-size or network"
            ) from error
        return array

    def upload(self, array: Array) -> Array:
        """Copy to the device; the copy is done when this returns."""
        target = self.empty(np.shape(array), np.asarray(array).dtype)
        self.overwrite(target, array)
        return target

    def download(self, array: Array) -> Array:
        """Wait for the current stream and copy."""
        copy: Array = self._cupy.asnumpy(array)
        return copy

    def overwrite(self, target: Array, source: Array) -> None:
        """Wait for the current stream and copy."""
        cast(Any, target).set(np.ascontiguousarray(source))
        self._cupy.cuda.get_current_stream().synchronize()

    def launch(self, kernel: Kernel, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        """Launch on CuPy's current stream, so that a caller's own work there comes before and after."""
        null = np.uint64(0)
        self._function(kernel)(
            grid, (kernel.threads, 1, 1), tuple(null if argument is None else argument for argument in arguments),
            shared_mem=kernel.shared_bytes,
        )  # fmt: skip

    def _function(self, kernel: Kernel) -> Any:
        function = self._functions.get(kernel)
        if function is None:
            try:
                module = self._cupy.RawModule(
                    code=program_text(kernel.source), options=kernel.options, name_expressions=[kernel.name]
                )
                function = module.get_function(kernel.name)
            except Exception as error:
                # Of many types: no NVRTC, a header that CuPy misses, a compile error, a driver older than the code.
                raise BackendError(
                    f"The kernel {kernel.name} of {kernel.source} cannot be compiled or loaded: {one_line(error)}"
                ) from error
            if kernel.shared_bytes > 48 * 1024:
                # All there is: CuPy gives the same function to kernels that differ in no more than this size.
                function.max_dynamic_shared_size_bytes = self.max_shared_bytes
            self._functions[kernel] = function
        return function

    @contextlib.contextmanager
    def branch(self) -> Iterator[None]:
        """Launch what the block launches beside what follows it: after all that came before, and before ``join``."""
        main = self._cupy.cuda.get_current_stream()
        if main in self._branches:
            # Within a branch all is in order already.
            yield
            return
        side = self._branches[self._num_opened % _NUM_BRANCHES]
        self._num_opened += 1
        side.wait_event(main.record())
        with side:
            yield

    def join(self) -> None:
        """Let what follows wait for all branches."""
        main = self._cupy.cuda.get_current_stream()
        for side in self._branches[: self._num_opened]:
            main.wait_event(side.record())
        self._num_opened = 0

    def repeat(self, sequence: Callable[[], None], times: int, should_stop: Callable[[], bool]) -> None:
        """Run the first step as it is, which loads every kernel; capture it, once for all calls; replay the graph."""
        self._cupy.cuda.get_current_stream().synchronize()
        with self._stream:
            if self._graphs is None or self._graphs[0] != sequence:
                if times < 1:
                    return
                sequence()
                self._stream.synchronize()
                self._graphs = (sequence, self._captured(sequence, 1), self._captured(sequence, _STEPS_A_GRAPH))
                times -= 1
            _, one_step, many_steps = self._graphs
            launches = 1
            while times and not should_stop():
                began = time.perf_counter()
                for _ in range(launches):
                    if times >= _STEPS_A_GRAPH:
                        many_steps.launch(self._stream)
                        times -= _STEPS_A_GRAPH
                    elif times:
                        one_step.launch(self._stream)
                        times -= 1
                self._stream.synchronize()
                # The device should not wait for the host, nor the host's look wait for long.
                if time.perf_counter() - began < _SECONDS_AHEAD / 2:
                    launches *= 2

    def forget(self) -> None:
        """Drop what ``repeat`` captured."""
        self._graphs = None

    def _captured(self, sequence: Callable[[], None], steps: int) -> Any:
        self._stream.begin_capture()
        try:
            for _ in range(steps):
                sequence()
        finally:
            graph = self._stream.end_capture()
        graph.upload(self._stream)
        return graph
