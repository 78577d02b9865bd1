"""A training run from its first step, or its last checkpoint, to its end: reports, scores, checkpoints, stops."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

import fastgan
from fastgan import checkpoint, datasets, figures, report, watch
from fastgan.checkpoint import FROZEN, Checkpoint
from fastgan.config import FORMAT, Config, LayerConfig
from fastgan.errors import CollapseError, ConfigError, FastganWarning, NonFiniteError, RunError
from fastgan.files import append, remove_temporaries, sync_folder, write_atomically
from fastgan.kernels.common import threads
from fastgan.kernels.common.devices import HostDevice, device
from fastgan.kernels.gan_loss import SUMS
from fastgan.presets import preset
from fastgan.runs import (
    CONFIG,
    DEFAULT_RUNS,
    METRICS,
    REPORT,
    SAMPLES,
    SCORE,
    Run,
    check_record,
    check_same_data,
    describe_data,
    load_run,
    locked,
    new_run_folder,
    recorded_config,
    take_run_folder,
    where_data_are,
    write_json,
)  # fmt: skip
from fastgan.scoring import NUM_SAMPLES, sigma_grid, validation_log_likelihoods
from fastgan.trainer import Trainer

# What a resumed run may take from the command line in place of its own configuration.
RESUMABLE = ("epochs", "steps", "parzen_every", "checkpoint_every", "on_collapse", "data_dir", "device", "threads")
_GRID_COLUMNS, _GRID_ROWS = 10, 10
# How often the host looks in on a running device to show progress: often enough for a person, no cost to a step.
_SECONDS_BETWEEN_LOOKS = 0.2
# Saving takes at most a twentieth of a run; but a process that was suspended while it saved must not wait a day.
_CHECKPOINT_SECONDS, _CHECKPOINT_SHARE, _CHECKPOINT_SECONDS_AT_MOST = 60.0, 20.0, 900.0


class Callback:
    """What a caller can hook into; every method does nothing unless it is overridden."""

    def on_begin(self, path: Path, trainer: Trainer, last_step: int) -> None:
        """Training is about to begin, or to go on, in the run's folder ``path``."""

    def on_progress(self, step: int) -> None:
        """Some steps were made; ``step`` updates in all."""

    def on_report(self, line: Mapping[str, Any]) -> None:
        """A report was made: the line of ``metrics.jsonl``."""

    def on_checkpoint(self, path: Path, step: int) -> None:
        """The run can now be resumed from ``step``."""


def train(
    config: Config | None = None,
    *,
    run_dir: str | Path | None = None,
    runs_dir: str | Path = DEFAULT_RUNS,
    init_from: str | Path | None = None,
    dataset: datasets.Dataset | None = None,
    progress: datasets.Progress | None = None,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> Run:
    """Train a new run.

    Parameters
    ----------
    config : Config, optional
        What to train; by default ``preset("digits")``.
    run_dir : path, optional
        The run's folder, empty or not there yet; by default the next numbered one in ``runs_dir``.
    runs_dir : path
        Where numbered folders are made.
    init_from : path, optional
        A run whose weights and biases this one starts from.
    dataset : Dataset, optional
        The data, where they are loaded already; by default ``config.dataset`` is loaded.
    progress : callable, optional
        Told of a download, as ``datasets.load`` describes.
    callbacks : sequence of Callback
        What to call on the way.
    stop : threading.Event, optional
        Once it is set, the step in progress is finished, a checkpoint is saved and ``train`` returns.

    Returns
    -------
    Run
        As far as it came.

    Raises
    ------
    ConfigError, DataError, RunError, BackendError
        Something does not fit or cannot be had; the sentence says what.
    NonFiniteError
        A loss, a gradient or a weight became NaN or infinite; the last good checkpoint stands.
    CollapseError
        With ``on_collapse`` of "stop": the generator no longer learns. The run was saved.

    Warns
    -----
    FastganWarning
        The generator no longer learns (once in a run).

    Examples
    --------
    >>> import tempfile
    >>> import fastgan
    >>> config = fastgan.preset("digits").replace({"steps": 20})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = fastgan.train(config, runs_dir=folder)
    >>> run.path.name, run.step, run.generator.sample(2).shape
    ('00001-digits-seed0', 20, (2, 64))
    """
    config = preset("digits") if config is None else config
    if not isinstance(config, Config):
        raise TypeError(
            f"config is a {type(config).__name__}; it must be a Config, as fastgan.preset('digits') gives one"
        )
    check_source_is_named(config, init_from)
    compute = device(config.backend, config.device, config.precision)
    # The number of threads decides the order of sums in BLAS, so a resumed run of the reference must repeat it.
    config = config.replace({"backend": compute.backend, "threads": config.threads or threads.available_cores()})
    config = config.replace(absolute_paths(config.to_json()))
    if dataset is None:
        dataset = datasets.load(config.dataset, data_dir=config.data_dir, progress=progress, fold=config.fold)
    with threads.limit(config.threads):
        trainer = Trainer(config, dataset, compute, last_step(config, len(dataset.splits["train"])))
        init_networks(trainer, None if init_from is None else Path(init_from))
        path = new_run_folder(runs_dir, dataset.name, config.seed) if run_dir is None else take_run_folder(run_dir)
        session = _Session(path, config, dataset, trainer, callbacks, stop or threading.Event())
        with locked(path):
            session.begin(None if init_from is None else Path(init_from))
            session.go_on()
    return load_run(path)


def resume(
    run: str | Path,
    changes: Mapping[str, Any] | None = None,
    *,
    dataset: datasets.Dataset | None = None,
    progress: datasets.Progress | None = None,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> Run:
    """Go on with a run, bit for bit as if it had never stopped (same machine, versions and number of threads).

    Parameters
    ----------
    run : path
        The run's folder.
    changes : mapping, optional
        Fields of the configuration to change: ``epochs`` or ``steps`` (to more), ``parzen_every``,
        ``checkpoint_every``, ``on_collapse``, ``data_dir``, ``device`` and ``threads``; and ``dataset``, to another
        path of the same file. Any other may be given only as it is.
    dataset, progress, callbacks, stop
        As for ``train``.

    Returns
    -------
    Run

    Raises
    ------
    ConfigError
        A change is not one that a run can go on with; the sentence names it.
    RunError, DataError, BackendError, NonFiniteError, CollapseError
        As for ``train``; the run may also be in the hands of another process.

    Warns
    -----
    FastganWarning
        The number of threads differs and the backend is the reference: only agreement to rounding remains.
    """
    path = Path(run)
    if not path.is_dir():
        checkpoint.load(path)
    with locked(path):
        _resume(path, changes, dataset, progress, callbacks, stop)
    return load_run(path)


def _resume(
    path: Path,
    changes: Mapping[str, Any] | None,
    dataset: datasets.Dataset | None,
    progress: datasets.Progress | None,
    callbacks: Sequence[Callback],
    stop: threading.Event | None,
) -> None:
    loaded = checkpoint.load_to_go_on(path)
    check_record(path, loaded)
    old = recorded_config(path, loaded)
    num_rows = loaded.record["data"]["rows"]["train"]
    config = changed_for_resume(old, changes or {}, num_rows)
    if config.threads != old.threads and config.backend == "reference":
        warnings.warn(
            f"threads changes from {old.threads} to {config.threads}: BLAS takes sums in another order, "
            "so the run goes on equal to rounding only, not bit for bit",
            FastganWarning,
            stacklevel=3,
        )
    compute = device(config.backend, config.device, config.precision)
    if dataset is None:
        config = config.replace({"dataset": where_data_are(config)})
        dataset = datasets.load(config.dataset, data_dir=config.data_dir, progress=progress, fold=config.fold)
    check_same_data(path, dataset, loaded.record["data"])
    with threads.limit(config.threads):
        trainer = Trainer(config, dataset, compute, last_step(config, num_rows))
        try:
            trainer.load_arrays(loaded.arrays)
        except ValueError as error:
            raise RunError(f"The checkpoint of {path} does not fit its own configuration: {error}") from error
        session = _Session(path, config, dataset, trainer, callbacks, stop or threading.Event())
        session.take_up(loaded)
        session.go_on()


def changed_for_resume(old: Config, changes: Mapping[str, Any], num_rows: int) -> Config:
    """Apply changes that a run on ``num_rows`` rows of training data can go on with.

    Raises
    ------
    ConfigError
        A field outside ``RESUMABLE`` would change, or the run become shorter.
    """
    changes = dict(changes)
    if changes.get("epochs") is not None and "steps" not in changes:
        changes["steps"] = None
    new = old.replace(absolute_paths(changes))
    new_fields, old_fields = new.to_json(), old.to_json()
    for name in new_fields:
        if name == "dataset" and _are_own_files(old_fields[name], new_fields[name]):
            # Whether it is the same file its digest tells, once it is read.
            continue
        if new_fields[name] != old_fields[name] and name not in RESUMABLE:
            raise ConfigError(
                f"{name} of the run is {old_fields[name]!r} and cannot become {new_fields[name]!r}; "
                "leave the option out, or start a new run (--init-from takes over the weights)"
            )
    if last_step(new, num_rows) < last_step(old, num_rows):
        raise ConfigError(
            f"The run was to make {_length(old, num_rows)} and the options ask for {_length(new, num_rows)}; "
            "a resumed run can be made longer, not shorter"
        )
    return new


def _length(config: Config, num_rows: int) -> str:
    """Say how long a run is to be in the words that it was asked for."""
    steps = last_step(config, num_rows)
    return f"{steps} steps" if config.steps else f"{config.epochs} epochs ({steps} steps)"


def _are_own_files(*names: str) -> bool:
    return all(name not in datasets.names() for name in names)


def absolute_paths(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Make the paths among a configuration's fields absolute: a run can then be gone on with from any folder."""
    fields = dict(fields)
    if isinstance(fields.get("data_dir"), str):
        fields["data_dir"] = os.path.abspath(fields["data_dir"])
    if isinstance(fields.get("dataset"), str) and fields["dataset"] not in datasets.names():
        path = os.path.abspath(fields["dataset"])
        # What is no file is a mistyped name, and stays as it is for the sentence about it.
        fields["dataset"] = path if os.path.exists(path) else fields["dataset"]
    return fields


def last_step(config: Config, num_rows: int) -> int:
    """Give the number of updates that a configuration asks for on ``num_rows`` rows of training data."""
    return config.steps or config.epochs * max(1, num_rows // (config.d_steps * config.batch_size))


class _Session:
    """One process's part in a run."""

    def __init__(
        self,
        path: Path,
        config: Config,
        dataset: datasets.Dataset,
        trainer: Trainer,
        callbacks: Sequence[Callback],
        stop: threading.Event,
    ) -> None:
        self.path, self.config, self.dataset, self.trainer = path, config, dataset, trainer
        self.callbacks, self.stop = callbacks, stop
        self.last_step = last_step(config, len(dataset.splits["train"]))
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        # The last scheduled report: what its sums and clock stood at.
        self.reported: dict[str, Any] = {"step": 0, "seconds": 0.0, "sums": [0.0] * 4}
        self.best: float | None = None
        self.origin = {"started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "init_from": None}
        self._saved_at, self._saving_took, self._saved_step = time.monotonic(), 0.0, -1
        self._z: NDArray[np.float32] = trainer.generator.sample_noise(_GRID_COLUMNS * _GRID_ROWS, config.seed)
        self._data_variance = watch.data_variance(dataset.splits["train"])

    @property
    def step(self) -> int:
        return int(self.trainer.device.download(self.trainer.state.update)[0])

    @property
    def non_finite(self) -> bool:
        return bool(self.trainer.device.download(self.trainer.state.non_finite)[0])

    def begin(self, init_from: Path | None) -> None:
        """Lay out the run's folder and save a first checkpoint, so that a run can be resumed from its very start."""
        if init_from is not None:
            self.origin["init_from"] = str(init_from.resolve())
        self._write(lambda: (self.path / SAMPLES).mkdir())
        # First of all: from here on, whatever happens, there is something to go on from.
        self._save()
        # The folder's own name is an entry of the one above.
        self._write(lambda: sync_folder(self.path.absolute().parent))
        self._write_config()
        self._write_grid(0)
        self._write(lambda: write_atomically(self.path / METRICS, b""))
        self._write_report()

    def take_up(self, loaded: Checkpoint) -> None:
        """Go on where a checkpoint left off; what was reported after it is dropped, as it will be reported again."""
        record = loaded.record
        self.history, self.seconds, self.reported = record["history"], record["seconds"], record["reported"]
        self.best, self.origin = record["best"], record.get("origin", self.origin)
        self._saved_step = self.step
        self._write(lambda: (self.path / SAMPLES).mkdir(exist_ok=True))
        for folder in (self.path, self.path / SAMPLES):
            self._write(lambda folder=folder: remove_temporaries(folder))
        self._write_config()
        lines = "".join(json.dumps(line) + "\n" for line in self.history)
        self._write(lambda: write_atomically(self.path / METRICS, lines.encode()))
        for grid in self._grids():
            if _step_of(grid) > self.step:
                self._write(grid.unlink)
        if not (self.path / SAMPLES / _grid_name(0)).exists() and self.step == 0:
            self._write_grid(0)
        self._write_report()

    def go_on(self) -> None:
        """Train until the last step or a stop."""
        for callback in self.callbacks:
            callback.on_begin(self.path, self.trainer, self.last_step)
        while self.step < self.last_step and not self.stop.is_set():
            self._run_until(min(self._next_report(), self.last_step))
            step = self.step
            if self.non_finite:
                where = self.trainer.first_non_finite()
                self._freeze(f"first in {where}" if where else "in a loss", "and no later update was made")
            for callback in self.callbacks:
                callback.on_progress(step)
            if step == self._next_report(step - 1) or step == self.last_step:
                self._report(step)
            if time.monotonic() - self._saved_at >= self._seconds_between_saves():
                self._save()
        if self._saved_step != self.step:
            self._save()

    def _run_until(self, target: int) -> None:
        """Make steps up to ``target``; stop early after a look's time or when asked to."""
        started = time.perf_counter()
        until = started + _SECONDS_BETWEEN_LOOKS
        # Whatever overflows shows in the step's own flag, and is told in a sentence rather than by NumPy's warnings.
        with np.errstate(over="ignore", invalid="ignore"):
            self.trainer.device.repeat(
                self.trainer.step,
                target - self.step,
                lambda: self.stop.is_set() or time.perf_counter() > until or self._has_stopped_by_itself(),
            )
        self.seconds += time.perf_counter() - started

    def _has_stopped_by_itself(self) -> bool:
        """Tell whether the flag is raised, where that costs nothing: a device's memory is read at the looks only."""
        words = self.trainer.state.words
        return isinstance(words, np.ndarray) and bool(words[3])

    def _next_report(self, after: int | None = None) -> int:
        """Give the first step after ``after`` with a report: epochs 1, 2, 5, every 10th, and those that are scored."""
        E = self.trainer.steps_per_epoch
        epoch = (self.step if after is None else after) // E + 1
        while not (epoch in (1, 2, 5) or epoch % 10 == 0 or self._is_scored(epoch)):
            epoch += 1
        return epoch * E

    def _is_scored(self, epoch: float) -> bool:
        return self.config.parzen_every is not None and epoch % self.config.parzen_every == 0

    def _report(self, step: int) -> None:
        """Add a line to the metrics, a grid to the samples, and make the report anew."""
        config, E = self.config, self.trainer.steps_per_epoch
        scheduled = step == self._next_report(step - 1)
        sums = self.trainer.device.download(self.trainer.sums)
        num_steps = step - self.reported["step"]
        per_loss = dict(zip(SUMS, (sums - np.array(self.reported["sums"])) / num_steps, strict=True))
        # D's sums are over its k updates a step.
        for name in ("discriminator_loss", "D_x", "D_G_z"):
            per_loss[name] /= config.d_steps
        num_images = num_steps * config.d_steps * config.batch_size
        elapsed = self.seconds - self.reported["seconds"]
        line: dict[str, Any] = {
            "step": step,
            "epoch": step / E,
            **{name: float(value) for name, value in per_loss.items()},
            "images_per_second": num_images / elapsed if elapsed else 0.0,
            "seconds": self.seconds,
        }
        images = self.trainer.generator.generate(self._z)
        if self._data_variance > 0 and np.isfinite(images).all():
            line["sample_spread"] = round(watch.variance(images) / self._data_variance, 6)
        is_best = False
        if step % E == 0 and self._is_scored(step // E):
            line["parzen"] = self._score()
            is_best = self.best is None or line["parzen"]["log_likelihood"] > self.best
        collapse = watch.collapse([*self.history, line])
        is_new = collapse is not None and not any("collapse" in earlier for earlier in self.history)
        if is_new:
            line["collapse"] = collapse
        self.history.append(line)
        if scheduled:
            # A report that only marks the end of a shortened run leaves no trace in what comes after it.
            self.reported = {"step": step, "seconds": self.seconds, "sums": sums.tolist()}
        if is_best:
            self.best = line["parzen"]["log_likelihood"]
            self._save("best")
        self._write(lambda: append(self.path / METRICS, (json.dumps(line) + "\n").encode()))
        self._write_grid(step, images)
        self._write_report()
        for callback in self.callbacks:
            callback.on_report(line)
        if collapse is not None and config.on_collapse == "stop":
            self._save()
            raise CollapseError(
                f"At step {step} {watch.SENTENCES[collapse]}; the run was saved and stopped there as asked, "
                f"{watch.REMEDY}, and --resume {self.path} --on-collapse warn goes on all the same"
            )
        if is_new and collapse is not None:
            warnings.warn(f"At step {step} {watch.SENTENCES[collapse]}; {watch.REMEDY}", FastganWarning, stacklevel=2)

    def _score(self) -> dict[str, float]:
        """Score on validation data, sigma chosen there; the error is over the validation examples."""
        samples = self.trainer.generator.sample(NUM_SAMPLES, self.config.seed)
        sigmas = sigma_grid()
        means, errors = validation_log_likelihoods(samples, self.dataset, sigmas, backend=self.config.backend)
        best = int(means.argmax())
        return {
            "sigma": float(sigmas[best]),
            "log_likelihood": float(means[best]),
            "standard_error": float(errors[best]),
        }

    def _seconds_between_saves(self) -> float:
        if self.config.checkpoint_every is not None:
            return self.config.checkpoint_every
        return min(max(_CHECKPOINT_SECONDS, _CHECKPOINT_SHARE * self._saving_took), _CHECKPOINT_SECONDS_AT_MOST)

    def _save(self, which: str = "latest") -> None:
        started = time.monotonic()
        arrays = self.trainer.arrays()
        bad = checkpoint.check_finite(arrays)
        if bad is not None:
            self._freeze(f"in {bad}", "which no loss had shown")
        checkpoint.save(self.path, Checkpoint(arrays, self._record()), which)
        if which == "best":
            return
        self._saved_at, self._saved_step = time.monotonic(), self.step
        self._saving_took = self._saved_at - started
        for callback in self.callbacks:
            callback.on_checkpoint(self.path, self._saved_step)

    def _freeze(self, where: str, what_then: str) -> NoReturn:
        """Keep the state that holds a NaN beside the checkpoints, and stop."""
        fault = f"Update {self.step} met a NaN or an infinity, {where}, {what_then}"
        kept = f"the state is kept in {FROZEN} for a look"
        note = "Updates made earlier in that step stand. It cannot be resumed."
        record = {**self._record(), "frozen": f"{fault}. {note}"}
        try:
            checkpoint.save(self.path, Checkpoint(self.trainer.arrays(), record), "frozen")
        except RunError as error:
            kept = f"the state could not be kept ({error})"
        raise NonFiniteError(
            f"{fault}; training stopped there and {kept}, the checkpoint of step {self._saved_step} in {self.path} is "
            "good; a new run with a lower --learning-rate "
            + (f"may go on from those weights by --init-from {self.path}" if self._saved_step else "may do better")
        )

    def _record(self) -> dict[str, Any]:
        return {
            "config": self.config.to_json(),
            "data": describe_data(self.dataset),
            "history": self.history,
            "seconds": self.seconds,
            "reported": self.reported,
            "best": self.best,
            "origin": self.origin,
        }

    def _write_config(self) -> None:
        record = {
            "format": FORMAT,
            "config": self.config.to_json(),
            "data": describe_data(self.dataset),
            "versions": versions(),
            "machine": describe_machine(self.trainer.device),
            **self.origin,
        }
        self._write(lambda: write_json(self.path / CONFIG, record))

    def _write_grid(self, step: int, images: NDArray[np.float32] | None = None) -> None:
        if images is None:
            images = self.trainer.generator.generate(self._z)
        shown = figures.display_pixels(images, self.dataset.contrast)
        picture = figures.grid(shown, self.dataset.image_shape, _GRID_COLUMNS)
        content = figures.to_png(picture)
        self._write(lambda: write_atomically(self.path / SAMPLES / _grid_name(step), content))

    def _write_report(self) -> None:
        options = {"config": self.config.to_json(), "data": describe_data(self.dataset), "versions": versions()}
        self._write(lambda: _write_report(self.path, options, self.history, self.trainer.steps_per_epoch))

    def _grids(self) -> list[Path]:
        return _grids(self.path)

    def _write(self, action: Any) -> None:
        """Do something to the run's folder, and put the system's refusal in a sentence."""
        try:
            action()
        except OSError as error:
            if not self.path.is_dir():
                raise RunError(
                    f"The run's folder {self.path} is gone, and what it held with it; training stopped, train anew"
                ) from error
            raise RunError(
                f"Cannot write to the run's folder {self.path}: {error.strerror or error}; the last checkpoint is of "
                f"step {max(self._saved_step, 0)}, so make room, or mend what is wrong there, and go on with "
                f"`fastgan train --resume {self.path}`"
            ) from error


def record_score(run: Run, score: Mapping[str, Any]) -> None:
    """Keep a run's final score beside it, and show it in its report.

    Parameters
    ----------
    run : Run
        What was scored.
    score : mapping
        As ``ParzenScore.to_json`` gives it.

    Raises
    ------
    RunError
        The run's folder cannot be written.
    """
    shown = ("log_likelihood", "standard_error", "split", "sigma", "num_samples", "backend")
    config, rows = run.config, run.data["rows"]["train"]
    try:
        write_json(run.path / SCORE, {**{name: score[name] for name in shown}, "step": run.step})
        options = {"config": config.to_json(), "data": run.data, "versions": versions()}
        _write_report(run.path, options, run.history, rows // (config.d_steps * config.batch_size))
    except OSError as error:
        raise RunError(
            f"Cannot write the score to the run's folder {run.path}: {error.strerror or error}; it is good all the same"
        ) from error


def _write_report(
    path: Path, options: Mapping[str, Any], history: Sequence[Mapping[str, Any]], steps_per_epoch: int
) -> None:
    paths = _grids(path)
    # Only what the page shows is read: it is written at every report of a run that may make thousands.
    grids = [(round(_step_of(paths[k]) / steps_per_epoch, 2), paths[k].read_bytes()) for k in report.evenly(len(paths))]
    page = report.render(
        options,
        history,
        # Whole epochs as whole numbers: that is how the page shows them.
        [(int(epoch) if epoch.is_integer() else epoch, png) for epoch, png in grids],
        run_name=path.resolve().name,
        score=_read_score(path),
    )
    write_atomically(path / REPORT, page.encode())


def _read_score(path: Path) -> dict[str, Any] | None:
    try:
        score = json.loads((path / SCORE).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        score = None
    # A spoilt score is no reason to stop a run, and none to be silent.
    return score if isinstance(score, dict) else {SCORE: "cannot be read"}


def _grids(path: Path) -> list[Path]:
    return sorted((path / SAMPLES).glob("step-*.png"))


def versions() -> dict[str, str]:
    """Name the versions that a run's bits depend on."""
    import h5py
    import numba
    import scipy

    return {
        "fastgan": fastgan.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
        "h5py": h5py.__version__,
    }


def describe_machine(compute: HostDevice) -> dict[str, Any]:
    """Name the machine as far as a run's bits and speed depend on it."""
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "device": compute.describe(),
        "cores": threads.available_cores(),
    }


def check_source_is_named(config: Config, source: str | Path | None) -> None:
    """Check, before data are read and networks made, that a run is named where the configuration builds on one.

    Raises
    ------
    ConfigError
        There is no source, and the configuration builds on one.
    """
    if config.new_layers and source is None:
        raise ConfigError(
            f"The preset {config.preset} puts {config.new_layers} new layers before the generator of another run; "
            "name that run by --init-from"
        )


def init_networks(trainer: Trainer, source: Path | None) -> None:
    """Take over the weights and biases of the run at ``source``: both networks, or G alone behind new layers.

    Raises
    ------
    RunError
        They cannot be read, or do not fit the trainer's networks.
    """
    num_new = trainer.config.new_layers
    if source is None:
        return
    loaded = checkpoint.load(source)
    arrays = loaded.arrays
    if num_new:
        _check_stage_1(trainer, source, loaded)
        arrays = {
            re.sub(r"\d+", lambda match: str(int(match[0]) + num_new), key): array
            for key, array in arrays.items()
            if key.startswith("generator/")
        }
    try:
        trainer.load_networks(arrays)
    except ValueError as error:
        raise RunError(
            f"The networks of {source} do not fit this configuration ({error}); give the preset, widths and data set "
            "that they were trained with"
        ) from error


def _grid_name(step: int) -> str:
    return f"step-{step:08d}.png"


def _check_stage_1(trainer: Trainer, source: Path, loaded: Checkpoint) -> None:
    """Check that the generator behind the new layers is that of the run at ``source``."""
    config, first = trainer.config, recorded_config(source, loaded)
    new, rest = config.generator[: config.new_layers], config.generator[config.new_layers :]
    num_pixels = trainer.generator.num_outputs
    wanted = _describe_layers(trainer.generator.layers[len(new)].num_inputs, rest, num_pixels)
    found = _describe_layers(first.noise_dim, first.generator, int(np.prod(loaded.record["data"]["image_shape"])))
    if wanted != found:
        raise RunError(
            f"{source} is no run that this one can build on: its generator is {found}, and the layers of "
            f"{config.preset} after the first {len(new)} are {wanted}; name a run of the first stage, of the same "
            "widths and data"
        )


def _describe_layers(num_inputs: int, layers: Sequence[LayerConfig], num_outputs: int) -> str:
    named = (
        f"{getattr(layer, 'activation', layer.layer)} {getattr(layer, 'num_units', None) or num_outputs}"
        for layer in layers
    )
    return " → ".join([str(num_inputs), *named])


def _step_of(grid: Path) -> int:
    return int(grid.stem.removeprefix("step-"))
