"""Checkpoints: one HDF5 file that holds all of a run's state, carries its own digest, and is never half-written.

A file is a 512-byte user block and an HDF5 file behind it. The block says, in ASCII lines, what the file is, how long
the rest is and what its SHA-256 is; HDF5 alone opens many damaged files without complaint, so the digest is checked
before HDF5 sees a byte. Inside: a dataset an array (``generator/0/W``, …, ``state``, ``sums``) under ``arrays``,
and ``record``, a JSON object as bytes. Nothing is ever pickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.errors import FastganWarning, RunError
from fastgan.files import write_atomically

FORMAT = 1
LATEST, PREVIOUS, BEST = "checkpoint.h5", "checkpoint-previous.h5", "checkpoint-best.h5"
# The state of a run that met a NaN, kept for a look and never gone on from.
FROZEN = "frozen.h5"
_BLOCK_SIZE = 512
_MAGIC = b"fastgan checkpoint\n"
_FROZEN_MAGIC = b"fastgan frozen state: it holds a NaN or an infinity and cannot be resumed\n"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds.

    Attributes
    ----------
    arrays : dict
        Name to array: networks, velocities, the step's struct, the report's sums.
    record : dict
        Configuration, data, history and clock, of JSON's kinds.
    """

    arrays: dict[str, NDArray[np.generic]]
    record: dict[str, Any]


def encode(checkpoint: Checkpoint, *, frozen: bool = False) -> bytes:
    """Make the whole file in memory; a frozen state's says in its first line that it is one."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=_BLOCK_SIZE) as file:
        # As a dataset of bytes: an attribute may not be longer than 64 KB.
        file.create_dataset("record", data=np.frombuffer(json.dumps(checkpoint.record).encode(), np.uint8))
        for name, array in checkpoint.arrays.items():
            file.create_dataset(f"arrays/{name}", data=array)
    body = buffer.getbuffer()[_BLOCK_SIZE:]
    return _block(body, _FROZEN_MAGIC if frozen else _MAGIC) + body


def _block(body: memoryview, magic: bytes = _MAGIC) -> bytes:
    """Make the user block: what the file is, and the length and the digest of the rest."""
    lines = f"format {FORMAT}\nlength {len(body)}\nsha256 {hashlib.sha256(body).hexdigest()}\n"
    return (magic + lines.encode()).ljust(_BLOCK_SIZE, b"\0")


def decode(content: bytes, path: Path, *, frozen: bool = False) -> Checkpoint:
    """Read a whole file's bytes.

    Parameters
    ----------
    content : bytes
        The file.
    path : Path
        Its name, for messages.
    frozen : bool
        Whether a frozen state is wanted, and not a checkpoint.

    Raises
    ------
    RunError
        It is not that, of another format, cut short or damaged.
    """
    import h5py

    body = memoryview(content)[_BLOCK_SIZE:]
    # The whole block is compared, so that no byte of the file goes unchecked.
    if content[:_BLOCK_SIZE] != _block(body, _FROZEN_MAGIC if frozen else _MAGIC):
        raise _fault(content, path, frozen)
    arrays: dict[str, NDArray[np.generic]] = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.dtype.kind not in "biuf":
                raise ValueError(f"{name} holds no numbers")
            arrays[name] = item[()]

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            record = json.loads(bytes(file["record"][()]))
            file["arrays"].visititems(collect)
        if not isinstance(record, dict):
            raise ValueError("its record is no JSON object")
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, RecursionError) as error:
        raise _DamagedError(f"{path} does not hold what a checkpoint holds: {error}") from error
    return Checkpoint(arrays, record)


def _fault(content: bytes, path: Path, frozen: bool) -> RunError:
    """Say what is wrong with a file whose user block is not that of its content."""
    magic = _FROZEN_MAGIC if frozen else _MAGIC
    if not frozen and content.startswith(_FROZEN_MAGIC):
        return _DamagedError(f"{path} is the frozen state of a run that met a NaN or an infinity, and no checkpoint")
    if not content.startswith(magic):
        return _DamagedError(f"{path} is not a fastgan checkpoint, or its first bytes are lost")
    lines = content[len(magic) : _BLOCK_SIZE].rstrip(b"\0").decode("ascii", "replace").splitlines()
    fields = dict(line.split(" ", 1) for line in lines if " " in line)
    # A format that is cut off is damage; another one is for another version to read.
    if len(content) >= _BLOCK_SIZE and fields.get("format") != str(FORMAT):
        return RunError(
            f"{path} is a checkpoint of format {fields.get('format', '?')} and this fastgan reads format {FORMAT}; "
            "use the version that wrote it"
        )
    num_bytes = len(content) - _BLOCK_SIZE
    if fields.get("length") != str(num_bytes):
        return _DamagedError(
            f"{path} is cut short, or longer than it was: {max(num_bytes, 0)} bytes of {fields.get('length', '?')}"
        )
    return _DamagedError(f"{path} is damaged: its content does not match its own SHA-256")


class _DamagedError(RunError):
    """The file cannot be read: an older one may serve."""


_WHICH = {"latest": LATEST, "best": BEST, "frozen": FROZEN}


def save(folder: Path, checkpoint: Checkpoint, which: str = "latest") -> None:
    """Write a run's checkpoint; the latest before it is kept as ``checkpoint-previous.h5``.

    Parameters
    ----------
    folder : Path
        The run's folder.
    checkpoint : Checkpoint
        What to keep.
    which : {"latest", "best", "frozen"}
        ``checkpoint-best.h5`` and ``frozen.h5`` are files of their own, which no other one makes way for.

    Raises
    ------
    RunError
        The system refused; what was there is untouched.
    """
    content = encode(checkpoint, frozen=which == "frozen")
    target = folder / _WHICH[which]
    try:
        write_atomically(target, content, previous=folder / PREVIOUS if which == "latest" else None)
    except OSError as error:
        raise RunError(
            f"Cannot write {target}: {error.strerror or error}; what was saved before is untouched, so make room, or "
            f"mend what is wrong there, and go on with `fastgan train --resume {folder}`"
        ) from error


def load(folder: Path, which: str = "latest") -> Checkpoint:
    """Read a run's checkpoint.

    Parameters
    ----------
    folder : Path
        The run's folder.
    which : {"latest", "best", "frozen"}
        ``best`` is the one with the best validation score, kept where ``parzen_every`` was set; ``frozen`` what a run
        was when it met a NaN.

    Returns
    -------
    Checkpoint

    Raises
    ------
    RunError
        There is none, or none that can be read.

    Warns
    -----
    FastganWarning
        The latest one is missing or damaged and the one before is used.
    """
    if not folder.is_dir():
        raise RunError(f"There is no run at {folder}; name the folder of one")
    if which == "best":
        if not (folder / BEST).exists():
            raise RunError(f"{folder} has no {BEST}; only a run trained with --parzen-every keeps its best checkpoint")
        return _read(folder / BEST)
    if which == "frozen":
        return _read(folder / FROZEN, frozen=True)
    return _load_latest(folder)[0]


def load_to_go_on(folder: Path) -> Checkpoint:
    """Read the latest checkpoint of a run that is about to be saved to again; arguments and errors as for ``load``.

    Where the one before serves, it takes the place of the damaged latest: the next save would otherwise keep that one
    as ``checkpoint-previous.h5``, and for a moment no good file would be left.
    """
    checkpoint, is_previous = _load_latest(folder)
    if is_previous:
        try:
            os.replace(folder / PREVIOUS, folder / LATEST)
        except OSError as error:
            raise RunError(f"Cannot rename {folder / PREVIOUS}: {error.strerror}") from error
    return checkpoint


def _load_latest(folder: Path) -> tuple[Checkpoint, bool]:
    """Read the latest checkpoint, or the one before, and say whether it is the one before."""
    has_previous = (folder / PREVIOUS).exists()
    if not (folder / LATEST).exists():
        if not has_previous:
            raise RunError(
                f"{folder} holds no checkpoint: it is not a run, or was stopped before its first save; name another, "
                "or train anew"
            )
        reason = f"{folder / LATEST} is missing"
    else:
        try:
            return _read(folder / LATEST), False
        except _DamagedError as error:
            if not has_previous:
                raise RunError(f"{error}, and there is none before it; {_REMEDY}") from error
            reason = str(error)
    try:
        previous = _read(folder / PREVIOUS)
    except RunError as error:
        raise RunError(f"{reason}, and the one before it cannot be read either: {error}; {_REMEDY}") from error
    warnings.warn(f"{reason}; the one before it, {PREVIOUS}, is used", FastganWarning, stacklevel=3)
    return previous, True


_REMEDY = "put a copy of yours in its place, take --checkpoint best where there is one, or train anew"


def _read(path: Path, *, frozen: bool = False) -> Checkpoint:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(
            f"Cannot read {path}: {error.strerror or error}; check that it is there, and its rights"
        ) from error
    return decode(content, path, frozen=frozen)


def check_finite(arrays: Mapping[str, NDArray[np.generic]]) -> str | None:
    """Name the first array that holds a NaN or an infinity, or None."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return name
    return None
