import os

import pytest

from fastgan import datasets
from fastgan.errors import DataError
from tests.datasets.made_up import isolate, server  # noqa: F401 (a fixture)

USERS_FOLDER = os.environ.get("FASTGAN_DATA")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def real_mnist_folder():
    """$FASTGAN_DATA, if it holds MNIST's files with the right digests."""
    if not USERS_FOLDER:
        pytest.skip("FASTGAN_DATA is not set")
    try:
        problems = [check.problem for check in datasets.verify("mnist", data_dir=USERS_FOLDER) if not check.ok]
    except DataError as error:
        problems = [str(error)]
    if problems:
        pytest.skip("; ".join(problems))
    return USERS_FOLDER
