"""The folders where data sets are looked for and kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fastgan.errors import DataError

VARIABLE = "FASTGAN_DATA"


def cache_folder() -> Path:
    r"""Return the folder for downloaded data sets, which may not exist yet.

    ``$XDG_CACHE_HOME/fastgan`` where that is set, else the system's custom: ``~/.cache/fastgan`` on Linux,
    ``~/Library/Caches/fastgan`` on macOS, ``%LOCALAPPDATA%\fastgan\Cache`` on Windows.

    Raises
    ------
    DataError
        If the user has no home folder.
    """
    # The XDG specification: a relative path is invalid and is to be ignored.
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):
        return Path(xdg) / "fastgan"
    local = os.environ.get("LOCALAPPDATA", "")
    if sys.platform == "win32" and local:
        return Path(local) / "fastgan" / "Cache"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise DataError(
            f"there is no home folder to keep data sets in ({error}); set {VARIABLE} to the folder that holds them"
        ) from error
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "fastgan"
    return home / ".cache" / "fastgan"


def search_places(data_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Yield the folders to look in, first come first served.

    Parameters
    ----------
    data_dir : path or None
        The user's explicit choice, which leaves no other; else ``$FASTGAN_DATA`` if it is set, then the cache folder.

    Raises
    ------
    DataError
        If ``data_dir`` is a file, or ``$FASTGAN_DATA`` is set to something that is not a folder (to pass over it would
        hide a mistyped path), or the user has no home folder.
    """
    if data_dir is not None:
        if Path(data_dir).is_file():
            raise DataError(f"{data_dir} is a file where a folder is asked for; give the folder that it is in")
        yield Path(data_dir)
        return
    if from_environment := os.environ.get(VARIABLE):
        place = Path(from_environment)
        if not place.is_dir():
            raise DataError(f"{VARIABLE} names {place}, which is not a folder; correct it, or unset it")
        yield place
    # Asked for last: who has no home folder can still use the places before it.
    yield cache_folder()
