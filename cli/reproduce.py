"""``fastgan reproduce``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fastgan.cli.common import BACKENDS, SEED, StatusLine, StopSignals, echo_path, report_line, tell


@click.command("reproduce")
@click.option("--out", required=True, metavar="DIR", help="The reproduction's folder: new, or one to go on with.")
@click.option(
    "--quick/--full", default=True, help="Minutes on two cores, or the recipes as they are.  [default: quick]"
)
@click.option(
    "--only",
    metavar="PART,...",
    help="Make these: game, digits, mnist, tfd, cifar10, cifar10-conv.  [default: game, digits and mnist; with --full "
    "all but digits]",
)
@click.option(
    "--data-dir",
    metavar="DIR",
    help="Where data sets are: a folder of folders named after them.  [default: $FASTGAN_DATA, then the cache folder]",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Key of all randomness.")
@click.option("--backend", type=BACKENDS, default="auto", show_default=True, help="What computes.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="CPU threads; 1 is best on a busy machine.  [default: the cores that the process may use]",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def command(
    out: str,
    quick: bool,
    only: str | None,
    data_dir: str | None,
    seed: int,
    backend: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Train, score and draw all that the paper shows, and write one page about it: report.html, and report.md.

    --quick plays figure 1's game, trains on the digits that come with fastgan and, where MNIST is at hand, for ten
    epochs on MNIST. --full is the whole paper: days on a CPU, with TFD only where you have the file, which its owners
    give out. What cannot be made is a line in the report that says why.

    Ctrl-C finishes the step and saves; the same command goes on from there.

    \b
      fastgan reproduce --out paper
      fastgan reproduce --out paper --only cifar10 --data-dir ~/data
    """  # noqa: D301
    from fastgan.errors import RunError
    from fastgan.reproduction import DEFAULTS, Reproduction, Stopped, check_names
    from fastgan.training import Callback

    mode: Any = "quick" if quick else "full"
    names = DEFAULTS[mode] if only is None else tuple(name.strip() for name in only.split(",") if name.strip())
    if not names:
        raise click.BadParameter("names no part", param_hint="'--only'")
    # Before there is a folder.
    check_names(names)
    status, signals = StatusLine(quiet), StopSignals()

    class Display(Callback):
        def on_begin(self, path: Path, trainer: Any, last_step: int) -> None:
            self.last_step = last_step

        def on_progress(self, step: int) -> None:
            status.show(f"step {step} of {self.last_step}")

        def on_report(self, line: Mapping[str, Any]) -> None:
            say(report_line(line))

    def say(line: str) -> None:
        status.clear()
        if not quiet:
            tell(line)

    try:
        reproduction = Reproduction(
            Path(out),
            mode,
            data_dir=data_dir,
            seed=seed,
            backend=backend,
            threads=threads,
            callbacks=[Display()],
            say=say,
            stop=signals.event,
        )
        with signals:
            made = reproduction.run(names)
    except Stopped:
        status.clear()
        tell("Stopped and saved; the same command goes on.")
        raise click.exceptions.Exit(128 + signals.received[0]) from None
    finally:
        status.clear()
    echo_path(reproduction.out / "report.html")
    if not made:
        raise RunError("None of the parts could be made; the report says why of each")
