"""The GPU that answers: its name, driver and versions, and what its data sheet promises.

``python -m bench.gpu.machine`` prints it as JSON, or the reason why there is none.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

import fastgan
from bench.harness import Roof, slug
from fastgan.errors import BackendError
from fastgan.kernels.common import cupy_runtime, launcher


class Machine(NamedTuple):
    """A GPU for people, and for the name of a folder."""

    hardware: str
    folder: str
    driver: str


# What the makers state, dense and without sparsity: float32 FMA, TF32 tensor cores (FLOP/s), and memory (bytes/s).
_STATED = {"H200": (66.9e12, 494.7e12, 4.8e12), "H100 80GB HBM3": (66.9e12, 494.7e12, 3.35e12)}


def why_not() -> str | None:
    """Say why nothing can be checked here, or None."""
    return launcher.why_not()


def this_machine() -> Machine:
    """Name the GPU in use and its driver.

    Raises
    ------
    BackendError
        None answers.
    """
    runtime = launcher.runtime()
    driver = _ask("driver_version") or "unknown"
    name = _ask("name") or runtime.describe().partition(",")[0]
    return Machine(f"{runtime.describe()}, driver {driver}", f"gpu-{slug(name)}", driver)


def _ask(what: str) -> str | None:
    """Ask nvidia-smi; it is not everywhere."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = subprocess.run(
        [tool, f"--query-gpu={what}", "--format=csv,noheader", "--id=0"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def roof(hardware: str, precision: str) -> Roof | None:
    """Give what the data sheet promises of a GPU, where it is known here."""
    for name, (float32, tf32, memory) in _STATED.items():
        if name in hardware:
            return Roof(f"{name} data sheet, {precision}", tf32 if precision == "tf32" else float32, memory)
    return None


def installed(*packages: str) -> str:
    """Name the versions of packages, leaving out those that are not there."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def versions() -> str:
    """Name what computes on the GPU: Python, NumPy, CuPy, NVRTC, Numba."""
    python = ".".join(map(str, sys.version_info[:3]))
    named = [f"Python {python}", f"fastgan {fastgan.__version__}"]
    named.append(installed("numpy", "cupy-cuda13x", "cupy-cuda12x", "cupy", "numba", "numba-cuda"))
    cupy: Any = cupy_runtime.import_cupy()
    major, minor = cupy.cuda.nvrtc.getVersion()
    return ", ".join([*filter(None, named), f"NVRTC {major}.{minor}"])


def main() -> None:
    """Print what answers; exit 1 where nothing does."""
    reason = why_not()
    if reason is None:
        try:
            print(json.dumps({**this_machine()._asdict(), "versions": versions()}))
            return
        except BackendError as error:
            reason = str(error)
    print(reason)
    sys.exit(1)


if __name__ == "__main__":
    main()
