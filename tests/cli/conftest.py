import pytest

import fastgan
from tests.runs_for_tests import TINY


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory):
    """Two finished runs, to be read and never changed."""
    runs_dir = tmp_path_factory.mktemp("cli") / "runs"
    fastgan.train(TINY, runs_dir=runs_dir)
    fastgan.train(TINY.replace({"seed": 4, "epochs": 2}), runs_dir=runs_dir)
    return runs_dir


@pytest.fixture
def runs(runs_dir, monkeypatch):
    """The two runs, where the commands look for runs."""
    monkeypatch.setenv("FASTGAN_RUNS", str(runs_dir))
    return runs_dir


@pytest.fixture
def run(runs_dir):
    """The newer of the two, as the library reads it."""
    return fastgan.load_run(runs_dir / "00002-digits-seed4")


@pytest.fixture(autouse=True)
def _plain(monkeypatch, tmp_path_factory):
    """No settings of the user's, a working folder of the test's own, and no word of what has to be compiled."""
    monkeypatch.setattr("fastgan.kernels.common.loops._has_told", True)
    for name in ("FASTGAN_RUNS", "FASTGAN_DATA", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
