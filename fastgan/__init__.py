"""Generative Adversarial Nets (Goodfellow et al., 2014) as fast, small, exact software.

The library in a few names: ``preset`` and ``Config`` say what to train, ``train`` and ``resume`` do it, ``load_run``
reads a run, ``parzen`` scores samples; ``fastgan.datasets`` and ``fastgan.kernels`` are there for themselves.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastgan.config import Config
    from fastgan.errors import FastganError, FastganWarning
    from fastgan.presets import preset
    from fastgan.runs import Run, load_run
    from fastgan.scoring import ParzenScore, parzen, sigma_grid
    from fastgan.training import Callback, resume, train

# Imported when they are first used, so that the command line's help does not wait for NumPy.
_HOMES = {
    "Callback": "training",
    "Config": "config",
    "FastganError": "errors",
    "FastganWarning": "errors",
    "ParzenScore": "scoring",
    "Run": "runs",
    "load_run": "runs",
    "parzen": "scoring",
    "preset": "presets",
    "resume": "training",
    "sigma_grid": "scoring",
    "train": "training",
}

__all__ = [
    "Callback",
    "Config",
    "FastganError",
    "FastganWarning",
    "ParzenScore",
    "Run",
    "load_run",
    "parzen",
    "preset",
    "resume",
    "sigma_grid",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastgan' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fastgan.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
