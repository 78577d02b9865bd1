"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

_CHUNK_BYTES = 1 << 20
_TEMPORARY = ".tmp"


def write_atomically(
    path: str | os.PathLike[str], content: bytes, *, previous: str | os.PathLike[str] | None = None
) -> None:
    """Write ``content`` to ``path`` so that a crash at any moment leaves the old file or the new one, whole.

    The bytes go to a temporary name in the same folder, are fsynced, and take the place of ``path`` by a
    rename; then the folder is synced, where the system has such a thing. On any error the temporary file is removed.

    Parameters
    ----------
    path : path
        The file to write; its folder must exist.
    content : bytes
        The whole content.
    previous : path, optional
        The name, in the same folder, that the file at ``path`` is kept under once the new one is whole on the disk.

    Raises
    ------
    OSError
        What the system said; ``path`` is as it was, or, in a system without hard links, at ``previous``.
    """
    path = Path(path)
    # Named before it is there, so that a signal's exception between any two steps finds it and removes it.
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}{_TEMPORARY}")
    try:
        _create(temporary, content)
        if previous is not None and path.exists():
            _keep(path, Path(previous))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _create(path: Path, content: bytes) -> None:
    """Make a new file, whole and on the disk, with the rights of any file."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        _write_all(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, content: bytes) -> None:
    """Write straight to the system: there is no buffer of ours that a crash could lose."""
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view[:_CHUNK_BYTES]) :]


def append(path: Path, content: bytes) -> None:
    """Add to a file's end, at once to the system; a crash may leave the beginning of it."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        _write_all(handle, content)
    finally:
        os.close(handle)


def is_temporary(path: Path) -> bool:
    """Tell by its name whether a file is one that ``write_atomically`` has not finished."""
    return path.name.startswith(".") and path.suffix == _TEMPORARY


def remove_temporaries(folder: Path) -> None:
    """Remove what writes that were cut off, by a kill or a power cut, have left in a folder; nobody may be writing."""
    for path in list(folder.glob(f".*{_TEMPORARY}")):
        path.unlink(missing_ok=True)


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process; the lock goes with the descriptor, so a process that ends leaves none behind.

    Returns
    -------
    bool
        False where another descriptor holds it.

    Raises
    ------
    OSError
        The file system has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            # Windows locks bytes, and keeps them from every reader: a byte far beyond the end is in nobody's way.
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _keep(path: Path, previous: Path) -> None:
    """Give the file at ``path`` the name ``previous`` too, in place of what had it."""
    spare = path.with_name(f".{previous.name}.tmp")
    try:
        # A second name first, so that at no moment is there none.
        spare.unlink(missing_ok=True)
        os.link(path, spare)
    except OSError:
        # No hard links here: for a moment only the previous name exists, which a reader of runs knows.
        os.replace(path, previous)
        return
    try:
        os.replace(spare, previous)
    finally:
        # Where both are names of one file already, as after a crash between the two renames, POSIX renames nothing.
        spare.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut; does nothing where folders cannot be synced (Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have folders and no way to sync them; the file itself is in place and synced.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
