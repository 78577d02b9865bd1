"""What the parts share: the folder, the time that is left, and tables that are on the disk row by row.

A part is a module with ``run(context)``, started as a process of its own; its last line on stdout is its summary, its
exit status says how it went.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.harness import COLUMNS, FULL

PASSED, FAILED, NOT_HERE = 0, 1, 3


@dataclass(frozen=True)
class Context:
    """What a part is given.

    Attributes
    ----------
    out : path
        The folder of this machine's results.
    seconds : float
        How long the part may take.
    common : mapping
        What every row names: hardware, versions, commit, date.
    data_dir : str, optional
        Where MNIST lies.
    """

    out: Path
    seconds: float
    common: Mapping[str, str]
    data_dir: str | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that remain."""
        return self.started + self.seconds - time.monotonic()

    def table(self, name: str, columns: Sequence[str]) -> Table:
        """Begin a table of these columns, in place of an older one."""
        return Table(self.out / "check" / f"{name}.csv", (*columns, *self.common), self.common)

    def comparison(self, name: str, params: Sequence[str], *, go_on: bool = False) -> Table:
        """Begin, or go on with, a table in the harness's format, which ``python -m bench tables`` reads."""
        return Table(self.out / f"{name}.csv", (*COLUMNS[:2], *params, *COLUMNS[2:]), {}, go_on=go_on)

    @property
    def harness_common(self) -> dict[str, str]:
        """What ``bench.harness.result_row`` wants to know."""
        return {key: self.common[key] for key in ("hardware", "commit", "date")} | {"budget": FULL.name}


class Table:
    """A CSV file that is whole after every row.

    Parameters
    ----------
    path : path
        The file; its folder is made.
    columns : sequence of str
        All of them, in order.
    common : mapping
        Columns that are the same in all rows.
    go_on : bool
        Append to what is there.
    """

    def __init__(self, path: Path, columns: Sequence[str], common: Mapping[str, str], *, go_on: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._common = path, common
        is_new = not (go_on and path.exists())
        self._file = path.open("w" if is_new else "a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, columns, restval="", lineterminator="\n")
        if is_new:
            self._writer.writeheader()
            self._file.flush()

    def add(self, row: Mapping[str, object]) -> None:
        """Append a row; it is on the disk when this returns."""
        self._writer.writerow({**row, **self._common})
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def common_columns(machine: Mapping[str, str], commit: str) -> dict[str, str]:
    """Make the columns that every row of every part has."""
    return {
        "hardware": machine["hardware"],
        "versions": machine["versions"],
        "commit": commit,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def arguments_of(context: Context) -> list[str]:
    """Say a context on a command line, as ``main`` reads it."""
    options = ["--out", str(context.out), "--seconds", f"{context.seconds:g}", "--common", json.dumps(context.common)]
    return [*options, *(["--data-dir", context.data_dir] if context.data_dir else [])]


def main(run: Callable[..., int], *names: str) -> None:
    """Run a part from the command line; ``names`` are further options that it takes, as text.

    Raises
    ------
    SystemExit
        With what ``run`` returned.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--common", type=json.loads, required=True)
    parser.add_argument("--data-dir")
    for name in names:
        parser.add_argument(f"--{name}", default="")
    given = vars(parser.parse_args())
    further: dict[str, Any] = {name: given.pop(name.replace("-", "_")) for name in names}
    context = Context(**given)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    raise SystemExit(run(context, **{name.replace("-", "_"): value for name, value in further.items()}))
