"""A run's folder: how it is named, found and read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastgan import checkpoint, datasets
from fastgan.config import Config
from fastgan.errors import ConfigError, DataError, FastganWarning, RunError
from fastgan.files import try_lock, write_atomically
from fastgan.kernels.common.devices import HostDevice, device
from fastgan.networks import Discriminator, Generator, Network, build_discriminator, build_generator

DEFAULT_RUNS = "runs"
CONFIG, METRICS, REPORT, SAMPLES = "config.json", "metrics.jsonl", "report.html", "samples"
SCORE, LOCK = "score.json", ".lock"
_NUMBERED = re.compile(r"(\d{5,})-.*")


class Run:
    """A trained, or half-trained, pair of networks and the record of how it came about.

    Parameters
    ----------
    path : Path
        The run's folder.
    loaded : checkpoint.Checkpoint
        Its state.
    backend : str
        What the networks compute with.

    Attributes
    ----------
    path : Path
    config : Config
    history : list of dict
        The reports: step, epoch, losses, D(x), D(G(z)), images a second, seconds, Parzen where asked for.
    step : int
        Updates made.
    data : dict
        The data set's name, image shape, split sizes and digests.
    """

    def __init__(self, path: Path, loaded: checkpoint.Checkpoint, backend: str = "auto") -> None:
        check_record(path, loaded)
        self.path = path
        self.loaded = loaded
        self.config = recorded_config(path, loaded)
        self.history: list[dict[str, Any]] = loaded.record["history"]
        self.data: dict[str, Any] = loaded.record["data"]
        self.step = int(loaded.arrays["state"].view(np.int64)[0])
        self._backend = backend

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.data["image_shape"]
        return channels, height, width

    @property
    def contrast(self) -> float | None:
        """The norm that the data's images are brought to (``Dataset.contrast``); None where pixels are in [0, 1]."""
        contrast: float | None = self.data.get("contrast")
        return contrast

    @cached_property
    def generator(self) -> Generator:
        """G with its trained weights."""
        generator = build_generator(self.config, self._num_pixels, np.zeros(self._num_pixels), self._device)
        self._load_weights(generator, "generator")
        return generator

    @cached_property
    def discriminator(self) -> Discriminator:
        """D with its trained weights."""
        discriminator = build_discriminator(self.config, self.image_shape, self._device)
        self._load_weights(discriminator, "discriminator")
        return discriminator

    def load_dataset(
        self, data_dir: str | None = None, *, fold: int | None = None, progress: datasets.Progress | None = None
    ) -> datasets.Dataset:
        """Load the data set that the run was trained on.

        Parameters
        ----------
        data_dir : str, optional
            Where it is looked for, in place of where the run found it; for a user's own file that was moved, its
            folder or its path.
        fold : int, optional
            Which fold validates and tests, in place of the run's own.
        progress : callable, optional
            As for ``datasets.load``.

        Raises
        ------
        DataError
            It is not to be found, or is not what the run was trained on.
        """
        config = self.config if data_dir is None else self.config.replace({"data_dir": data_dir})
        name, data_dir, own_fold = where_data_are(config), config.data_dir, config.fold
        dataset = datasets.load(name, data_dir=data_dir, progress=progress, fold=own_fold)
        check_same_data(self.path, dataset, self.data)
        if fold is not None and fold != own_fold:
            dataset = datasets.load(name, data_dir=data_dir, fold=fold)
        return dataset

    @property
    def _num_pixels(self) -> int:
        return int(np.prod(self.image_shape))

    @cached_property
    def _device(self) -> HostDevice:
        return device(self._backend)

    def _load_weights(self, network: Network, name: str) -> None:
        for key, array in network.parameters().items():
            saved = self.loaded.arrays.get(f"{name}/{key}")
            if saved is None or saved.shape != array.shape:
                raise RunError(f"The checkpoint of {self.path} does not fit its own configuration: {name}/{key}")
            network.device.overwrite(array, saved)


def load_run(path: str | os.PathLike[str], checkpoint_name: str = "latest", *, backend: str = "auto") -> Run:
    """Read a run.

    Parameters
    ----------
    path : path
        The run's folder.
    checkpoint_name : {"latest", "best"}
        Which checkpoint; ``best`` exists where ``parzen_every`` was set.
    backend : str
        What the networks compute with, whatever trained them.

    Returns
    -------
    Run

    Raises
    ------
    RunError
        There is no run there, or it cannot be read; the sentence says why.

    Examples
    --------
    >>> import tempfile
    >>> import fastgan
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trained = fastgan.train(fastgan.preset("digits").replace({"steps": 2}), run_dir=folder)
    ...     run = fastgan.load_run(folder)
    >>> run.step, run.generator.sample(4, seed=1).shape
    (2, (4, 64))
    """
    return Run(Path(path), checkpoint.load(Path(path), checkpoint_name), backend)


def check_record(path: Path, loaded: checkpoint.Checkpoint) -> None:
    """Check that a checkpoint holds what a run is made of.

    Raises
    ------
    RunError
        Something is missing or of another kind; the sentence names it.
    """
    state = loaded.arrays.get("state")
    problem = "" if state is not None and state.shape == (8,) and state.dtype == np.int64 else "state"
    kinds = {"config": dict, "data": dict, "history": list, "seconds": float | int, "reported": dict}
    for name, kind in kinds.items():
        if not isinstance(loaded.record.get(name), kind):
            problem = name
    if not problem and not (
        isinstance(loaded.record["data"].get("image_shape"), list)
        and isinstance(loaded.record["data"].get("rows"), dict)
        and all(isinstance(line, dict) for line in loaded.record["history"])
    ):
        problem = "data"
    if problem:
        raise RunError(
            f"The checkpoint of {path} lacks its {problem}, or has something else there; "
            "use the version of fastgan that wrote it"
        )


def recorded_config(path: Path, loaded: checkpoint.Checkpoint) -> Config:
    """Read the configuration in a run's checkpoint; a field that it lacks takes its default."""
    try:
        return Config.from_json(loaded.record["config"])
    except ConfigError as error:
        raise RunError(
            f"The configuration of {path} cannot be read: {error}; use the version of fastgan that wrote it"
        ) from error


def where_data_are(config: Config) -> str:
    """Give the data set's name or path; a user's own file that is gone may lie in ``data_dir``, or be it."""
    if config.dataset in datasets.names() or config.data_dir is None or Path(config.dataset).exists():
        return config.dataset
    given = Path(config.data_dir)
    return str(given / Path(config.dataset).name if given.is_dir() else given)


def describe_data(dataset: datasets.Dataset) -> dict[str, Any]:
    """Record which data a run is trained on."""
    return {
        "name": dataset.name,
        "image_shape": list(dataset.image_shape),
        "contrast": dataset.contrast,
        "rows": {name: len(split) for name, split in dataset.splits.items()},
        "source": dataset.source,
        "digests": dict(dataset.digests),
    }


def check_same_data(path: Path, dataset: datasets.Dataset, recorded: Mapping[str, Any]) -> None:
    """Check data against what ``describe_data`` recorded of a run's.

    Raises
    ------
    DataError
        They are others.
    """
    own = describe_data(dataset)
    # The content counts: a user's own file may have been renamed.
    is_same = bool(recorded["digests"]) and sorted(own["digests"].values()) == sorted(recorded["digests"].values())
    for name, digest in recorded["digests"].items():
        if not is_same and own["digests"].get(name) != digest:
            raise DataError(
                f"The data at {dataset.source} are not those that {path} was trained on: {name} has another SHA-256; "
                "give their folder with --data-dir"
            )
    # Data that a caller made have no digest.
    for field in ("name", "image_shape", "rows"):
        if own[field] != recorded[field] and not (is_same and field == "name"):
            raise DataError(
                f"The data at {dataset.source} are not those that {path} was trained on: their {field} is "
                f"{own[field]} and was {recorded[field]}"
            )


def find_run(name: str | None, runs_dir: str | os.PathLike[str]) -> Path:
    """Find a run's folder.

    Parameters
    ----------
    name : str, optional
        A path, the name of a folder in ``runs_dir``, or its number; None takes the newest, that of the highest number
        among those that have made a step, as far as there are any.
    runs_dir : path
        The folder of runs.

    Returns
    -------
    Path

    Raises
    ------
    RunError
        There is no such run.

    Warns
    -----
    FastganWarning
        A newer run has made no step and is passed over.
    """
    runs_dir = Path(runs_dir)
    if name is None:
        return _newest(runs_dir)
    if name.isdecimal() and int(name) in _numbered(runs_dir):
        return _numbered(runs_dir)[int(name)]
    for path in (Path(name), runs_dir / name):
        if path.is_dir():
            return path
    numbered = _numbered(runs_dir)
    newest = f"; the newest there is {numbered[max(numbered)].name}" if numbered else ""
    raise RunError(
        f"There is no run {name!r}: neither a folder of that path, nor a name or a number in {runs_dir}{newest}"
    )


def _newest(runs_dir: Path) -> Path:
    numbered = _numbered(runs_dir)
    if not numbered:
        raise RunError(
            f"There is no run in {runs_dir}; train one with `fastgan train`, or name another place with --runs"
        )
    newest_first = [numbered[number] for number in sorted(numbered, reverse=True)]
    for path in newest_first:
        if _has_steps(path):
            break
    else:
        return newest_first[0]
    if path != newest_first[0]:
        warnings.warn(f"{newest_first[0]} has made no step; {path} is used", FastganWarning, stacklevel=3)
    return path


def _has_steps(path: Path) -> bool:
    """Tell whether a run has saved a state beyond its first; what cannot be read is left for its reader to report."""
    # A second save keeps the first as the previous one: two files tell, without either being read.
    if (path / checkpoint.PREVIOUS).exists():
        return True
    if not (path / checkpoint.LATEST).exists():
        return False
    try:
        return Run(path, checkpoint.load(path), "reference").step > 0
    except RunError:
        return True


def new_run_folder(runs_dir: str | os.PathLike[str], dataset: str, seed: int) -> Path:
    """Make the next numbered folder, ``00007-mnist-seed0``."""
    runs_dir = Path(runs_dir)
    label = re.sub(r"[^A-Za-z0-9_-]+", "-", dataset).strip("-") or "data"
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        number = max(_numbered(runs_dir), default=0) + 1
        while True:
            # Another process may be after the same number, for a folder of another name: who makes the claim has it.
            claim = runs_dir / f".{number:05d}.claim"
            try:
                claim.mkdir()
            except FileExistsError:
                number += 1
                continue
            try:
                if number not in _numbered(runs_dir):
                    path = runs_dir / f"{number:05d}-{label}-seed{seed}"
                    path.mkdir()
                    return path
                number += 1
            finally:
                claim.rmdir()
    except OSError as error:
        raise RunError(
            f"Cannot make a run's folder in {runs_dir}: {error.strerror}; name another place with --runs"
        ) from error


def take_run_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder of the user's choice for a new run; it must be empty or not be there."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        # A process that was killed before it saved anything leaves its lock's file.
        if any(entry.name != LOCK for entry in path.iterdir()):
            raise RunError(f"{path} is not empty; give a new folder, or go on with the run in it by --resume {path}")
    except OSError as error:
        raise RunError(
            f"Cannot make the run's folder {path}: {error.strerror}; give another one with --run-dir"
        ) from error
    return path


@contextlib.contextmanager
def locked(path: Path, doing: str = "trained") -> Iterator[None]:
    """Keep every other process from training in a run's folder; a process that ends, however it does, holds no lock.

    ``doing`` is what else is done in a folder, for the sentence of the one that is refused.

    Raises
    ------
    RunError
        Another process is at it.

    Warns
    -----
    FastganWarning
        The file system has no locks.
    """
    lock = path / LOCK
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunError(
                f"Cannot write to the folder {path}: {error.strerror or error}; mend that, and try again"
            ) from error
        try:
            is_free = try_lock(descriptor)
            # Who had it may just have removed it: then it is a lock on nothing.
            if is_free and not _is_still(lock, descriptor):
                os.close(descriptor)
                continue
        except OSError as error:
            warnings.warn(
                f"{lock} cannot be locked ({error.strerror or error}): see to it yourself that no second process "
                "writes in this folder",
                FastganWarning,
                stacklevel=3,
            )
            is_free = True
        if not is_free:
            os.close(descriptor)
            raise RunError(
                f"{path} is being {doing} by another process; wait for it, or stop it with Ctrl-C, which saves"
            )
        break
    try:
        yield
    finally:
        # Removed while it is still held where that can be done; Windows removes no open file.
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(descriptor)
        with contextlib.suppress(OSError):
            if os.name == "nt":
                lock.unlink()


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object that a person can read."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _numbered(runs_dir: Path) -> dict[int, Path]:
    if not runs_dir.is_dir():
        return {}
    try:
        folders = [path for path in runs_dir.iterdir() if path.is_dir()]
    except OSError as error:
        raise RunError(f"Cannot read the folder of runs {runs_dir}: {error.strerror}") from error
    matches = ((_NUMBERED.fullmatch(path.name), path) for path in folders)
    return {int(match[1]): path for match, path in matches if match}
