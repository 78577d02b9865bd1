"""Peak resident memory of `fastgan train`, each time in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np

from bench import recipe
from bench.harness import ROOT, BenchError, Case, comparison
from fastgan.kernels.common import backends

# What a process runs: fastgan's command, or a Python that imports no more than NumPy and SciPy's BLAS.
_TRAIN = "from fastgan.cli import main; main(sys.argv[1:], standalone_mode=False)"
_IMPORTS = "import numpy, scipy.linalg.blas"
# Linux keeps a high-water mark of each program; getrusage's is never below what the parent process had at its fork.
_PEAK = """
def peak():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
    except (FileNotFoundError, StopIteration):
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
"""
_MNIST_ROWS = 60_000


@comparison("memory", "Peak resident memory of `fastgan train --steps 20`, against a Python with NumPy and SciPy.")
def memory(full: bool) -> Iterator[Case]:
    """Yield a bare Python and each backend on the digits and on MNIST-shaped data, the same in quick and full runs."""
    yield _case("python with NumPy and SciPy", {"data": ""}, _IMPORTS, "")
    for data, num_bytes in (("digits", 64 * 1197), ("60,000 x 784", 784 * _MNIST_ROWS)):
        for backend in recipe.HOST_BACKENDS:
            params = {"data": data, "data MB": f"{num_bytes / 2**20:.1f}"}
            name = f"fastgan train --backend {backend}"
            if (reason := backends.why_not(backend)) is not None:
                yield Case(name, params=params, missing=reason)
            else:
                yield _case(name, params, _TRAIN, data, backend)


def _case(name: str, params: dict[str, str], code: str, data: str, backend: str = "") -> Case:
    run = partial(_peak_megabytes, code, data, backend)
    return Case(name, params=params, run=run, verify=partial(_verify, run), measure="peak MB", threads="")


def _verify(run: partial[float]) -> None:
    assert run() > 1, "a process in less than a megabyte"


def _peak_megabytes(code: str, data: str, backend: str) -> float:
    with tempfile.TemporaryDirectory(dir=recipe.scratch_folder()) as runs:
        arguments = []
        if code == _TRAIN:
            source = ["--dataset", "digits"] if data == "digits" else ["--dataset", str(_mnist_shaped_file())]
            preset = ["--preset", "digits" if data == "digits" else "mnist"]
            arguments = ["train", *source, *preset, "--steps", "20", "--backend", backend, "--runs", runs, "--quiet"]
        program = f"import sys\n{_PEAK}\n{code}\nprint(peak())"
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise BenchError(
            f"memory: {' '.join(arguments)} failed: {(done.stderr.strip().splitlines() or ['nothing'])[-1]}"
        )
    return float(done.stdout.split()[-1])


@cache
def _mnist_shaped_file() -> Path:
    """Save random images once: a user's file is split 80/10/10, so it has a quarter more rows than are learnt."""
    path = recipe.scratch_folder() / "mnist-shaped.npy"
    np.save(path, recipe.random_images(_MNIST_ROWS * 10 // 8).splits["train"].pixels)
    return path
