"""``python -m bench.gpu_check``: all there is to check and to measure on a machine with a GPU.

Every step is a process of its own with a limit of time: what one breaks or hangs in, the others do not notice. Tables
are CSV files under bench/results/<device>/, whole after every row; ``summary.md`` beside them is made at the end.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from bench import harness
from bench.gpu.part import NOT_HERE, PASSED, Context, arguments_of, common_columns
from fastgan.files import write_atomically

# What a process gets to end by itself, after its time is over.
_GRACE = 8.0
# A step with less than this left does not begin.
_LEAST = 3.0
# The part that always comes first: what is on the disk already it finds there.
_COMPILE = "compile"


@dataclass(frozen=True)
class Step:
    """A process of a part.

    Attributes
    ----------
    name : str
    module : str
        What ``python -m`` runs.
    options : tuple of str
        Besides those of ``bench.gpu.part``.
    seconds : float
        Its limit.
    environment : mapping
        Variables that it is given.
    """

    name: str
    module: str
    options: tuple[str, ...] = ()
    seconds: float = 60.0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What can be asked for by name."""

    name: str
    title: str
    steps: tuple[Step, ...]
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """How a step went: "passed", "failed", "not here", "out of time" or "not begun"; and its last line."""

    part: str
    step: str
    result: str
    seconds: float
    line: str


def _bench_steps() -> tuple[Step, ...]:
    from bench.gpu.training_step import UNITS

    slow = {"jax-tf32": 50.0, "jax-float32": 50.0, "torch-compile-tf32": 75.0, "torch-compile-float32": 75.0}
    return tuple(
        Step(unit, "bench.gpu.training_step", ("--unit", unit), slow.get(unit, 35.0), environment)
        for unit, environment in UNITS.items()
    )


def all_parts() -> dict[str, Part]:
    """Give the parts by their names, in the order in which they run."""
    parts = [
        Part(_COMPILE, "the kernels that the other parts launch, on all cores",
             (Step("kernels", "bench.gpu.compile_kernels"),), 45.0),
        Part("tensor-cores", "what the tensor cores' sums are, and the error of each arithmetic",
             (Step("tensor-cores", "bench.gpu.tensor_cores"),), 30.0),
        Part("parzen", "the Parzen window, ten sigmas in one pass, by each arithmetic",
             (Step("parzen", "bench.gpu.parzen", (), 40.0),), 40.0),
        Part("tests", "the tests of operations and trainer on the GPU's backends",
             (Step("operations", "bench.gpu.device_tests", ("--which", "operations"), 110.0),), 100.0),
        Part("determinism", "the tests that need a GPU: same bits, the reference's steps, refusals, others' arrays",
             (Step("gpu", "bench.gpu.device_tests", ("--which", "gpu"), 60.0),), 60.0),
        Part("bench", "the training step, kernel by kernel, and other libraries", _bench_steps(), 200.0),
        Part("latency", "what a launch costs, and every tiling of every product",
             (Step("launches", "bench.gpu.latency", ("--what", "launches"), 20.0),
              Step("tilings", "bench.gpu.latency", ("--what", "tilings"), 600.0)), 65.0),
        Part("recipe", "MNIST: seconds of training to each Parzen score",
             (Step("tf32", "bench.gpu.mnist", ("--precision", "tf32"), 24.0),
              Step("float32", "bench.gpu.mnist", ("--precision", "float32"), 24.0)), 48.0),
        Part("sanitizer", "compute-sanitizer over a short run",
             (Step("memcheck", "bench.gpu.sanitizer", ("--tool", "memcheck"), 45.0),
              Step("racecheck", "bench.gpu.sanitizer", ("--tool", "racecheck"), 45.0)), 60.0),
    ]  # fmt: skip
    return {part.name: part for part in parts}


def run_step(
    step: Step, context: Context, limit: float, log: Path, say: Callable[[str], None]
) -> tuple[int | None, float, str]:
    """Run a step's process; stop it, and all it started, when its time is over.

    Parameters
    ----------
    step : Step
    context : Context
        What its process is told.
    limit : float
        Its seconds.
    log : path
        Where its output goes, besides to ``say``.
    say : callable
        Takes its lines as they come.

    Returns
    -------
    (int or None, float, str)
        Its exit status, or None where its time was over; its seconds; its last line.
    """
    command = [sys.executable, "-u", "-m", step.module, *arguments_of(context), *step.options]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": _python_path(), **step.environment}
    began = time.monotonic()
    last = ""
    log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        cwd=harness.ROOT, env=environment, start_new_session=True,
    )  # fmt: skip

    def read() -> None:
        nonlocal last
        assert process.stdout is not None
        with process.stdout, log.open("w", encoding="utf-8", errors="replace") as file:
            for line in process.stdout:
                file.write(line)
                file.flush()
                last = line.strip() or last
                say(f"  {line.rstrip()}")

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    status: int | None
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        status = None
        _end(process)
    except BaseException:
        _end(process)
        raise
    # What the step started and left running is ended too: the next one wants the device for itself.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    reader.join(_GRACE)
    return status, time.monotonic() - began, last


def _end(process: subprocess.Popen[str]) -> None:
    """Ask a process and its group to end, and then end them."""
    for signal_, seconds in ((signal.SIGINT, _GRACE), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_)
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue


def _python_path() -> str:
    """Put the checkout first: that is what is checked."""
    return os.pathsep.join([str(harness.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def run_parts(
    parts: Sequence[Part],
    out: Path,
    common: Mapping[str, str],
    data_dir: str | None,
    seconds: float,
    say: Callable[[str], None],
    outcomes: list[Outcome],
) -> None:
    """Run parts one after the other, within so many seconds in all; ``outcomes`` grows as they go."""
    until = time.monotonic() + seconds
    for part in parts:
        say(f"\n== {part.name}: {part.title}")
        until_of_part = min(until, time.monotonic() + part.seconds)
        for step in part.steps:
            left = until_of_part - time.monotonic()
            if left < _LEAST:
                outcomes.append(Outcome(part.name, step.name, "not begun", 0.0, "no time was left"))
                say(f"-- {part.name}/{step.name}: not begun, no time was left")
                continue
            # The process is told a little less, so that it can end by itself.
            limit = min(step.seconds, left)
            context = Context(out, max(limit - 2.0, limit / 2), common, data_dir)
            log = out / "check" / f"{part.name}-{step.name}.log"
            status, took, line = run_step(step, context, limit, log, say)
            result = {PASSED: "passed", NOT_HERE: "not here", None: "out of time"}.get(status, "failed")
            if status is None:
                line = f"stopped at its limit of {limit:.0f} s; its tables hold what it had written ({line[:150]})"
            elif status < 0:
                line = f"ended by signal {-status} ({line[:200]})"
            outcomes.append(Outcome(part.name, step.name, result, took, line[:400]))
            say(f"-- {part.name}/{step.name}: {result} after {took:.1f} s")


def find_machine(say: Callable[[str], None]) -> dict[str, str] | None:
    """Ask a process of its own which GPU answers; None, and a sentence, where none does."""
    command = [sys.executable, "-m", "bench.gpu.machine"]
    environment = os.environ | {"PYTHONPATH": _python_path()}
    try:
        asked = subprocess.run(
            command, cwd=harness.ROOT, env=environment, capture_output=True, text=True, check=False, timeout=90
        )
    except subprocess.TimeoutExpired:
        say("Nothing was checked: the GPU's driver did not answer within 90 seconds.")
        return None
    lines = asked.stdout.strip().splitlines()
    if asked.returncode == 0 and lines:
        machine: dict[str, str] = json.loads(lines[-1])
        return machine
    reason = lines[-1] if lines else (asked.stderr.strip().splitlines() or ["no reason was given"])[-1]
    say(f"Nothing was checked, as this needs a GPU: {reason}.")
    return None


# What the summary shows of the tables under check/, and how many rows at most; the tests only where they did not pass.
_SHOWN = {
    "tensor-cores": 60, "arithmetic": 40, "parzen": 20, "latency": 40, "tilings-best": 100,
    "recipe-float32": 40, "recipe-tf32": 40,
}  # fmt: skip


def summary(
    out: Path, common: Mapping[str, str], outcomes: Sequence[Outcome], choice: Callable[[str], bool] = lambda name: True
) -> str:
    """Make the Markdown page of what is in a folder of results.

    Parameters
    ----------
    out : path
        The folder of a device.
    common : mapping
        Hardware, versions, commit, date.
    outcomes : sequence of Outcome
    choice : callable
        Which tables are shown: those of the parts that ran.
    """
    parts = [f"# {common['hardware']}", ""]
    parts += [f"{common['versions']} · commit {common['commit']} · {common['date']}", ""]
    parts += _outcome_table(outcomes)
    for name in ("gpu-training-step", "gpu-kernels"):
        path = out / f"{name}.csv"
        if choice(name) and path.exists() and len(path.read_text(encoding="utf-8").splitlines()) > 1:
            parts += ["", f"## {name}", "", harness.table_of(path)]
    for name, most in _SHOWN.items():
        rows = _rows(out / "check" / f"{name}.csv")
        if rows and choice(name):
            columns = [key for key in rows[0] if key not in common]
            parts += ["", f"## {name}", ""]
            parts += _markdown(columns, [[row[key] or "" for key in columns] for row in rows[:most]])
    failed = [
        row for which in ("operations", "gpu") if choice(f"tests-{which}")
        for row in _rows(out / "check" / f"tests-{which}.csv") if row["outcome"] in ("failed", "error")
    ]  # fmt: skip
    if failed:
        parts += ["", "## Tests that failed", ""]
        parts += _markdown(("test", "reason"), [(row["test"], row["reason"]) for row in failed])
    return "\n".join(parts) + "\n"


def _outcome_table(outcomes: Sequence[Outcome]) -> list[str]:
    return _markdown(
        ("part", "result", "seconds", "in a line"),
        [(f"{o.part}/{o.step}", o.result, f"{o.seconds:.1f}", o.line) for o in outcomes],
    )


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(columns), line(["---"] * len(columns)), *(line(row) for row in rows)]


# The tables that a part writes.
_TABLES = {
    "compile": (), "tensor-cores": ("tensor-cores", "arithmetic"),
    "parzen": ("parzen",),
    "tests": ("tests-operations",), "determinism": ("tests-gpu",),
    "bench": ("gpu-training-step", "gpu-kernels"), "latency": ("latency", "tilings-best"),
    "recipe": ("recipe-float32", "recipe-tf32"), "sanitizer": (),
}  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--parts", "names", metavar="NAME,...", help="Only these parts.  [default: all]")
@click.option("--list", "only_list", is_flag=True, help="List the parts, run nothing.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=harness.RESULTS,
    help="The folder of the results, with a folder in it for each device.  [default: bench/results]",
)
@click.option("--commit", help="What is checked, where there is no .git to ask.  [default: git's HEAD]")
@click.option("--data-dir", metavar="DIR", help="Where MNIST's files lie.  [default: $FASTGAN_DATA]")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=470.0,
    show_default=True,
    help="For all parts together; of one part asked for alone, its own limit too.",
)
def main(
    names: str | None, only_list: bool, out: Path, commit: str | None, data_dir: str | None, seconds: float
) -> None:
    """Check and measure all there is on a machine with a GPU, part by part.

    \b
      python -m bench.gpu_check                              everything, in under 8 minutes
      python -m bench.gpu_check --parts latency --seconds 300
      python -m bench.gpu_check --parts tests,bench --out /tmp/results --commit 0a2aec6

    Exits with 1 where no GPU answers, or where a part fails.
    """  # noqa: D301
    parts = all_parts()
    if only_list:
        for part in parts.values():
            click.echo(f"{part.name:14} {part.title}")
        return
    asked = [name.strip() for name in (names or ",".join(parts)).split(",") if name.strip()]
    if unknown := [name for name in asked if name not in parts]:
        raise click.UsageError(f"There is no part called {unknown[0]!r}; there are {', '.join(parts)}.")
    machine = find_machine(lambda line: click.echo(line, err=True))
    if machine is None:
        sys.exit(1)
    chosen = [parts[name] for name in parts if name in asked]
    if len(chosen) == 1:
        chosen = [replace(chosen[0], seconds=seconds)]
    if _COMPILE not in asked:
        chosen.insert(0, parts[_COMPILE])
    folder = out.resolve() / machine["folder"]
    sys.exit(check(chosen, folder, common_columns(machine, commit or harness.commit()), data_dir, seconds))


def check(chosen: Sequence[Part], folder: Path, common: Mapping[str, str], data_dir: str | None, seconds: float) -> int:
    """Run parts, write and print the summary, and give the exit status."""
    if "bench" in [part.name for part in chosen]:
        # Its units append to one table.
        (folder / "gpu-training-step.csv").unlink(missing_ok=True)
    outcomes: list[Outcome] = []
    try:
        run_parts(
            chosen, folder, common, os.path.abspath(data_dir) if data_dir else None, seconds, click.echo, outcomes
        )
    finally:
        shown = {table for part in chosen for table in _TABLES.get(part.name, ())}
        page = summary(folder, common, outcomes, shown.__contains__)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "summary.md", page.encode())
        # What went how comes last: of a long output one sees the end.
        click.echo("\n".join(["", page, f"The page and its tables are in {folder}", "", *_outcome_table(outcomes)]))
    return 1 if any(outcome.result in ("failed", "out of time", "not begun") for outcome in outcomes) else 0


if __name__ == "__main__":
    main(prog_name="python -m bench.gpu_check")
