"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path


def write_atomically(
    path: str | os.PathLike[str], content: bytes, *, previous: str | os.PathLike[str] | None = None
) -> None:
    """Write ``content`` to ``path`` so that a crash at any moment leaves the old file or the new one, whole.

    The bytes go to a temporary name in the same folder, are flushed and fsynced, and take the place of ``path`` by a
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
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        if previous is not None and path.exists():
            _keep(path, Path(previous))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


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
    except BaseException:
        spare.unlink(missing_ok=True)
        raise


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


def _umask() -> int:
    # The only portable way to read the mask is to set it; mkstemp's 0600 would otherwise hide runs from a user's own
    # group.
    mask = os.umask(0)
    os.umask(mask)
    return mask
