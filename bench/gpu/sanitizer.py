"""compute-sanitizer over a short training run; where the machine refuses the tool, that is reported and no failure.

The run itself is this module with ``--inside``: three steps of the digits' networks for each update, every allocation
made by itself, since CuPy's pool would hide a read beyond an array's end.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from bench import recipe
from bench.gpu import part
from bench.gpu.part import FAILED, NOT_HERE, PASSED, Context
from bench.harness import ROOT
from fastgan.config import Config
from fastgan.kernels.common import cupy_runtime, launcher
from fastgan.kernels.common.devices import TF32_FROM, device
from fastgan.presets import preset
from fastgan.trainer import Trainer

STEPS = 3
_FOUND = 9
_SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) errors?|RACECHECK SUMMARY: (\d+) hazards?")
# What the tool says where it cannot work at all.
_REFUSED = ("not supported", "Unable to find injection library", "internal error", "Failed to initialize")


def configurations() -> list[tuple[str, Config]]:
    """Give the short runs: precision and configuration; odd sizes, so that edges are in them."""
    changes = {"generator.0.num_units": 61, "discriminator.1.num_units": 37, "batch_size": 19}
    runs = [
        ("float32", preset("digits").replace(changes | {"update": update}))
        for update in ("simultaneous", "alternating")
    ]
    runs.append(("float32", preset("digits").replace({"discriminator.0.max_col_norm": 1.0})))
    if launcher.runtime().architecture >= TF32_FROM:
        runs.append(("tf32", preset("digits").replace(changes)))
    return runs


def train_shortly() -> None:
    """Make the steps."""
    data = recipe.random_images(200, (1, 8, 8))
    for precision, config in configurations():
        trainer = Trainer(config, data, device("cupy", precision=precision), STEPS)
        trainer.device.repeat(trainer.step, STEPS, lambda: False)
        made = int(trainer.device.download(trainer.state.update)[0])
        assert made == STEPS, f"{made} steps were made, not {STEPS}"


def run(context: Context, tool: str = "memcheck", inside: str = "") -> int:
    """Run the tool, or, inside of it, the steps."""
    if inside:
        cupy_runtime.import_cupy().cuda.set_allocator(None)
        train_shortly()
        print("the steps were made")
        return PASSED
    found = shutil.which("compute-sanitizer") or _in_the_toolkit()
    if found is None:
        print(f"{tool}: compute-sanitizer is not installed")
        return NOT_HERE
    command = [found, "--tool", tool, "--error-exitcode", str(_FOUND), "--print-limit", "20", sys.executable]
    command += ["-m", "bench.gpu.sanitizer", *part.arguments_of(context), "--inside", "yes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    log = context.out / "check" / f"sanitizer-{tool}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    status, line = judge(tool, done.returncode, done.stdout + done.stderr)
    with context.table(f"sanitizer-{tool}", ("tool", "result")) as table:
        table.add({"tool": tool, "result": line})
    print(line)
    return status


def judge(tool: str, status: int, output: str) -> tuple[int, str]:
    """Read what the tool said: how it went, and a line about it."""
    summaries = [int(errors or hazards) for errors, hazards in _SUMMARY.findall(output)]
    was_made = "the steps were made" in output
    if was_made and summaries and not any(summaries) and status == 0:
        return PASSED, f"{tool}: no errors in {STEPS} steps of each run"
    refusal = next((line.strip() for line in output.splitlines() if any(words in line for words in _REFUSED)), None)
    if refusal is not None and not (was_made and any(summaries)):
        return NOT_HERE, f"{tool}: this machine refuses the tool ({refusal[:200]})"
    if any(summaries):
        return FAILED, f"{tool}: {max(summaries)} errors; the log has them"
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
    return FAILED, f"{tool}: ended with {status} and no summary of its own ({last.strip()[:200]})"


def _in_the_toolkit() -> str | None:
    for place in sorted(Path("/usr/local").glob("cuda*/bin/compute-sanitizer"), reverse=True):
        return str(place)
    return None


if __name__ == "__main__":
    part.main(run, "tool", "inside")
