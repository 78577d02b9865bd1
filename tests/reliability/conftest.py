import sys

import pytest

from tests.reliability import faults

# Signals and forks are not Windows's.
collect_ignore_glob = ["test_*.py"] if sys.platform == "win32" else []


@pytest.fixture(scope="session")
def processes():
    if not sys.platform.startswith("linux"):
        pytest.skip("forks processes and reads /proc, as Linux has them")
    from tests.reliability.server import Server

    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _no_fault_stays():
    yield
    faults.remove()
