"""Which backends there are, which of them run here and why the others don't, and where their code is."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from types import ModuleType
from typing import Any, Final

from fastgan.errors import BackendError, FastganWarning, one_line
from fastgan.kernels.common import cupy_runtime, launcher
from fastgan.kernels.common.arrays import Array, home_of

# Backend name -> the file in an operation's folder.
FILES: Final = {"reference": "reference", "cpu": "cpu", "cupy": "cupy_raw", "numba-cuda": "numba_cuda"}
# Those whose arrays are in a GPU's memory.
ON_A_GPU: Final = ("cupy", "numba-cuda")
NAMES: Final = ("auto", "cupy", "numba-cuda", "cpu", "reference")
PRECISIONS: Final = ("float32", "tf32")
# What has landed. A backend joins when its files stand in every operation's folder.
LANDED: Final = ("cupy", "numba-cuda", "cpu", "reference")
# Operations that a backend does without: it refuses the networks that need them.
LACKING: Final = {"numba-cuda": ("conv_maxout", "conv_transpose", "max_pool")}


@cache
def resolve(name: str = "auto") -> str:
    """Choose a backend: only ``auto`` chooses, a name is taken at its word.

    Parameters
    ----------
    name : str
        ``auto``, ``cupy``, ``numba-cuda``, ``cpu`` or ``reference``.

    Returns
    -------
    str
        The backend's own name.

    Raises
    ------
    ValueError
        There is no backend of that name.
    BackendError
        The backend exists but cannot run here; the sentence says why.
    """
    if name not in NAMES:
        raise ValueError(f"backend is {name!r}; it must be one of {', '.join(NAMES)}")
    if name == "auto":
        # The fastest that runs here. The reference is slow: it is taken by its name only, never as a way out.
        name = "cpu" if why_not("cupy") else "cupy"
        if name == "cpu" and cupy_runtime.driver_version() and not cupy_runtime.has_cupy():
            warnings.warn(
                f"A GPU's driver answers, but CuPy is not installed, so this runs on the CPU: {cupy_runtime.REMEDY}",
                FastganWarning,
                stacklevel=2,
            )
    reason = why_not(name)
    if reason:
        other = "reference" if name == "cpu" else "auto"
        raise BackendError(f"The backend {name} cannot run here: {reason}; use --backend {other}")
    return name


def why_not(name: str) -> str | None:
    """Say why a backend cannot run here, or None where it can."""
    if name not in LANDED:
        return f"fastgan has no {name} kernels yet"
    if name == "cupy":
        return launcher.why_not()
    if name == "cpu":
        try:
            importlib.import_module("numba")
        except Exception as error:
            # Numba raises what it meets: no package, a NumPy too new for it, a processor that LLVM does not know.
            return f"Numba cannot be imported ({one_line(error)})"
    if name == "numba-cuda":
        return _why_not_numba_cuda()
    return None


def _why_not_numba_cuda() -> str | None:
    try:
        runtime = importlib.import_module("fastgan.kernels.common.numba_runtime")
    except Exception as error:
        # Numba, its CUDA part or CUDA's own bindings are missing or broken.
        return f"Numba's CUDA part cannot be imported ({one_line(error)}): {cupy_runtime.NUMBA_CUDA_REMEDY}"
    reason: str | None = runtime.why_not()
    return reason


def implementation(operation: str, backend: str, precision: str = "float32", /, **arrays: Array | None) -> Any:
    """Import the file of an operation's folder that holds a backend's code.

    Parameters
    ----------
    operation : str
        The operation's package, ``fastgan.kernels.linear`` for one.
    backend : str
        As for ``resolve``; but where there are arrays, ``auto`` is the fastest backend for the memory they are in.
    precision : str
        "float32", or "tf32" where the backend has it.
    **arrays
        The operation's arrays by their names.

    Raises
    ------
    TypeError
        The arrays lie in different memories, or not where the backend computes; the sentence names one.
    """
    homes = {name: home_of(array) for name, array in arrays.items() if array is not None}
    if homes:
        first, home = next(iter(homes.items()))
        for name, other in homes.items():
            if other != home:
                raise TypeError(f"{first} lies {_where(home)} and {name} {_where(other)}; bring them to one place")
        if backend == "auto":
            backend = "cpu" if home == "host" else str(home)
        needed = backend if backend in ON_A_GPU else "host"
        if home != needed and backend in NAMES:
            raise TypeError(f"{first} lies {_where(home)} and the backend {backend} needs it {_where(needed)}")
    name = resolve(backend)
    require_precision(name, precision)
    module = _implementation(operation, name)
    calls = _recorded.get()
    return module if calls is None else _Recorder(module, calls)


# What ``recorded`` fills while it is open.
_recorded: ContextVar[list[Callable[[], object]] | None] = ContextVar("fastgan_recorded", default=None)


@contextmanager
def recorded() -> Iterator[list[Callable[[], object]]]:
    """Keep every call of an operation's backend that is made inside the block, arguments checked, to make it again.

    Yields
    ------
    list of callable
        One a call, in their order.
    """
    calls: list[Callable[[], object]] = []
    token = _recorded.set(calls)
    try:
        yield calls
    finally:
        _recorded.reset(token)


class _Recorder:
    """Stands for a backend's file and keeps each call of a function in it."""

    def __init__(self, module: ModuleType, calls: list[Callable[[], object]]) -> None:
        self._module, self._calls = module, calls

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._module, name)

        def call(*args: Any) -> Any:
            self._calls.append(partial(function, *args))
            return function(*args)

        return call


@cache
def _implementation(operation: str, name: str) -> ModuleType:
    short = operation.rpartition(".")[2]
    if short in LACKING.get(name, ()):
        raise BackendError(f"The backend {name} has no {short}; use --backend {'cupy' if name in ON_A_GPU else 'cpu'}")
    return importlib.import_module(f"{operation}.{FILES[name]}")


def require_operations(backend: str, *operations: str) -> None:
    """Raise unless a backend has these operations, so that what needs them ends before it begins.

    Raises
    ------
    BackendError
        One is missing; the sentence names it.
    """
    for operation in operations:
        _implementation(f"fastgan.kernels.{operation}", backend)


def require_precision(name: str, precision: str) -> None:
    """Raise unless a backend computes in this precision.

    Raises
    ------
    ValueError
        There is no such precision.
    BackendError
        The backend lacks it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    if precision == "tf32" and name != "cupy":
        raise BackendError(f"The backend {name} computes in float32 and has no tf32; leave --precision out")


def _where(home: str | None) -> str:
    return {"host": "on the host", "cupy": "on the GPU, as a CuPy array"}.get(
        str(home), "on the GPU, as an array of numba.cuda"
    )
