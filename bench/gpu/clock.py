"""Device time of sequences of launches, and kernels compiled on all cores beforehand.

This file alone reaches into ``CupyRuntime``: its stream, its capture and its compiler.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, TimeoutError, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from fastgan.errors import BackendError
from fastgan.kernels.common import cupy_runtime, launcher
from fastgan.kernels.common.kernel import Kernel

_WARM_UP = 3


class Clock(Protocol):
    """Says how long a sequence of launches takes on the device."""

    def times(self, sequence: Callable[[], object], repeats: int, rounds: int, launches: int = 1) -> list[float]:
        """Time a sequence, ``repeats`` of it in a graph that is launched so often, ``rounds`` times.

        The sequence must have run before.

        Returns
        -------
        list of float
            Seconds of one run of the sequence, as each round found them.
        """


class GraphClock:
    """Device events around launches of a captured graph."""

    name = "device events"

    def __init__(self) -> None:
        runtime = launcher.runtime()
        if not isinstance(runtime, cupy_runtime.CupyRuntime):
            raise BackendError("only a GPU has a clock of its own")
        self._runtime = runtime
        self._cuda: Any = cupy_runtime.import_cupy().cuda

    def times(self, sequence: Callable[[], object], repeats: int, rounds: int, launches: int = 1) -> list[float]:
        """Time a sequence, as ``Clock`` says."""
        graph = self.captured(sequence, repeats)
        seconds = self.graph_times(graph, rounds, launches)
        return [each / repeats for each in seconds]

    def captured(self, sequence: Callable[[], object], repeats: int) -> Any:
        """Capture a sequence so many times as one graph, when what it was given is done on the current stream."""
        self._cuda.get_current_stream().synchronize()
        with self._runtime._stream:
            return self._runtime._captured(lambda: void(sequence), repeats)

    def eager_times(self, run: Callable[[], object], rounds: int) -> list[float]:
        """Time what CuPy itself launches, which cannot always be captured; seconds of one run in each round."""
        stream = self._runtime._stream
        seconds = []
        with stream:
            for i in range(_WARM_UP + rounds):
                begin, end = self._cuda.Event(), self._cuda.Event()
                begin.record(stream)
                run()
                end.record(stream)
                end.synchronize()
                if i >= _WARM_UP:
                    seconds.append(self._cuda.get_elapsed_time(begin, end) * 1e-3)
        return seconds

    def graph_times(self, graph: Any, rounds: int, launches: int = 1) -> list[float]:
        """Time launches of a graph; seconds of one launch in each round."""
        stream = self._runtime._stream
        for _ in range(_WARM_UP):
            graph.launch(stream)
        seconds = []
        for _ in range(rounds):
            begin, end = self._cuda.Event(), self._cuda.Event()
            begin.record(stream)
            for _ in range(launches):
                graph.launch(stream)
            end.record(stream)
            end.synchronize()
            seconds.append(self._cuda.get_elapsed_time(begin, end) * 1e-3 / launches)
        return seconds


def void(sequence: Callable[[], object]) -> None:
    """Run a sequence and forget what it gives."""
    sequence()


def compile_all(kernels: Iterable[Kernel], seconds: float, say: Callable[[str], None] = print) -> set[Kernel]:
    """Compile kernels in processes of their own, so that CuPy finds them on the disk afterwards.

    Parameters
    ----------
    kernels : iterable of Kernel
    seconds : float
        How long it may take.
    say : callable
        Takes a line about what could not be compiled.

    Returns
    -------
    set of Kernel
        Those that are compiled: not those that failed, nor those whose turn did not come.
    """
    wanted = list(dict.fromkeys(kernels))
    compiled: set[Kernel] = set()
    workers = min(max((os.cpu_count() or 2) - 2, 1), 16, len(wanted))
    if not wanted:
        return compiled
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        waiting = {pool.submit(_compile, kernel): kernel for kernel in wanted}
        for done in as_completed(waiting, timeout=max(seconds, 1)):
            reason = done.result()
            if reason is None:
                compiled.add(waiting[done])
            else:
                say(reason)
    except BrokenProcessPool:
        say(f"a process that compiles was ended; {len(compiled)} of {len(wanted)} kernels are compiled")
    except TimeoutError:
        say(f"{len(compiled)} of {len(wanted)} kernels were compiled within {seconds:.0f} s")
    finally:
        # What runs is let go: a compilation cannot be cancelled.
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
    return compiled


def _compile(kernel: Kernel) -> str | None:
    try:
        runtime = launcher.runtime()
        assert isinstance(runtime, cupy_runtime.CupyRuntime)
        runtime._function(kernel)
    except BackendError as error:
        return str(error)
    return None


def quartiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Give the first quartile, the median and the third."""
    import statistics

    if len(seconds) < 2:
        return (seconds[0],) * 3
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return low, median, high
