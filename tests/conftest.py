"""Fixtures that tests of several folders share."""

import os
import sys

import numpy as np
import pytest

from fastgan import datasets, kernels
from fastgan.errors import DataError
from fastgan.kernels.common import backends, launcher
from tests import requirements
from tests.cuda_emulator import build
from tests.cuda_emulator import runtime as emulator
from tests.kernels import on_device

# As the process was started: some tests change the environment.
_USERS_FOLDER = os.environ.get("FASTGAN_DATA")


@pytest.fixture(params=backends.LANDED)
def backend(request, monkeypatch):
    """Each backend that has landed; cupy on the emulator where no GPU answers. One that cannot run skips and says why.

    On a GPU's backend the test module's operations take its NumPy arrays there and back.
    """
    name = request.param
    if name == "cupy" and backends.why_not(name) is not None:
        request.getfixturevalue("emulated")
    reason = backends.why_not(name)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    for operation in backends.LACKING.get(name, ()):
        if getattr(request.module, operation, None) is getattr(kernels, operation):
            pytest.skip(f"{name} has no {operation}")
    on_device.put_on(monkeypatch, request.module, name)
    return name


@pytest.fixture
def emulated():
    """The CUDA emulator in CuPy's place, as ``launcher.Runtime``."""
    reason = build.why_not()
    if reason is not None:
        requirements.required(reason)
    with emulator.emulated() as runtime:
        yield runtime


@pytest.fixture
def no_cupy(monkeypatch):
    """As on a machine without CuPy."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    launcher.set_runtime(None)
    backends.resolve.cache_clear()
    yield
    backends.resolve.cache_clear()
    launcher.why_not.cache_clear()


@pytest.fixture
def rng():
    """A generator of test data, the same numbers every time."""
    return np.random.default_rng(20140610)


@pytest.fixture(scope="session")
def real_mnist_folder():
    """$FASTGAN_DATA, if it holds MNIST's files with the right digests."""
    if not _USERS_FOLDER:
        pytest.skip("FASTGAN_DATA is not set")
    try:
        problems = [check.problem for check in datasets.verify("mnist", data_dir=_USERS_FOLDER) if not check.ok]
    except DataError as error:
        problems = [str(error)]
    if problems:
        pytest.skip("; ".join(problems))
    return _USERS_FOLDER
