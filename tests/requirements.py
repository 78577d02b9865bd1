"""What a machine may lack: a test that needs it skips with the reason, and fails where all must be there."""

import os
from typing import NoReturn

import pytest

# Set to 1 where nothing may be missing.
VARIABLE = "FASTGAN_CI"


def required(reason: str) -> NoReturn:
    """Skip the test that runs, or fail it where $FASTGAN_CI is 1.

    Parameters
    ----------
    reason : str
        What is missing.
    """
    if os.environ.get(VARIABLE) == "1":
        pytest.fail(f"{reason}; with {VARIABLE}=1 that is a failure", pytrace=False)
    pytest.skip(reason)
