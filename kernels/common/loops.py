"""Numba, as the backend ``cpu`` uses it: loops compiled once, kept on disk, run by as many threads as are in force.

This file is the only one of the backend that knows how Numba is set up. Importing it imports Numba (0.3 s), so only
the files ``cpu.py`` do.

- Compiled for the types they meet, at their first call; kept beside the source, or where ``NUMBA_CACHE_DIR`` says, so
  that a second start compiles nothing. Where no such folder can be written they live in memory, and a warning says so.
- A loop runs in parallel where it has enough to do, and BLAS never at the same time. What a loop computes does not
  depend on the number of threads: no sum is ever split between them.
- NaN is a value like others: no loop is compiled with the flags that assume there is none.
- The threading layer is OpenMP where Numba can load it, as on Linux with GNU's, which nearly every machine has: its
  threads look out for the next loop for a while before they sleep, so that a loop of a training step begins in 2
  microseconds. Numba's own ``workqueue``, which is always there, takes 150 to 300 for it, so with it only far larger
  loops are shared. A program that runs other parallel Numba code may choose by ``NUMBA_THREADING_LAYER``.
- GNU's OpenMP does not survive a fork: in a child of a process that has run a parallel loop no loop is parallel.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import types
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numba

from fastgan.errors import FastganWarning
from fastgan.kernels.common.threads import num_threads

LOG = logging.getLogger(__name__)
_Function = TypeVar("_Function", bound=Callable[..., Any])

prange = numba.prange

_settings: Any = numba.config


# How often a thread looks out for the next loop before it sleeps. By default it looks for milliseconds: where other
# work keeps a core busy it holds the very core that the thread it waits for needs, and a training step took more than
# ten times as long. So few looks cost a step on a quiet machine nothing that shows.
_SPINS = "GOMP_SPINCOUNT"


def _choose_threading_layer() -> str:
    if _settings.THREADING_LAYER == "default":
        # GNU's OpenMP reads it when it is loaded; it is taken back as it is not meant for anybody else's.
        sets_spins = not {_SPINS, "OMP_WAIT_POLICY"} & os.environ.keys()
        if sets_spins:
            os.environ[_SPINS] = "3000"
        try:
            importlib.import_module("numba.np.ufunc.omppool")
        except ImportError:
            _settings.THREADING_LAYER = "workqueue"
        else:
            _settings.THREADING_LAYER = "omp"
        finally:
            if sets_spins:
                del os.environ[_SPINS]
    return str(_settings.THREADING_LAYER)


_LAYER = _choose_threading_layer()
# Elements that a loop must touch before a second thread is worth waking: 5 microseconds of one, or a millisecond.
PARALLEL_SIZE = 1 << (20 if _LAYER == "workqueue" else 14)

# Of what Numba can make parallel, only what says so: it compiles in half the time, and every copy of a slice stays one.
_PRANGE_ONLY = {
    "prange": True,
    **dict.fromkeys(("comprehension", "fusion", "inplace_binop", "numpy", "reduction", "setitem", "stencil"), False),
}

_one_loop_at_a_time = threading.Lock()
_has_warned = False
_has_told = False

# Whether threads were started here, and whether they were left behind in the process that this one was forked from.
_has_threads = False
_lost_threads = False


def _after_fork() -> None:
    global _lost_threads, _one_loop_at_a_time
    _lost_threads = _has_threads
    # Another thread of the parent may have held it.
    _one_loop_at_a_time = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Loop:
    """A compiled function of arrays and numbers, called with ``size=``, the number of elements that it touches.

    Or with ``parts=``, where its ``prange`` runs over so many parts of a work that was shared out before.

    Parameters
    ----------
    function : callable
        What to compile. Its ``prange`` is what threads share, where ``size`` is large enough to share anything.
    fastmath : set of str
        LLVM's flags; none by default.
    """

    def __init__(self, function: Callable[..., None], fastmath: frozenset[str] = frozenset()) -> None:
        self._serial = _compiled(function, fastmath)
        # The copy has a name of its own, as the files on disk are named after it.
        renamed = _renamed(function, f"{function.__name__}_parallel")
        self._parallel = _compiled(renamed, fastmath, parallel=_PRANGE_ONLY)

    def __call__(self, *args: Any, size: int = 0, parts: int | None = None) -> None:
        """Run it."""
        global _has_threads
        threads = min(num_threads(), _settings.NUMBA_NUM_THREADS)
        if threads == 1 or _lost_threads or (size < PARALLEL_SIZE if parts is None else parts == 1):
            self._serial(*args)
            return
        with _one_loop_at_a_time:
            _has_threads = True
            # The number is the calling thread's own in Numba, so it is set where it is used.
            if numba.get_num_threads() != threads:
                numba.set_num_threads(threads)
            self._parallel(*args)


def loop(function: Callable[..., None]) -> Loop:
    """Compile a function that Python calls."""
    return Loop(function)


def loop_with(*fastmath: str) -> Callable[[Callable[..., None]], Loop]:
    """Compile a function that Python calls, with some of LLVM's flags."""
    return lambda function: Loop(function, frozenset(fastmath))


def inlined(function: _Function) -> _Function:
    """Compile a function that only loops call, without flags."""
    compiled: _Function = _compiled(function, frozenset(), forceinline=True)
    return compiled


def called(function: _Function) -> _Function:
    """Compile a function that only loops call and that is too large to be copied into each of them."""
    compiled: _Function = _compiled(function, frozenset())
    return compiled


def inlined_with(*fastmath: str) -> Callable[[_Function], _Function]:
    """Compile a function that only loops call, with some of LLVM's flags; it does not take over its caller's."""

    def compile_it(function: _Function) -> _Function:
        compiled: _Function = _compiled(function, frozenset(fastmath), forceinline=True)
        return compiled

    return compile_it


def _compiled(function: Callable[..., Any], fastmath: frozenset[str], **more: Any) -> Any:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath), **more}
    try:
        dispatcher = numba.njit(cache=True, **options)(function)
    except RuntimeError as error:
        # Numba finds no folder that it can write.
        if "cannot cache" not in str(error):
            raise
        _warn(str(error))
        return numba.njit(**options)(function)
    _tend(dispatcher._cache)
    return dispatcher


def _tend(cache: Any) -> None:
    """Mend two habits of Numba's cache, of which it has no public interface.

    It knows a function by its own file alone, and would go on using one whose callee in another file has changed: so
    the stamp of the files that all loops share joins each function's own. And it lets a full or lost disk end the
    call, though the code that it failed to keep is compiled and right.
    """
    file = cache._cache_file
    file._source_stamp = (file._source_stamp, _SHARED_STAMP)
    load, save = (_if_possible(getattr(cache, name), cache.cache_path) for name in ("load_overload", "save_overload"))
    cache.load_overload, cache.save_overload = _telling(load), save


def _if_possible(of_cache: Callable[..., Any], path: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        try:
            return of_cache(*args)
        except OSError as error:
            _warn(f"{path}: {error.strerror or error}")
            return None

    return call


def _telling(load: Callable[..., Any]) -> Callable[..., Any]:
    """Say, once, that something has to be compiled: a first start takes long."""

    def call(*args: Any) -> Any:
        global _has_told
        found = load(*args)
        if found is None and not _has_told:
            _has_told = True
            LOG.info("Compiling for this processor, which takes up to a minute the first time.")
        return found

    return call


def _stamp_of_shared_files() -> tuple[tuple[float, int], ...]:
    folder = os.path.dirname(__file__)
    names = ("loops.py", "philox_loops.py", "products.py", "sums.py", "vectors.py")
    stats = [os.stat(os.path.join(folder, name)) for name in names]
    return tuple((stat.st_mtime, stat.st_size) for stat in stats)


_SHARED_STAMP = _stamp_of_shared_files()


def _warn(reason: str) -> None:
    global _has_warned
    if not _has_warned:
        _has_warned = True
        warnings.warn(
            f"compiled kernels cannot be kept on disk ({reason}), so every start compiles them again: "
            "set NUMBA_CACHE_DIR to a folder that can be written",
            FastganWarning,
            stacklevel=2,
        )


def _renamed(function: Callable[..., None], name: str) -> Callable[..., None]:
    code = function.__code__.replace(co_name=name)
    assert isinstance(function, types.FunctionType)
    renamed = types.FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
    renamed.__module__, renamed.__qualname__ = function.__module__, name
    return renamed
