"""Which backends there are, which of them run here and why the others don't, and where their code is."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from types import ModuleType
from typing import Final

from fastgan.errors import BackendError

# Backend name -> the file in an operation's folder.
FILES: Final = {"reference": "reference", "cpu": "cpu", "cupy": "cupy_raw", "numba-cuda": "numba_cuda"}
NAMES: Final = ("auto", "cupy", "numba-cuda", "cpu", "reference")
# What has landed. A backend joins when its files stand in every operation's folder.
LANDED: Final = ("cpu", "reference")


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
        # The fastest that has landed. The reference is slow: it is taken by its name only, never as a way out.
        name = "cpu"
    reason = why_not(name)
    if reason:
        other = "reference" if name == "cpu" else "auto"
        raise BackendError(f"The backend {name} cannot run here: {reason}; use --backend {other}")
    return name


def why_not(name: str) -> str | None:
    """Say why a backend cannot run here, or None where it can."""
    if name not in LANDED:
        return f"fastgan has no {name} kernels yet"
    if name == "cpu":
        try:
            importlib.import_module("numba")
        except Exception as error:
            # Numba raises what it meets: no package, a NumPy too new for it, a processor that LLVM does not know.
            return f"Numba cannot be imported ({' '.join(str(error).split()) or type(error).__name__})"
    return None


@cache
def implementation(operation: str, backend: str) -> ModuleType:
    """Import the file of an operation's folder that holds a backend's code.

    Parameters
    ----------
    operation : str
        The operation's package, ``fastgan.kernels.linear`` for one.
    backend : str
        As for ``resolve``.
    """
    return importlib.import_module(f"{operation}.{FILES[resolve(backend)]}")
