"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` so that a crash at any moment leaves the old file or the new one, whole.

    The bytes go to a temporary name in the same folder, are flushed and fsynced, and take the place of ``path`` by a
    rename; then the folder is synced, where the system has such a thing. On any error the temporary file is removed.

    Parameters
    ----------
    path : path
        The file to write; its folder must exist.
    content : bytes
        The whole content.

    Raises
    ------
    OSError
        What the system said; ``path`` is as it was.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut; does nothing where folders cannot be synced (Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    # The only portable way to read the mask is to set it; mkstemp's 0600 would otherwise hide runs from a user's own
    # group.
    mask = os.umask(0)
    os.umask(mask)
    return mask
