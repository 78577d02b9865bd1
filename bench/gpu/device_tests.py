"""The tests on the device: pytest, in this process, with every outcome on the disk as it comes.

``--which operations`` runs those of the operations and of the trainer on the GPU's backends, ``--which gpu`` those that
need a GPU (tests/gpu).
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from typing import Any

import pytest

from bench.gpu import part
from bench.gpu.part import FAILED, PASSED, Context, Table
from bench.harness import ROOT
from fastgan.kernels.common import backends

# By the names of the backends among the tests' parameters, without what puts another thing in CuPy's place.
_ON_A_GPU = f"({' or '.join(backends.ON_A_GPU)}) and not test_cupy_runtime and not with_cupy"
SELECTIONS = {
    "operations": ["tests/kernels", "tests/test_trainer.py", "-k", _ON_A_GPU],
    "gpu": ["tests/gpu"],
}
_MOST_WORKERS = 8


class Outcomes:
    """A plugin of pytest that writes a row a test, also where several processes run them."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Write what came of a test; of its set-up and tear-down only what went wrong."""
        if report.when != "call" and report.outcome == "passed":
            return
        outcome = "error" if report.when != "call" and report.outcome == "failed" else report.outcome
        reason = ""
        if report.outcome == "skipped" and isinstance(report.longrepr, tuple | list):
            reason = str(report.longrepr[2])
        elif report.outcome == "failed":
            reason = " ".join(str(report.longreprtext).split())[-300:]
            self.failed.append(report.nodeid)
        self.counts[outcome] += 1
        self._table.add(
            {"test": report.nodeid, "outcome": outcome, "seconds": f"{report.duration:.3f}", "reason": reason}
        )


def run(context: Context, which: str = "operations") -> int:
    """Run the tests; a warning is not a failure here: a machine's packages are as they are."""
    os.chdir(ROOT)
    arguments = [*SELECTIONS[which], "-W", "default", "-q", "--tb=short"]
    if importlib.util.find_spec("xdist") is not None and (os.cpu_count() or 1) >= 4:
        # Most of the time goes to the compiler.
        arguments += ["-n", str(min(_MOST_WORKERS, (os.cpu_count() or 1) // 2))]
    with context.table(f"tests-{which}", ("test", "outcome", "seconds", "reason")) as table:
        outcomes = Outcomes(table)
        status = pytest.main(arguments, plugins=[outcomes])
    counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.counts.items()))
    ran = outcomes.counts["passed"] + outcomes.counts["failed"]
    for test in outcomes.failed:
        print(f"FAILED {test}")
    print(f"tests, {which}: {counts or 'none'}" + ("" if ran else "; nothing ran on the device"))
    return PASSED if status == pytest.ExitCode.OK and ran else FAILED


if __name__ == "__main__":
    part.main(run, "which")
