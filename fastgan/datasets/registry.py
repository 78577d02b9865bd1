"""The one list of known data sets, and the functions that take a name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from fastgan.datasets.cifar import CIFAR10
from fastgan.datasets.dataset import Dataset, FileCheck, Progress
from fastgan.datasets.digits import DigitsDataset
from fastgan.datasets.idx import FASHION_MNIST, MNIST
from fastgan.datasets.tfd import NUM_FOLDS, TFD, TfdDataset
from fastgan.datasets.user_file import SUFFIXES, load_user_file
from fastgan.errors import ConfigError


class Entry(Protocol):
    """What a registered data set can do before it is loaded; the functions of this module say what each one means."""

    @property
    def name(self) -> str:
        """The registered name."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

    @property
    def split_sizes(self) -> Mapping[str, int]:
        """Rows of each split."""

    def find(self, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
        """See `find`."""

    def fetch(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        mirror: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """See `fetch`."""

    def verify(self, data_dir: str | os.PathLike[str] | None = None) -> tuple[FileCheck, ...]:
        """See `verify`."""

    def load(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        download: bool = True,
        mirror: str | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """See `load`."""


REGISTRY: dict[str, Entry] = {entry.name: entry for entry in (DigitsDataset(), MNIST, FASHION_MNIST, TFD, CIFAR10)}


def names() -> tuple[str, ...]:
    """Return the registered names."""
    return tuple(REGISTRY)


def entry(name: str) -> Entry:
    """Return a registered data set by its name, without loading it.

    Raises
    ------
    ConfigError
        If no data set has that name; the nearest known name is suggested.
    """
    if name not in REGISTRY:
        raise ConfigError(_unknown(name))
    return REGISTRY[name]


def find(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder that holds all files of a data set, whatever their content, or None if there is none.

    Parameters
    ----------
    name : str
        A registered name.
    data_dir : path, optional
        The only folder to look in; unless given, ``$FASTGAN_DATA`` and then the user's cache folder. Either may itself
        hold the files, or be the parent of a folder named after the data set.

    Raises
    ------
    ConfigError
        If no data set has that name.
    DataError
        If the first folder that holds some of the files does not hold all of them.
    """
    return entry(name).find(data_dir)


def fetch(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make sure that a data set's files are there and right, downloading those that are missing; return their folder.

    Parameters
    ----------
    name : str
        A registered name.
    data_dir : path, optional
        Where to look, and to put what is missing. Unless given, the usual places are looked into; the first folder that
        holds some of the files is completed, else the cache folder takes them.
    mirror : str, optional
        An http(s) address to use instead of the known ones.
    progress : callable, optional
        Called as ``progress(file name, bytes done, bytes in all or None)``.

    Raises
    ------
    ConfigError
        If no data set has that name, or the mirror is not an http(s) address.
    DataError
        If a file that is there is not what it should be, a download fails, or the folder cannot be written.
    """
    return entry(name).fetch(data_dir, mirror, progress)


def verify(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> tuple[FileCheck, ...]:
    """Check the digest of every file of a data set.

    Raises
    ------
    ConfigError
        If no data set has that name.
    DataError
        If none of its files is found.
    """
    return entry(name).verify(data_dir)


def load(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    mirror: str | None = None,
    progress: Progress | None = None,
    fold: int | None = None,
) -> Dataset:
    """Load a data set by its registered name, or a user's own file by its path.

    Parameters
    ----------
    name_or_path : str or path
        A registered name (see `names`), else the path of a .npy, .npz, .h5 or .hdf5 file (see `load_user_file`).
    data_dir : path, optional
        The only folder to look in for a registered data set; unless given, ``$FASTGAN_DATA`` and then the user's cache
        folder. It has no meaning for ``digits`` and for a user's own file.
    download : bool, optional
        Whether a registered data set that is in none of the usual places is downloaded into the cache folder. Nothing
        is ever downloaded where ``data_dir`` is given.
    mirror : str, optional
        An http(s) address to download from instead of the known ones.
    progress : callable, optional
        Called as ``progress(file name, bytes done, bytes in all or None)`` during a download.
    fold : int, optional
        Which fold of ``tfd``, 0 to 4; unless given, 0. No other data set has folds.

    Raises
    ------
    ConfigError
        If ``name_or_path`` is neither a registered name nor a path, or has no such fold.
    DataError
        If a file is missing, damaged, or not what its name says.
    """
    text = os.fspath(name_or_path)
    if text in REGISTRY:
        return _of_fold(REGISTRY[text], fold).load(data_dir, download, mirror, progress)
    if fold is not None:
        raise ConfigError(f"fold is {fold} and {text} has no folds, which only {TFD.name} has; leave --fold out")
    path = Path(text)
    # A word without ending or folder that names nothing is a mistyped name rather than a missing file.
    if path.suffix.lower() in SUFFIXES or path.exists() or path.name != text:
        return load_user_file(path)
    raise ConfigError(f"{_unknown(text)}; a file of your own is named by its path, ending in {', '.join(SUFFIXES)}")


def _of_fold(found: Entry, fold: int | None) -> Entry:
    if fold is None:
        return found
    if not isinstance(found, TfdDataset):
        raise ConfigError(f"fold is {fold} and {found.name} has no folds, which only {TFD.name} has; leave --fold out")
    if not 0 <= fold < NUM_FOLDS:
        raise ConfigError(f"fold is {fold}; it must be 0 to {NUM_FOLDS - 1}")
    return replace(found, fold=fold)


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name.lower(), REGISTRY, n=1)
    hint = f'did you mean "{nearest[0]}"? The known ones are' if nearest else "the known ones are"
    return f'there is no data set "{name}"; {hint} {", ".join(REGISTRY)}'
