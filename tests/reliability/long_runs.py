"""A long run: memory and descriptors stay as they are, metrics stay small, the clock on the wall decides nothing."""

import contextlib
import datetime
import json
import os
import subprocess
import sys
import time

from fastgan.checkpoint import check_finite
from fastgan.training import Callback
from tests.runs_for_tests import trained

# The most that a report may add to metrics.jsonl.
BYTES_A_REPORT = 500


def resident():
    """Bytes of memory in use by this process."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS:"))


def num_descriptors():
    return len(os.listdir("/proc/self/fd"))


class Watch(Callback):
    """Notes memory and descriptors at each checkpoint and each report."""

    def __init__(self):
        self.memory, self.descriptors = [], []

    def on_report(self, line):
        self.memory.append(resident())
        self.descriptors.append(num_descriptors())


def run(config, path):
    """Train, and give what was seen: growth of memory after a quarter of the reports, descriptors, bytes a report."""
    watch = Watch()
    run = trained(config, path, callbacks=[watch])
    assert check_finite(run.loaded.arrays) is None
    settled = watch.memory[len(watch.memory) // 4]
    lines = (path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    assert [json.loads(line) for line in lines] == run.history
    page = (path / "report.html").read_text()
    assert page.rstrip().endswith("</html>")
    return {
        "steps": run.step,
        "reports": len(lines),
        "memory_mb": round(settled / 2**20, 1),
        "grown_mb": round((max(watch.memory[len(watch.memory) // 4 :]) - settled) / 2**20, 2),
        "descriptors": [min(watch.descriptors), max(watch.descriptors)],
        "largest_report_bytes": max(map(len, lines)),
        "report_html_kb": len(page) >> 10,
    }


@contextlib.contextmanager
def jumping_clock():
    """Let the clock on the wall jump by years, forward and back, at every look; the steady ones go on."""
    real, real_ns, count = time.time, time.time_ns, [0]

    def jump():
        count[0] += 1
        return (-1) ** count[0] * 1e8 * (count[0] % 7)

    time.time = lambda: max(real() + jump(), 0.0)
    time.time_ns = lambda: max(real_ns() + int(jump() * 1e9), 0)
    real_datetime = datetime.datetime

    class Jumping(real_datetime):
        @classmethod
        def now(cls, tz=None):
            return real_datetime.fromtimestamp(time.time(), tz)

    datetime.datetime = Jumping
    try:
        yield
    finally:
        time.time, time.time_ns, datetime.datetime = real, real_ns, real_datetime


@contextlib.contextmanager
def busy_machine(num_processes):
    """Keep so many processes computing and moving memory beside what is done."""
    code = "import numpy as np\na = np.ones((1500, 1500), np.float32)\nwhile True: a = np.tanh(a @ a)"
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(num_processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
