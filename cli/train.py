"""``fastgan train``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastgan.cli.common import (
    BACKENDS,
    SEED,
    StatusLine,
    StopSignals,
    data_dir_option,
    duration,
    echo_path,
    epochs_text,
    fold_option,
    report_line,
    runs_option,
    tell,
)
from fastgan.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fastgan.config import Config

# Options that set a field of the same name in the configuration.
_FIELDS = (
    "data_dir", "fold", "epochs", "steps", "batch_size", "d_steps", "update", "objective", "noise", "learning_rate",
    "seed", "backend", "device", "precision", "threads", "parzen_every", "checkpoint_every", "on_collapse",
)  # fmt: skip
_POSITIVE = click.IntRange(min=1)


@click.command("train")
@click.option(
    "--dataset",
    metavar="NAME|FILE",
    help="digits (comes with fastgan), mnist, fashion-mnist, tfd, cifar10, or a file of your "
    "own: .npy, .npz or .h5, (N, D), (N, H, W[, C]) or (N, C, H, W), uint8 or floats in [0, 1].  [default: digits]",
)
@data_dir_option
@click.option(
    "--preset",
    help="The networks and numbers to start from: digits, or the released recipes mnist, tfd, tfd-stage2 (with "
    "--init-from and a run of tfd), cifar10 and cifar10-conv.  [default: the data set's own, else mnist with the "
    "data's sizes]",
)
@fold_option
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="A JSON object of configuration fields: what --dry-run "
    "prints, or a run's config.json. Options given here take precedence.",
)
@click.option(
    "--set",
    "assignments",
    metavar="NAME=VALUE",
    multiple=True,
    help="Set any field of the configuration, as generator.0.num_units=800; can be given again and again.",
)
@click.option(
    "--epochs", type=_POSITIVE, help="How long to train, in epochs of the training data.  [default: the preset's]"
)
@click.option("--steps", type=_POSITIVE, help="How long to train, in steps, in place of --epochs.")
@click.option(
    "--batch-size", type=_POSITIVE, help="Rows of data, and of noise, in a minibatch.  [default: the preset's]"
)
@click.option(
    "--d-steps",
    type=_POSITIVE,
    help="k of Algorithm 1: updates of D for one of G; more than 1 needs --update alternating.  [default: 1]",
)
@click.option(
    "--update",
    type=click.Choice(["simultaneous", "alternating"]),
    help="D and G together from one batch, as the "
    "released code does, or in turn, as Algorithm 1 does.  [default: simultaneous]",
)
@click.option(
    "--objective",
    type=click.Choice(["non-saturating", "minimax"]),
    help="G maximises log D(G(z)), or minimises log(1 - D(G(z))).  [default: non-saturating]",
)
@click.option("--noise", type=click.Choice(["uniform", "normal"]), help="Distribution of z.  [default: the preset's]")
@click.option("--learning-rate", type=click.FloatRange(min=0), help="Of the first update.  [default: the preset's]")
@click.option("--seed", type=SEED, help="Key of all randomness.  [default: 0]")
@click.option("--backend", type=BACKENDS, help="What computes; auto takes the fastest that runs here.  [default: auto]")
@click.option("--device", type=click.IntRange(min=0), metavar="N", help="Number of the GPU.  [default: 0]")
@click.option(
    "--precision", type=click.Choice(["float32", "tf32"]), help="Arithmetic of the products.  [default: float32]"
)
@click.option(
    "--threads",
    type=_POSITIVE,
    metavar="N",
    help="CPU threads.  [default: the preset's, else the cores that the process may use]",
)
@runs_option
@click.option(
    "--run-dir", metavar="DIR", help="The run's folder, new or empty.  [default: the next number under --runs]"
)
@click.option("--resume", metavar="RUN", help="Go on with a run, bit for bit; --epochs or --steps may be raised.")
@click.option("--init-from", metavar="RUN", help="Start a new run from another one's weights.")
@click.option(
    "--parzen-every",
    type=_POSITIVE,
    metavar="EPOCHS",
    help="Score by a Parzen window on validation data every so many epochs, and keep the best checkpoint.",
)
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="[default: 60, or 20 times what saving takes where that is longer, at most 900]",
)
@click.option(
    "--on-collapse",
    type=click.Choice(["warn", "stop"]),
    help="What to do where the reports show that the generator no longer learns: D sure of everything, or all samples "
    "alike. Either way the run is saved.  [default: warn]",
)
@click.option("--dry-run", is_flag=True, help="Check everything, print the configuration as JSON, train nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def command(
    dataset: str | None,
    preset: str | None,
    config_file: str | None,
    assignments: tuple[str, ...],
    runs_dir: str,
    run_dir: str | None,
    resume: str | None,
    init_from: str | None,
    dry_run: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a generator and a discriminator, and leave a folder with all there is to know about it.

    The folder holds config.json, metrics.jsonl, samples/ (one noise drawn at every report, so that one sees the same
    images grow), report.html to open in a browser, and checkpoints. Its name is the only line on stdout.

    \b
      fastgan train                                       the digits that come with fastgan, half a minute
      fastgan train --dataset mnist                       the paper's MNIST recipe, 100 epochs
      fastgan train --dataset mnist --update alternating  Algorithm 1
      fastgan train --resume 3 --epochs 200               go on with run 3

    Ctrl-C finishes the step, saves, and says how to go on.
    """  # noqa: D301
    _check_together(options, run_dir, resume, init_from)
    changes = {name: options[name] for name in _FIELDS if options[name] is not None}
    assigned = _parse(assignments)
    if dataset is not None:
        assigned["dataset"] = dataset
    if preset is not None:
        assigned["preset"] = preset
    changes.update(assigned)
    if changes.get("epochs") is not None and changes.get("steps") is not None:
        raise click.UsageError("epochs and steps exclude each other; give one of them.")

    from fastgan.runs import find_run, recorded_config

    if resume is not None:
        from fastgan import training

        if config_file is not None:
            raise click.UsageError("--config and --resume exclude each other: a resumed run has its configuration.")
        path = find_run(resume, runs_dir)
        if dry_run:
            from fastgan import checkpoint

            loaded = checkpoint.load(path)
            num_rows = loaded.record["data"]["rows"]["train"]
            _dry_run(training.changed_for_resume(recorded_config(path, loaded), changes, num_rows))
            return
        _run(lambda **hooks: training.resume(path, changes, **hooks), quiet)
        return

    config = _configuration(config_file, changes)
    source = None if init_from is None else find_run(init_from, runs_dir)
    if dry_run:
        _dry_run(config, source)
        return
    from fastgan import training

    _run(
        lambda **hooks: training.train(config, run_dir=run_dir, runs_dir=runs_dir, init_from=source, **hooks),
        quiet,
    )


def _check_together(options: Mapping[str, Any], run_dir: str | None, resume: str | None, init_from: str | None) -> None:
    for left, right, both in (
        ("--epochs", "--steps", options["epochs"] is not None and options["steps"] is not None),
        ("--resume", "--init-from", resume is not None and init_from is not None),
        ("--resume", "--run-dir", resume is not None and run_dir is not None),
    ):
        if both:
            raise click.UsageError(f"{left} and {right} exclude each other; give one of them.")


def _parse(assignments: tuple[str, ...]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{assignment!r} must be NAME=VALUE", param_hint="'--set'")
        try:
            changes[name.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            # Not JSON, or a number of more digits, or brackets deeper, than Python reads.
            changes[name.strip()] = value
    return changes


def _configuration(config_file: str | None, changes: Mapping[str, Any]) -> Config:
    """Put a configuration together: the preset, then the file, then the options."""
    from fastgan.presets import NAMES, preset, preset_for
    from fastgan.training import absolute_paths

    changes = dict(changes)
    fields = {} if config_file is None else _read_config(Path(config_file))
    if "preset" in changes and fields.get("preset", changes["preset"]) != changes["preset"]:
        raise click.UsageError(f"{config_file} is of the preset {fields['preset']!r} already; leave --preset out.")
    start = changes.get("preset") or fields.get("preset")
    if "preset" not in changes and {"generator", "discriminator"} <= fields.keys() and start not in NAMES:
        # Networks of one's own: the preset's name is a label, and what starts the rest is the data's.
        start = None
    of_preset = preset(str(start)).dataset if start in NAMES else "digits"
    named = changes.get("dataset") or fields.get("dataset") or of_preset
    try:
        config = preset(preset_for(str(named)) if start is None else str(start))
    except ConfigError as error:
        if "preset" in changes:
            raise
        raise DataError(f"{config_file}: {error}") from error
    if config_file is not None:
        try:
            config = config.replace(fields)
        except ConfigError as error:
            raise DataError(f"{config_file}: {error}") from error
    changes.setdefault("dataset", named)
    if changes.get("epochs") is not None:
        # As on the command line, so over a file: the one that is given takes the other's place.
        changes.setdefault("steps", None)
    return config.replace(absolute_paths(changes))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"Cannot read the configuration {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; give what --dry-run prints, or a run's config.json") from error
    # A run's config.json holds the configuration among other records.
    if isinstance(fields, dict) and isinstance(fields.get("config"), dict):
        fields = fields["config"]
    if not isinstance(fields, dict):
        raise DataError(f"{path} must hold a JSON object of configuration fields")
    return fields


def _dry_run(config: Config, init_from: Path | None = None) -> None:
    from fastgan import datasets
    from fastgan.kernels.common.devices import device
    from fastgan.trainer import Trainer
    from fastgan.training import check_source_is_named, init_networks, last_step

    check_source_is_named(config, init_from)
    data = datasets.load(config.dataset, data_dir=config.data_dir, download=False, fold=config.fold)
    num_steps = last_step(config, len(data.splits["train"]))
    trainer = Trainer(config, data, device(config.backend, config.device, config.precision), num_steps)
    init_networks(trainer, init_from)
    shape, num_images = "x".join(map(str, data.image_shape)), len(data.splits["train"])
    click.echo(
        f"Would make {num_steps} steps on {data.name} ({data.source}): {num_images} training images of {shape}.",
        err=True,
    )
    click.echo(json.dumps(config.to_json(), indent=2))


def _run(train: Any, quiet: bool) -> None:
    """Train with progress on stderr; `StopSignals` finish the step, save, and end with the customary codes."""
    from fastgan.cli.data import DownloadProgress
    from fastgan.training import Callback

    signals = StopSignals()

    class Display(Callback):
        def __init__(self) -> None:
            self.status = StatusLine(quiet)

        def on_begin(self, path: Path, trainer: Any, last_step: int) -> None:
            self.path, self.steps_per_epoch, self.last_step = path, trainer.steps_per_epoch, last_step
            self.first_step = int(trainer.device.download(trainer.state.update)[0])
            self.clock = _Clock()
            if not quiet:
                threads = trainer.config.threads
                tell(
                    f"{path}: steps {self.first_step} to {last_step} with {trainer.device.backend}, "
                    f"{threads} thread{'s' * (threads != 1)}"
                )

        def on_progress(self, step: int) -> None:
            left = self.clock.left(step, self.last_step)
            self.status.show(
                f"epoch {step / self.steps_per_epoch:.1f} of {epochs_text(self.last_step / self.steps_per_epoch)}, "
                f"step {step} of {self.last_step}" + ("" if left is None else f", {duration(left)} left")
            )

        def on_report(self, line: Mapping[str, Any]) -> None:
            if not quiet:
                self.status.clear()
                tell(report_line(line))

    def on_download(file: str, num_done: int, num_bytes: int | None) -> None:
        # There is nothing to save yet.
        if signals.received:
            raise SystemExit(128 + signals.received[0])
        if not quiet:
            download(file, num_done, num_bytes)

    display = Display()
    try:
        with signals, DownloadProgress() as download:
            run = train(callbacks=[display], stop=signals.event, progress=on_download)
    finally:
        display.status.clear()
    stopped = bool(signals.received) and run.step < display.last_step
    if stopped:
        tell(f"Stopped and saved at step {run.step} of {display.last_step}. To go on:")
        tell(f"  fastgan train --resume {shlex.quote(str(run.path))}")
    elif display.first_step == display.last_step and not quiet:
        tell(f"The run has all its {run.step} steps; to go on, raise --epochs or --steps.")
    echo_path(run.path)
    if stopped:
        raise click.exceptions.Exit(128 + signals.received[0])


class _Clock:
    """Judges by the pace since the first step that it was told of: those before it may have compiled the loops."""

    def __init__(self) -> None:
        import time

        self._now = time.monotonic
        self._first: tuple[int, float] | None = None

    def left(self, step: int, last_step: int) -> float | None:
        """Estimate the seconds left."""
        if self._first is None:
            self._first = step, self._now()
        first_step, started = self._first
        return (self._now() - started) / (step - first_step) * (last_step - step) if step > first_step else None
