"""Fixtures that tests of several folders share."""

import os
import sys

import numpy as np
import pytest

from fastgan import datasets
from fastgan.errors import DataError
from fastgan.kernels.common import backends, launcher

# As the process was started: some tests change the environment.
_USERS_FOLDER = os.environ.get("FASTGAN_DATA")


@pytest.fixture(params=backends.LANDED)
def backend(request):
    """Each backend that has landed; one that cannot run here skips with its reason."""
    reason = backends.why_not(request.param)
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


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
