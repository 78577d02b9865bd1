"""What the tests of the comparisons share."""

import pytest

from fastgan.kernels.common import threads


@pytest.fixture(autouse=True)
def one_thread():
    """Compute in one thread: on a machine with other work two would wait for each other longer than they compute."""
    with threads.limit(1):
        yield
