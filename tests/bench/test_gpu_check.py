"""The frame of gpu-check: steps in processes of their own, limits of time, tables, the page. No GPU is needed."""

import csv
import os
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import gpu_check
from bench.gpu import part
from bench.gpu.part import Context
from bench.gpu_check import Outcome, Part, Step
from fastgan.kernels.common import launcher

COMMON = {"hardware": "NVIDIA Probe, 3 multiprocessors", "versions": "Python 3", "commit": "0123", "date": "2026-01-01"}

# Stands for the modules of parts.
MODULE = """
import os, signal, subprocess, sys, time
from bench.gpu import part

def run(context, what):
    print("begins", what)
    with context.table(what, ("n", "note")) as table:
        table.add({"n": 1, "note": context.data_dir or ""})
        if what == "hangs":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            table.add({"n": child.pid})
            time.sleep(60)
        if what == "leaves":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            table.add({"n": child.pid})
            child.returncode = 0
        if what == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == "raises":
            raise RuntimeError("this part is broken")
        table.add({"n": 2, "note": os.environ.get("PROBE", "")})
    print("the last line of", what)
    return {"refuses": part.NOT_HERE, "fails": part.FAILED}.get(what, part.PASSED)

part.main(run, "what")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "gpu_probe.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "gpu_probe"


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def one(module, what, seconds=30.0, **environment):
    return Step(what, module, ("--what", what), seconds, environment)


def check(parts, folder, seconds=60.0):
    lines, outcomes = [], []
    gpu_check.run_parts(parts, folder, COMMON, None, seconds, lines.append, outcomes)
    return {outcome.step: outcome for outcome in outcomes}, lines


def test_a_part_that_breaks_leaves_the_others_alone(module, tmp_path):
    names = ("crashes", "raises", "fails", "refuses", "works")
    parts = [Part(name, "a title", (one(module, name, PROBE="seen"),), 30.0) for name in names]
    found, lines = check(parts, tmp_path / "out")
    assert [found[name].result for name in names] == ["failed", "failed", "failed", "not here", "passed"]
    assert found["crashes"].line.startswith("ended by signal 11")
    assert found["raises"].line == "RuntimeError: this part is broken"
    assert found["works"].line == "the last line of works"
    assert "  begins works" in lines
    assert rows_of(tmp_path / "out" / "check" / "works.csv") == [
        {"n": "1", "note": "", **COMMON},
        {"n": "2", "note": "seen", **COMMON},
    ]
    assert (tmp_path / "out" / "check" / "raises-raises.log").read_text().count("this part is broken") == 2


def test_what_hangs_is_ended_with_all_it_started_and_its_rows_stay(module, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "_GRACE", 0.5)
    parts = [Part("slow", "a title", (one(module, "hangs", 6.0), one(module, "works")), 30.0)]
    began = time.monotonic()
    found, _ = check(parts, tmp_path / "out")
    assert time.monotonic() - began < 25
    assert found["hangs"].result == "out of time"
    assert found["hangs"].line.startswith("stopped at its limit of 6 s")
    assert found["works"].result == "passed"
    first, second = rows_of(tmp_path / "out" / "check" / "hangs.csv")
    assert first["n"] == "1"
    assert has_ended(int(second["n"]))


def has_ended(process):
    for _ in range(50):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        # Ended, and waiting for whoever takes over orphans to notice.
        if Path(f"/proc/{process}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_what_a_step_leaves_running_is_ended(module, tmp_path):
    found, _ = check([Part("leaves", "a title", (one(module, "leaves"),), 30.0)], tmp_path / "out")
    assert found["leaves"].result == "passed"
    assert has_ended(int(rows_of(tmp_path / "out" / "check" / "leaves.csv")[1]["n"]))


def test_no_step_begins_when_the_time_is_over(module, tmp_path):
    found, _ = check([Part("late", "a title", (one(module, "works"),), 30.0)], tmp_path / "out", seconds=1.0)
    assert found["works"].result == "not begun"


def test_the_exit_status_and_the_page(module, tmp_path, capsys):
    good, bad = (Part(f"{what} at once", "a title", (one(module, what),), 30.0) for what in ("works", "fails"))
    folder = tmp_path / "out"
    assert gpu_check.check([good], folder, COMMON, None, 60.0) == 0
    assert gpu_check.check([good, bad], folder, COMMON, None, 60.0) == 1
    page = (folder / "summary.md").read_text()
    assert page.startswith("# NVIDIA Probe, 3 multiprocessors\n\nPython 3 · commit 0123 · 2026-01-01\n")
    assert "| works at once/works | passed |" in page
    assert "| fails at once/fails | failed |" in page
    printed = capsys.readouterr().out
    assert page in printed
    assert printed.splitlines()[-1].startswith("| fails at once/fails | failed |")


def test_a_machine_that_refuses_a_tool_is_no_failure(module, tmp_path):
    parts = [Part("refuses", "a title", (one(module, "refuses"),), 30.0)]
    assert gpu_check.check(parts, tmp_path / "out", COMMON, None, 60.0) == 0


def test_the_page_shows_tables_and_failed_tests(tmp_path):
    context = Context(tmp_path, 10.0, COMMON)
    with context.table("latency", ("what", "median µs")) as table:
        table.add({"what": "a|b", "median µs": 1.5})
    with context.table("tests-gpu", ("test", "outcome", "seconds", "reason")) as table:
        table.add({"test": "test_a", "outcome": "passed"})
        table.add({"test": "test_b", "outcome": "failed", "reason": "off\nby one"})
    page = gpu_check.summary(tmp_path, COMMON, [Outcome("tests", "gpu", "failed", 3.21, "1 failed")])
    assert "| tests/gpu | failed | 3.2 | 1 failed |" in page
    assert "## latency\n\n| what | median µs |\n| --- | --- |\n| a\\|b | 1.5 |" in page
    assert "| test_b | off by one |" in page
    assert "test_a" not in page
    assert "latency" not in gpu_check.summary(tmp_path, COMMON, [], lambda name: name == "tests-gpu")


def test_arguments_reach_a_part(tmp_path, monkeypatch):
    context = Context(tmp_path, 12.5, COMMON, "/data")
    monkeypatch.setattr(sys, "argv", ["part", *part.arguments_of(context), "--what", "this"])
    found = []
    with pytest.raises(SystemExit) as ended:
        part.main(lambda given, what: found.append((given, what)) or 3, "what")
    assert ended.value.code == 3
    ((given, what),) = found
    assert (given.out, given.seconds, given.common, given.data_dir, what) == (tmp_path, 12.5, COMMON, "/data", "this")


def test_without_a_gpu_it_says_so_and_exits_with_1(tmp_path):
    if launcher.why_not() is None:
        pytest.skip("a GPU answers here")
    done = CliRunner().invoke(gpu_check.main, ["--parts", "tests", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert done.stderr.startswith("Nothing was checked, as this needs a GPU: ")
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_a_part_that_is_not_there(tmp_path):
    done = CliRunner().invoke(gpu_check.main, ["--parts", "tests,test"])
    assert done.exit_code == 2
    assert "There is no part called 'test'; there are compile, tensor-cores, parzen, tests," in done.stderr


def test_all_parts_are_there():
    parts = gpu_check.all_parts()
    (seconds,) = (option.default for option in gpu_check.main.params if option.name == "seconds")
    assert seconds + gpu_check._GRACE <= 8 * 60
    assert list(gpu_check._TABLES) == list(parts)
    for part_ in parts.values():
        for step in part_.steps:
            # Every module is there, and takes the options that it is given.
            assert (gpu_check.harness.ROOT / (step.module.replace(".", "/") + ".py")).exists()


def test_the_list_needs_no_gpu():
    done = CliRunner().invoke(gpu_check.main, ["--list"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].startswith("compile ")
