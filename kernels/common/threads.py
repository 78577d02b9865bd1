"""How many threads this process computes with: BLAS, for the reference, and every loop of our own.

BLAS keeps the number that ``limit`` sets. A compiled loop asks ``num_threads`` each time that it runs, so that Numba
is neither imported nor told anything here. The two never run at the same time.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from threadpoolctl import threadpool_limits

_limit: ContextVar[int | None] = ContextVar("fastgan_threads", default=None)


def available_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_threads() -> int:
    """Give the number of threads in force: that of the innermost ``limit``, else the cores that the process may use."""
    return _limit.get() or available_cores()


@contextmanager
def limit(threads: int | None) -> Iterator[int]:
    """Compute with this many threads inside the block; None takes the cores that the process may use.

    Parameters
    ----------
    threads : int, optional
        1 or more.

    Yields
    ------
    int
        The number in force.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; it must be 1 or more")
    # A limit holds for the libraries that are loaded when it is set: SciPy's BLAS, which does our products, has to be.
    importlib.import_module("scipy.linalg.blas")
    number = threads or available_cores()
    token = _limit.set(number)
    try:
        with threadpool_limits(limits=number):
            yield number
    finally:
        _limit.reset(token)
