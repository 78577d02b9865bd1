"""``fastgan data``: list, fetch and verify data sets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from fastgan.errors import DataError

DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The only folder to look in: it holds the files, or a folder named after the data set that does. "
    "Unless given, $FASTGAN_DATA and then the user's cache folder are looked into.",
)


class DownloadProgress:
    """Progress bars on stderr, one a file; where stderr is no terminal, one line a file.

    An object to pass as ``progress=`` to `fastgan.datasets.fetch` and `fastgan.datasets.load`, inside a ``with`` block.
    """

    def __init__(self) -> None:
        self._file = ""
        # click gives its bar no public type.
        self._bar: Any = None

    def __enter__(self) -> DownloadProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close_bar()

    def __call__(self, file: str, num_done: int, num_bytes: int | None) -> None:
        """Show that ``num_done`` of ``num_bytes`` (None where the server does not say) of a file are there."""
        if self._bar is not None and (file != self._file or num_bytes != self._bar.length or num_done < self._bar.pos):
            # Another file, or another try at the same one.
            self._close_bar()
            self._file = ""
        if file != self._file:
            self._file = file
            if num_bytes and sys.stderr.isatty():
                self._bar = click.progressbar(length=num_bytes, label=file, file=sys.stderr)
                self._bar.__enter__()
            else:
                size = f"{num_bytes:,} bytes" if num_bytes is not None else "size unknown"
                click.echo(f"downloading {file}, {size}", err=True)
        if self._bar is not None:
            self._bar.update(num_done - self._bar.pos)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


@click.group("data")
def command() -> None:
    """List, fetch and verify data sets.

    \b
    A registered data set is looked for in this order:
      1. --data-dir DIR, if given (and nowhere else)
      2. $FASTGAN_DATA, if set
      3. the user's cache folder ($XDG_CACHE_HOME/fastgan, else ~/.cache/fastgan on Linux)
    Each may hold the files itself, or a folder named after the data set that does.

    tfd is never downloaded: its owners give TFD_48x48.mat out on request.

    Your own images need no fetching: give the path of a .npy, .npz or .h5 file in place of a name.
    """  # noqa: D301


@command.command("list")
def list_() -> None:
    """Show the known data sets, and where their files are.

    The splits are shown as name:images. A folder is shown if all of the files lie there; whether their content is right
    is for `fastgan data verify NAME` to say.
    """
    from fastgan import datasets

    rows = [("NAME", "IMAGES", "SIZE", "SPLITS", "WHERE")]
    problems: list[str] = []
    for name in datasets.names():
        entry = datasets.entry(name)
        num_channels, height, width = entry.image_shape
        rows.append(
            (
                name,
                f"{sum(entry.split_sizes.values()):,}",
                f"{height}x{width}" + (f"x{num_channels}" if num_channels > 1 else ""),
                " ".join(f"{split}:{num_rows:,}" for split, num_rows in entry.split_sizes.items()),
                _where(name, problems),
            )
        )
    _echo_table(rows)
    # The same fault of a setting is every data set's, and is told once.
    for problem in dict.fromkeys(problems):
        click.echo(f"unusable: {problem}")


@command.command()
@click.argument("name")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to put the files: into DIR itself if it is named after the data set or holds some of its files, else "
    "into a folder of that name in DIR.  [default: the user's cache folder]",
)
@click.option(
    "--mirror",
    metavar="URL",
    help="An http(s) folder that holds the .gz files, to be used in place of the known ones.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def fetch(name: str, data_dir: Path | None, mirror: str | None, quiet: bool) -> None:
    """Download the data set NAME, and print the folder that holds it.

    Files that are there already are checked and kept. A download that was cut goes on where it ended, and a file gets
    its name only after the SHA-256 of its content has been found right.

    \b
      fastgan data fetch mnist
      fastgan data fetch fashion-mnist --data-dir ~/data
    """  # noqa: D301
    from fastgan import datasets

    with DownloadProgress() as progress:
        folder = datasets.fetch(name, data_dir=data_dir, mirror=mirror, progress=None if quiet else progress)
    click.echo(folder)


@command.command()
@click.argument("name")
@DATA_DIR
def verify(name: str, data_dir: Path | None) -> None:
    """Check the SHA-256 of every file of the data set NAME.

    Exits with 1 if a file is missing, damaged, or another data set's.
    """
    from fastgan import datasets

    checks = datasets.verify(name, data_dir=data_dir)
    rows = [("FILE", "STATE", "SHA-256 OF CONTENT", "WHERE")]
    for check in checks:
        state = "ok" if check.ok else "missing" if check.path is None else "wrong"
        rows.append((check.file, state, check.found or "-", str(check.path or "-")))
    _echo_table(rows)
    if problems := [check.problem for check in checks if not check.ok]:
        raise DataError(f"{len(problems)} of {len(checks)} files of {name} failed: {'; '.join(problems)}")


def _where(name: str, problems: list[str]) -> str:
    from fastgan import datasets

    try:
        folder = datasets.find(name)
    except DataError as error:
        # One data set that is half there must not hide the others from the list.
        problems.append(str(error))
        return "unusable, see below"
    if folder is not None:
        return str(folder)
    # TFD is not to be downloaded, and the same command says whom to ask.
    return f"not found; fastgan data fetch {name}" + (" says how to get it" if name == "tfd" else "")


def _echo_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
