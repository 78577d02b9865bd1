"""How long a command takes that computes nothing: the wall time of a process whose files the system has read before."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.harness import Case, comparison

# What a person does not notice: `fastgan --help` is to stay below it on any machine of the last ten years.
HELP_AT_MOST = "0.3 s"


@comparison("startup", "The start of the command, against a Python that does nothing.")
def startup(full: bool) -> Iterator[Case]:
    """Yield the commands; they are the same in a quick and in a full run."""
    # The command of this very environment, not another's that stands earlier on the path.
    fastgan = shutil.which("fastgan", path=str(Path(sys.executable).parent))
    yield _case("python -c pass", [sys.executable, "-c", "pass"], says="", params={})
    for arguments, says, params in (
        ("--version", "version", {}),
        ("--help", "Usage", {"at most": HELP_AT_MOST}),
        ("train --dry-run", "digits", {}),
    ):
        name = f"fastgan {arguments}"
        if fastgan is None:
            missing = "not installed in this environment: pip install -e ."
            yield Case(name, params=params, missing=missing, precision="")
        else:
            yield _case(name, [fastgan, *arguments.split()], says, params)


def _case(name: str, command: list[str], says: str, params: dict[str, str]) -> Case:
    return Case(
        name,
        params=params,
        run=partial(_run, command),
        verify=partial(_verify, command, says),
        precision="",
        threads="",
    )


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def _verify(command: list[str], says: str) -> None:
    done = _run(command)
    last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
    assert done.returncode == 0, f"it ended with exit code {done.returncode} and said: {last}"
    assert says in done.stdout, f"it was to say {says!r}, and said {done.stdout!r}"
