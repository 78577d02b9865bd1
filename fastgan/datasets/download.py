"""Downloads that are bounded, resumed where they were cut, and believed only after a check of their content."""

from __future__ import annotations

import errno
import http.client
import logging
import os
import re
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from fastgan import __version__
from fastgan.datasets.dataset import DamagedFileError, Progress, TruncatedFileError
from fastgan.errors import ConfigError, DataError
from fastgan.files import sync_folder, try_lock

# For one connection or one read; there is no limit for the whole, as 170 MB over a slow line may take an hour.
TIMEOUT_SECONDS = 30.0

# How often one server is asked for one file; only a file that ended too early is asked for again.
NUM_TRIES = 5

CHUNK_BYTES = 1 << 16

LOG = logging.getLogger(__name__)


class _ServerError(Exception):
    """A server does not have the right file; the next one may."""


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    max_redirections = 5
    max_repeats = 2

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Follow a redirect, without its body: urllib would read that to its end, however long it is."""
        fp.close()
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def checked_mirror(mirror: str) -> str:
    """Return ``mirror`` if it is an http or https address.

    Raises
    ------
    ConfigError
        If it is not.
    """
    try:
        parts = urlsplit(mirror)
    except ValueError as error:
        raise ConfigError(
            f'the mirror "{mirror}" is no address ({error}); give one such as https://host/folder/'
        ) from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f'the mirror "{mirror}" is no http or https address; give one such as https://host/folder/')
    return mirror


def download(
    urls: Sequence[str],
    path: Path,
    *,
    max_bytes: int,
    check: Callable[[Path], object],
    progress: Progress | None = None,
) -> None:
    """Download one file to ``path``, from the first of several servers that has it whole and right.

    The bytes go to ``<path>.part``, are checked there, and take their name by a rename. A part that was left by a cut
    connection, an interrupt or a crash is gone on from; one that turns out damaged is removed, and a warning is logged.

    Parameters
    ----------
    urls : sequence of str
        The file's addresses, tried in this order.
    path : path
        Where the file belongs; its folder is made if it does not exist.
    max_bytes : int
        The most bytes that the file may have; what is longer is refused.
    check : callable
        Called with the path of a downloaded part. Raises `TruncatedFileError` if the part may be the beginning of the
        right file, and another `DamagedFileError` if it cannot be.
    progress : callable, optional
        Called as ``progress(path.name, bytes done, bytes in all or None)``.

    Raises
    ------
    DataError
        If no server gives the right file, the folder cannot be written, or another process downloads the same file.
    """
    part_path = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = os.open(part_path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise DataError(_cannot_write(part_path, error)) from error
    try:
        _lock(part, part_path)
    except DataError:
        os.close(part)
        raise
    failures = []
    try:
        for url in urls:
            try:
                _download_from(url, part, part_path, path.name, max_bytes, check, progress)
                break
            except _ServerError as error:
                failures.append(f"{url}: {error}")
                if url != urls[-1]:
                    LOG.warning("%s; trying the next server", failures[-1])
        else:
            kept = os.fstat(part).st_size
            raise DataError(
                f"{path} could not be downloaded ({'; '.join(failures)}); "
                + (f"{kept:,} bytes are kept in {part_path.name} for the next try; " if kept else "")
                + "check the network and try again, name another server (fastgan data fetch --mirror URL), "
                "or put the file there yourself"
            )
        try:
            os.fsync(part)
        except OSError as error:
            raise DataError(_cannot_write(part_path, error)) from error
    finally:
        is_empty = os.fstat(part).st_size == 0
        # Closed before it is renamed or removed: Windows renames no open file.
        os.close(part)
        if is_empty:
            part_path.unlink(missing_ok=True)
    try:
        os.replace(part_path, path)
        sync_folder(path.parent)
    except OSError as error:
        raise DataError(_cannot_write(path, error)) from error


def _download_from(
    url: str,
    part: int,
    part_path: Path,
    name: str,
    max_bytes: int,
    check: Callable[[Path], object],
    progress: Progress | None,
) -> None:
    """Bring ``part`` to the whole and right file, or raise `_ServerError`."""
    for _ in range(NUM_TRIES):
        start = os.fstat(part).st_size
        ending = _transfer(url, part, part_path, name, max_bytes, progress)
        # However the transfer ended and whatever lengths the server told, the content alone decides.
        try:
            check(part_path)
            return
        except TruncatedFileError:
            if not ending.may_continue:
                os.ftruncate(part, 0)
        except DamagedFileError as error:
            os.ftruncate(part, 0)
            ending = _Ending(f"what came of it, and has been removed, {error.problem}", may_continue=False)
            LOG.warning("%s: %s", url, ending.reason)
            # A part that this try only added to may have been damaged before: the server deserves a try of its own.
            if start == 0:
                raise _ServerError(ending.reason) from error
    raise _ServerError(f"{ending.reason}, {NUM_TRIES} times")


class _Ending:
    """How a transfer ended.

    Parameters
    ----------
    reason : str
        What to tell if the file is not whole.
    may_continue : bool
        Whether the server may have more bytes after those that came.
    """

    def __init__(self, reason: str, *, may_continue: bool) -> None:
        self.reason = reason
        self.may_continue = may_continue


def _transfer(url: str, part: int, part_path: Path, name: str, max_bytes: int, progress: Progress | None) -> _Ending:
    """Append to ``part`` what the server has beyond it, or put the whole file in its place."""
    done = os.fstat(part).st_size
    try:
        request = urllib.request.Request(url, headers={"User-Agent": f"fastgan/{__version__}"})
        if done:
            request.add_header("Range", f"bytes={done}-")
        response = _opener().open(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == 416 and done:
            return _Ending(f"it has no more than {done:,} bytes", may_continue=False)
        if 300 <= error.code < 400:
            raise _ServerError(f"its redirects lead nowhere (HTTP {error.code})") from error
        raise _ServerError(f"HTTP {error.code} {http.client.responses.get(error.code, '')}".rstrip()) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _ServerError(f"{getattr(error, 'reason', None) or error or type(error).__name__}") from error

    with response:
        match = re.fullmatch(r"\d{1,18}", response.headers.get("Content-Length", ""))
        total = int(match[0]) if match is not None else None
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != done:
                raise _ServerError(f"it was asked for the bytes from {done:,} on and sent others")
            total = int(match[2]) if match[2] != "*" else None
        else:
            # The server takes no ranges, and sends everything from the beginning.
            done = 0
            os.ftruncate(part, 0)
        if total is not None and total > max_bytes:
            raise _ServerError(f"its file has {total:,} bytes, more than the {max_bytes:,} that the right one can have")
        os.lseek(part, done, os.SEEK_SET)
        while True:
            if progress is not None:
                progress(name, done, total)
            try:
                chunk = response.read(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                return _Ending(
                    f"the connection was cut after {done:,} bytes ({error or type(error).__name__})", may_continue=True
                )
            if not chunk:
                told = f" of {total:,}" if total is not None else ""
                return _Ending(f"it ended after {done:,}{told} bytes", may_continue=True)
            if done + len(chunk) > max_bytes:
                os.ftruncate(part, 0)
                raise _ServerError(f"it sent more than the {max_bytes:,} bytes that the right file can have")
            _write(part, part_path, chunk)
            done += len(chunk)


def _opener() -> urllib.request.OpenerDirector:
    # Made by hand rather than by build_opener, so that no redirect leads to file: or ftp:.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _RedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _write(part: int, part_path: Path, chunk: bytes) -> None:
    view = memoryview(chunk)
    try:
        while view:
            view = view[os.write(part, view) :]
    except OSError as error:
        # On a full disk the part would only be in the way.
        os.ftruncate(part, 0)
        raise DataError(_cannot_write(part_path, error)) from error


def _lock(part: int, part_path: Path) -> None:
    """Keep two processes from writing one part."""
    try:
        # Another process may have renamed the part just before the lock was had.
        is_busy = not (try_lock(part) and os.path.samestat(os.fstat(part), os.stat(part_path)))
    except OSError as error:
        is_busy = error.errno == errno.ENOENT
        # Some network file systems have no locks. Two processes that write there at once cannot give a wrong file a
        # right name, as the content is checked before the rename, and again on every load.
        if not is_busy:
            LOG.info("%s cannot be locked (%s)", part_path, error)
    if is_busy:
        raise DataError(f"{part_path} is being downloaded by another process; wait until it is done, and try again")


def _cannot_write(path: Path, error: OSError) -> str:
    reason = error.strerror or error
    return f"{path} cannot be written ({reason}); make room or give rights there, or choose another folder"
