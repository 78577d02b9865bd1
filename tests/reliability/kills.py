"""Kills at seeded random moments of training, sampling and scoring; the end must be the same, bit for bit."""

import json
import random
import re
import shutil
import signal
import time

import numpy as np

import fastgan
from fastgan import checkpoint
from tests.runs_for_tests import TINY, TINY_OPTIONS, arrays_of, assert_same_bits, pixels_of, trained

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# A few tenths of a second of work, most of it reports and checkpoints.
EPOCHS = 60
# Codes of a process that was told to end; minus the signal where it came before, or after, there was something to save.
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130, 1, -2)}


def of_training(processes, num_kills, seed, folder, backend="cpu", patiences=(0.1, 0.3, 0.6), **size):
    """Kill and resume until so many kills have met a living process; give what was counted.

    ``patiences`` are the longest times to a kill, one of them a run; ``size`` changes how long a run is. The backend
    ``cupy`` runs on the emulator, which the caller has put in place as well.
    """
    rng = random.Random(seed)
    size = size or {"epochs": EPOCHS}
    config = TINY.replace({**size, "backend": backend})
    whole = arrays_of(trained(config, folder / "whole"))
    sizes = [f"--set={name}={value}" for name, value in size.items()]
    new = ("train", *TINY_OPTIONS, *sizes, f"--backend={backend}", "--run-dir=run", "--checkpoint-every=0.02")
    counted = {"kills": 0, "runs": 0, "resumed": 0, **{name.name: 0 for name in SIGNALS}}
    place = started = None
    while True:
        if place is None:
            if counted["kills"] >= num_kills:
                return counted
            counted["runs"] += 1
            place = folder / f"{counted['runs']}"
            place.mkdir()
            # How far it comes between two kills; some are killed at once, some at the very end.
            patience = rng.choice(patiences)
        argv = ("train", "--resume=run") if (place / "run" / checkpoint.LATEST).exists() else new
        counted["resumed"] += argv != new
        if argv == new:
            shutil.rmtree(place / "run", ignore_errors=True)
        started = processes.start(
            *argv, folder=place, looks=rng.choice([0.001, 0.02]), saved=str(place / "saved"), emulated=backend == "cupy"
        )
        if backend == "cupy":
            # What takes the emulator long is to begin: the moment is counted from the run's first save.
            for _ in range(6000):
                if (place / "saved").exists() and (place / "saved").stat().st_size:
                    break
                time.sleep(0.01)
        time.sleep(rng.uniform(0, patience))
        sent = rng.choice(SIGNALS)
        if counted["kills"] < num_kills:
            started.kill(sent)
        code = started.wait()
        assert "Traceback" not in started.stderr, (started.stderr, argv)
        if code == 0:
            assert_same_bits(arrays_of(fastgan.load_run(place / "run")), whole)
            assert_whole(place / "run")
            shutil.rmtree(place)
            place = None
            continue
        counted["kills"] += 1
        counted[sent.name] += 1
        # However slow the machine, a run comes to its end.
        patience *= 1.1
        assert code in CODES[sent], (code, sent, started.stderr)
        assert_nothing_lost(place, started, code)


def assert_nothing_lost(place, ended, code):
    """Whatever was saved before the end is there, whole."""
    saved = [int(line) for line in (place / "saved").read_text().split()] if (place / "saved").exists() else []
    if saved or (place / "run" / checkpoint.LATEST).exists():
        run = fastgan.load_run(place / "run")
        # Since the save that was under way may have been made good as well.
        assert run.step >= (saved[-1] if saved else 0)
        arrays_of(run)
    if code in (130, 143) and "Stopped and saved" in ended.stderr:
        step = int(re.search(r"Stopped and saved at step (\d+) of", ended.stderr)[1])
        assert run.step == step
        assert "fastgan train --resume" in ended.stderr


def assert_whole(path):
    """A finished run has each report once and leaves nothing lying about."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))
    grids = {int(file.stem.removeprefix("step-")) for file in (path / "samples").iterdir()}
    assert grids == {0, *steps}
    assert (path / "report.html").read_text().rstrip().endswith("</html>")
    assert not list(path.rglob(".*")), f"left: {list(path.rglob('.*'))}"


def at_every_call(processes, folder, numbers):
    """End a run at its n-th call to the system for each n; give how many there were until one ran to its end."""
    config = TINY.replace({"epochs": 2})
    whole = arrays_of(fastgan.train(config, run_dir=folder / "whole"))
    new = ("train", *TINY_OPTIONS, "--epochs=2", "--run-dir=run")
    for number in numbers:
        place = folder / f"call {number}"
        place.mkdir()
        code = processes.start(*new, folder=place, kill_at=number).wait()
        if code == 0:
            return number
        assert code == -signal.SIGKILL
        argv = ("train", "--resume=run") if (place / "run" / checkpoint.LATEST).exists() else new
        again = processes.start(*argv, folder=place)
        assert again.wait() == 0 or argv == new, again.stderr
        if argv == new:
            # Nothing was saved yet, and the folder says so in a sentence.
            assert "Traceback" not in again.stderr
        else:
            assert_same_bits(arrays_of(fastgan.load_run(place / "run")), whole)
            assert_whole(place / "run")
        shutil.rmtree(place)
    return None


def of_reading(processes, num_kills, seed, folder):
    """Kill sampling and scoring; the run stays as it is, a result is whole or not there, and the next try gives it."""
    rng = random.Random(seed)
    run = fastgan.train(TINY, run_dir=folder / "run").path
    commands = {
        "sample": ("sample", run, "--num=20000", "--out=out.npy"),
        "parzen": ("parzen", run, "--json", "--num-samples=500", "--quiet"),
    }
    before = (run / checkpoint.LATEST).read_bytes()
    wanted, took = {}, {}
    for name, argv in commands.items():
        started = time.monotonic()
        done = processes.start(*argv, folder=folder)
        assert done.wait() == 0, done.stderr
        took[name] = time.monotonic() - started
        wanted[name] = result_of(name, done, folder)
    counted = dict.fromkeys(commands, 0)
    while sum(counted.values()) < num_kills:
        name = rng.choice(list(commands))
        for left in (folder / "out.npy", *folder.glob(".out.npy.*")):
            left.unlink(missing_ok=True)
        started = processes.start(*commands[name], folder=folder)
        time.sleep(rng.uniform(0, took[name]))
        sent = rng.choice(SIGNALS)
        started.kill(sent)
        code = started.wait()
        assert "Traceback" not in started.stderr, started.stderr
        if code == 0:
            continue
        counted[name] += 1
        assert code in CODES[sent], (code, sent)
        if code > 0:
            assert not list(folder.glob(".*")), "what was being written stayed"
        if name == "sample" and (folder / "out.npy").exists():
            assert result_of(name, started, folder) == wanted[name]
        assert (run / checkpoint.LATEST).read_bytes() == before
        assert (run / "report.html").read_text().rstrip().endswith("</html>")
        if (run / "score.json").exists():
            assert "log_likelihood" in json.loads((run / "score.json").read_text())
    for name, argv in commands.items():
        done = processes.start(*argv, folder=folder)
        assert done.wait() == 0, done.stderr
        assert result_of(name, done, folder) == wanted[name]
    return counted


def of_reproducing(processes, num_kills, seed, folder, epochs=20):
    """Kill a reproduction of game and digits and give the same command again, until so many kills were met."""
    rng = random.Random(seed)
    argv = ("reproduce", "--out=paper", "--only=game,digits", f"--seed={seed % 1000}", "--backend=cpu", "--threads=1")
    settings = {"reproduction": {"epochs": epochs, "checkpoint_every": 0.02}}
    (folder / "whole").mkdir()
    started = time.monotonic()
    done = processes.start(*argv, folder=folder / "whole", **settings)
    assert done.wait() == 0, done.stderr
    took = time.monotonic() - started
    wanted = reproduced(folder / "whole")
    counted = {"kills": 0, "reproductions": 0, "gone on with": 0, **{name.name: 0 for name in SIGNALS}}
    place = None
    while True:
        if place is None:
            if counted["kills"] >= num_kills:
                return counted
            counted["reproductions"] += 1
            place = folder / f"{counted['reproductions']}"
            place.mkdir()
            patience = rng.choice([0.2, 0.5, 1.0]) * took
        counted["gone on with"] += (place / "paper" / "state.json").exists()
        done_before = saved_step(place)
        started = processes.start(*argv, folder=place, looks=rng.choice([0.001, 0.02]), **settings)
        time.sleep(rng.uniform(0, patience))
        sent = rng.choice(SIGNALS)
        if counted["kills"] < num_kills:
            started.kill(sent)
        code = started.wait()
        assert "Traceback" not in started.stderr, started.stderr
        if code == 0:
            assert_same_bits(reproduced(place), wanted)
            assert_whole(place / "paper" / "runs" / "digits")
            assert not list((place / "paper").rglob(".*")), f"left: {list((place / 'paper').rglob('.*'))}"
            shutil.rmtree(place)
            place = None
            continue
        counted["kills"] += 1
        counted[sent.name] += 1
        assert code in CODES[sent], (code, sent, started.stderr)
        # What is there is whole, and nothing that was saved is gone.
        assert saved_step(place) >= done_before
        for file in place.glob("paper/*.json"):
            json.loads(file.read_text())
        for page in place.glob("paper/report.html"):
            assert page.read_text().rstrip().endswith("</html>")
        for picture in place.glob("paper/figures/*.png"):
            assert pixels_of(picture).size
        if code in (130, 143) and "Stopped and saved" in started.stderr:
            assert "the same command goes on" in started.stderr


def saved_step(place):
    """Give the step of the run's newest checkpoint, which must be whole; -1 where there is none yet."""
    run = place / "paper" / "runs" / "digits"
    return fastgan.load_run(run).step if (run / checkpoint.LATEST).exists() else -1


def reproduced(place):
    """Give all that a reproduction has made, but for its times: arrays, scores, pictures, the page's table."""
    out = place / "paper"
    state = json.loads((out / "state.json").read_text())
    assert not any("why_not" in record for record in state["parts"].values()), state
    for record in state["parts"].values():
        assert record.pop("seconds").keys() >= {"training", "drawing"}
    files = {path.name: path.read_bytes() for path in (out / "figures").iterdir()}
    markdown = (out / "report.md").read_text("utf-8")
    files |= {"state": json.dumps(state, sort_keys=True).encode(), "rows": "\n".join(rows_of(markdown)).encode()}
    bits = {name: np.frombuffer(content, np.uint8) for name, content in files.items()}
    return {**arrays_of(fastgan.load_run(out / "runs" / "digits")), **bits}


def rows_of(markdown):
    """Give the rows of Table 1: of all tables, those with an error of the mean."""
    return [line for line in markdown.splitlines() if line.startswith("|") and "±" in line]


def result_of(name, ended, folder):
    if name == "sample":
        return (folder / "out.npy").read_bytes()
    score = json.loads(ended.stdout)
    score.pop("seconds")
    return score
