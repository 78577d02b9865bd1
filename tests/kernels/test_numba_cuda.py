"""The backend numba-cuda without a GPU: in Numba's simulator, by the real compiler, and in what it says."""

import functools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from fastgan.cli import main
from fastgan.errors import BackendError
from fastgan.kernels.common import backends, numba_runtime
from fastgan.kernels.common.devices import device
from tests.requirements import required

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SIMULATED = [sys.executable, "-m", "pytest", "-q", "tests/kernels/simulated_numba_cuda.py"]
PROCESSES = {
    "small tiles": (SIMULATED, {"NUMBA_ENABLE_CUDASIM": "1"}),
    "real tiles": (SIMULATED, {"NUMBA_ENABLE_CUDASIM": "1", "SIMULATED_TILES": "real"}),
    "compiler": ([sys.executable, "tests/kernels/compile_numba_cuda.py"], {}),
}
# Those in which the product is, on which a step's time depends.
OF_PRODUCTS = re.compile(r"_forward|maxout|input_kernel|weights_kernel")


@functools.cache
def started():
    """Start all of them, side by side: conftest.py does, before the first test of all."""
    environment = {key: value for key, value in os.environ.items() if key not in ("NUMBA_ENABLE_CUDASIM",)}
    return {
        name: subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**environment, "PYTHONPATH": str(ROOT), **settings},
        )
        for name, (command, settings) in PROCESSES.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def numba_processes():
    return started()


@pytest.mark.parametrize(("name", "at_least"), [("small tiles", 60), ("real tiles", 4)])
def test_in_the_simulator(numba_processes, name, at_least):
    output, errors = numba_processes[name].communicate(timeout=600)
    assert numba_processes[name].returncode == 0, output + errors
    # That they ran, and were not skipped.
    assert int(re.search(r"(\d+) passed", output).group(1)) >= at_least


@pytest.fixture(scope="module")
def compiled(numba_processes):
    output, errors = numba_processes["compiler"].communicate(timeout=600)
    if numba_processes["compiler"].returncode:
        # Numba's error for a library that it does not find; any other is a fault of a kernel.
        missing = re.search("NvvmSupportError|DynamicLibNotFoundError|ModuleNotFoundError|bindings not found", errors)
        if missing:
            required(f"CUDA's compiler is not installed ({missing.group()}): pip install 'fastgan[test]', on Linux")
        pytest.fail(errors[-4000:])
    return json.loads(output)


def test_every_kernel_compiles(compiled):
    written = set()
    for path in (ROOT / "kernels").glob("*/numba_*.py"):
        module = f"fastgan.kernels.{path.parent.name}.{path.stem}"
        written |= {
            f"{module}.{name}" for name in re.findall(r"^ *@kernel\n *def (\w+)", path.read_text(), re.MULTILINE)
        }
    assert len(written) >= 15
    for dtype in ("float32", "float64"):
        assert {name.partition("(")[0] for name in compiled[dtype]} == written


def test_no_kernel_is_compiled_twice(compiled):
    # Data are stored in two types; all else has one signature, whatever is given and whatever is left out.
    assert Counter({name: len(ptx) for name, ptx in compiled["float32"].items() if len(ptx) != 1}) == {
        "fastgan.kernels.gather.numba_cuda._rows()": 2
    }


def test_sums_stay_in_registers_and_functions_are_taken_in(compiled):
    products = {
        name: text for name, ptx in compiled["float32"].items() for text in ptx.values() if OF_PRODUCTS.search(name)
    }
    # Forward of linear and of maxout for 1 to 8 pieces at a time, and two backward kernels of each layer.
    assert len(products) == 1 + 8 + 4
    for name, text in products.items():
        assert "fma.rn.f32" in text, name
        assert "__local_depot" not in text, name
        assert not re.search(r"^\s*call", text, re.MULTILINE), name
        # A float64 beside db's sums and the rates would be an accident of Numba's types.
        assert ".f64" not in text or "weights_kernel" in name, name


def test_scaled_uniforms_are_rounded_twice(compiled):
    (text,) = compiled["float32"]["fastgan.kernels.noise.numba_cuda._uniform()"].values()
    assert "add.f32" in text
    assert "fma.rn.f32" not in text


def gpus(*capabilities):
    return [SimpleNamespace(compute_capability=capability) for capability in capabilities]


class Broken:
    def __len__(self):
        raise ImportError("Error at driver init:\nno driver\n")


def fails(*_, **__):
    raise FileNotFoundError("libnvvm.so: cannot open shared object file")


@pytest.mark.parametrize(
    ("cuda", "reason"),
    [
        ({"gpus": Broken()}, r"^no GPU answers \(Error at driver init: no driver\)$"),
        ({"gpus": gpus()}, r"^no GPU answers \(the driver counts none\)$"),
        ({"gpus": gpus((7, 0))}, r"^the GPU has compute capability 7.0 and the kernels need 7.5 or newer$"),
        (
            {"gpus": gpus((9, 0)), "compile_ptx": fails},
            r"^Numba cannot compile for the GPU \(libnvvm.so: cannot .*\): pip install 'numba-cuda\[cu12\]'",
        ),
        ({"gpus": gpus((9, 0)), "compile_ptx": lambda *_, **__: None}, None),
    ],
)
def test_why_it_cannot_run(monkeypatch, cuda, reason):
    monkeypatch.setattr(numba_runtime, "cuda", SimpleNamespace(**cuda))
    found = backends.why_not("numba-cuda")
    assert found is None if reason is None else re.search(reason, found)


def test_a_numba_without_cuda(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastgan.kernels.common.numba_runtime", None)
    backends.resolve.cache_clear()
    with pytest.raises(BackendError, match=r"numba-cuda cannot run here: Numba's CUDA part .*numba-cuda\[cu12\]"):
        device("numba-cuda")


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["for real", "dry"])
def test_the_command_line_says_so_and_does_not_fall_back(monkeypatch, tmp_path, dry_run):
    monkeypatch.setattr(numba_runtime, "cuda", SimpleNamespace(gpus=gpus()))
    backends.resolve.cache_clear()
    result = CliRunner().invoke(main, ["train", "--backend=numba-cuda", f"--runs={tmp_path}", *dry_run])
    assert result.exit_code == 1
    assert "The backend numba-cuda cannot run here: no GPU answers (the driver counts none)" in result.output
    assert not list(tmp_path.iterdir())


def test_out_of_memory_is_a_sentence(monkeypatch):
    def full(shape, dtype):
        raise RuntimeError("[CUresult.CUDA_ERROR_OUT_OF_MEMORY] Call to cuMemAlloc")

    def broken(shape, dtype):
        raise RuntimeError("[CUresult.CUDA_ERROR_ILLEGAL_ADDRESS]")

    context = SimpleNamespace(get_memory_info=lambda: (5, 7))
    monkeypatch.setattr(numba_runtime, "cuda", SimpleNamespace(device_array=full, current_context=lambda: context))
    with pytest.raises(BackendError, match="out of memory: 24 more bytes are asked for, and 5 of 7 are free; use a sm"):
        numba_runtime.empty((2, 3), np.float32)
    monkeypatch.setattr(numba_runtime, "cuda", SimpleNamespace(device_array=broken))
    with pytest.raises(RuntimeError, match="ILLEGAL_ADDRESS"):
        numba_runtime.empty((2, 3), np.float32)


@pytest.mark.parametrize(
    ("number", "message"), [(2, "there is no GPU 2: the driver counts 2"), (0, "computes on GPU 1")]
)
def test_another_gpu(monkeypatch, number, message):
    monkeypatch.setattr(numba_runtime, "cuda", SimpleNamespace(gpus=gpus((9, 0), (9, 0))))
    monkeypatch.setattr(numba_runtime, "_number", 1)
    with pytest.raises(BackendError, match=message):
        numba_runtime.select(number)
