"""Runs small enough to train in a blink, for the tests of everything around them."""

import dataclasses
import functools
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

import fastgan
from fastgan import game, reproduction, scoring
from fastgan.cli import main
from fastgan.errors import FastganWarning
from fastgan.training import Callback

# Five steps an epoch on the digits' 1,197 rows. One thread, so that a busy machine is no slower and bits are the same.
TINY = fastgan.preset("digits").replace(
    {
        "generator.0.num_units": 12,
        "generator.1.num_units": 10,
        "discriminator.0.num_units": 6,
        "discriminator.0.num_pieces": 2,
        "discriminator.1.num_units": 4,
        "discriminator.1.num_pieces": 3,
        # Wide enough that G's gradient through so narrow a D moves its weights from the first step on.
        "discriminator.0.irange": 0.5,
        "discriminator.1.irange": 0.5,
        "discriminator.2.irange": 0.5,
        "noise_dim": 5,
        "batch_size": 239,
        "epochs": 1,
        "threads": 1,
        "seed": 3,
    }
)
STEPS_PER_EPOCH = 5
# The same on the command line.
TINY_OPTIONS = (
    "--batch-size=239", "--threads=1", "--seed=3", "--set=noise_dim=5",
    "--set=generator.0.num_units=12", "--set=generator.1.num_units=10",
    "--set=discriminator.0.irange=0.5", "--set=discriminator.1.irange=0.5", "--set=discriminator.2.irange=0.5",
    "--set=discriminator.0.num_units=6", "--set=discriminator.0.num_pieces=2",
    "--set=discriminator.1.num_units=4", "--set=discriminator.1.num_pieces=3",
)  # fmt: skip


def trained(config, path, **options):
    """Train without a word about a collapse: so narrow a generator sends all noise to one image in the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastganWarning)
        return fastgan.train(config, run_dir=path, **options)


def watch(trainer, before=None, after=None):
    """Let something happen before and after every step: a device may keep a step and make it again by itself."""
    repeat = trainer.device.repeat

    def one_by_one(sequence, times, should_stop):
        for _ in range(times):
            if before is not None:
                before()
            repeat(sequence, 1, lambda: False)
            if after is not None:
                after()
            if should_stop():
                return

    trainer.device.repeat = one_by_one


def small_reproduction(put, **more):
    """Make a reproduction's game and what it trains a matter of a second, by way of ``put(module, name, value)``."""
    small = {
        "digits": {"epochs": 2, "batch_size": 239, "generator.0.num_units": 12, "generator.1.num_units": 10, **more},
        "cifar10-conv": {
            "steps": 2, "batch_size": 5, "generator.0.num_units": 8,
            "generator.1.num_units": 100, "generator.2.input_channels": 1,
            **{f"discriminator.{i}.num_channels": 2 for i in range(3)}, "discriminator.3.num_units": 4,
        },
    }  # fmt: skip
    parts = [dataclasses.replace(part, quick=small.get(part.name, part.quick)) for part in reproduction.PARTS]
    put(reproduction, "PARTS", tuple(parts))
    # Enough to score by.
    put(scoring, "NUM_SAMPLES", 300)
    put(game, "play", functools.partial(game.play, moments=(0, 2, 4, 6)))


class StopAt(Callback):
    """Stops a run in the middle: after at least so many steps."""

    def __init__(self, step):
        self.step, self.event = step, threading.Event()

    def on_begin(self, path, trainer, last_step):
        # The host looks in only now and then; a step that is watched stops at once.
        def look():
            if int(trainer.state.update[0]) >= self.step:
                self.event.set()

        watch(trainer, after=look)


def assert_same_bits(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert left[name].shape == right[name].shape, name
        assert left[name].tobytes() == right[name].tobytes(), name


def arrays_of(run):
    assert run.loaded.arrays, "a run without arrays proves nothing"
    for name, array in run.loaded.arrays.items():
        assert np.isfinite(array).all(), name
    return run.loaded.arrays


def invoke(*arguments, code=0):
    """Run a command in this process; whatever it says must end as asked, without a traceback or escape codes."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    assert result.exit_code == code, result.output
    assert "\x1b" not in result.output
    if code:
        assert result.stderr, "a failure without a sentence"
    return result


def process(*arguments, prelude="", **options):
    """Start a command in a process of its own, its streams in pipes."""
    code = f"import sys\n{prelude}\nfrom fastgan.cli import main\nmain(prog_name='fastgan')"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
        env=environment(),
    )


def environment():
    """What a process is started with, so that it finds this checkout and takes one core."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}


def pixels_of(path):
    """Read a picture's pixels, (H, W) or (H, W, 3)."""
    with Image.open(path) as picture:
        return np.asarray(picture).squeeze()
