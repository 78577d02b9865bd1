"""``python -m bench``: list the comparisons, run them, or make the documentation's tables and plots of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from bench import gpu_check, harness, plots
from bench.gpu import machine
from fastgan.errors import FastganError
from fastgan.files import write_atomically


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("names", nargs=-1, metavar="[NAME... | all | tables | plots]")
@click.option("--quick", "budget", flag_value="quick", default="quick", help="Few cases, few repeats (the default).")
@click.option("--full", "budget", flag_value="full", help="All cases, many repeats.")
@click.option("--min-repeats", type=click.IntRange(min=1), help="At least so many repeats of every case.")
@click.option("--seconds", type=click.FloatRange(min=0), help="At least so many seconds for each comparison.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=harness.RESULTS,
    help="The folder of the results, with a folder in it for each device.  [default: bench/results]",
)
@click.option(
    "--document",
    type=click.Path(dir_okay=False, path_type=Path),
    default=harness.DOCUMENT,
    help="With `tables`: the page whose tables are made anew.  [default: docs/results.md]",
)
@click.option(
    "--plots",
    "plots_folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=plots.PLOTS,
    help="With `plots`: the folder of the PNG files.  [default: docs/plots]",
)
@click.option("--check", is_flag=True, help="With `tables`: change nothing, and fail where a table is not up to date.")
def main(
    names: tuple[str, ...],
    budget: str,
    min_repeats: int | None,
    seconds: float | None,
    out: Path,
    document: Path,
    plots_folder: Path,
    check: bool,
) -> None:
    """Run comparisons: each is verified, then timed, then written to a CSV file under bench/results.

    \b
      python -m bench                   list the comparisons
      python -m bench startup           run one, or several, or all
      python -m bench all --full        with all cases and many repeats
      python -m bench tables            make the tables of docs/results.md from the CSV files
      python -m bench plots             draw the scale comparisons from the CSV files to docs/plots
    """  # noqa: D301
    try:
        if names == ("tables",):
            make_tables(document, out, check)
            return
        if names == ("plots",):
            for path in plots.draw_all(out, plots_folder):
                click.echo(path)
            return
        registry = harness.load_comparisons()
        if not names:
            for name, comparison in sorted(registry.items()):
                click.echo(f"{name:16} {comparison.title}")
            _list_parts()
            return
        chosen = {"quick": harness.QUICK, "full": harness.FULL}[budget]
        if min_repeats is not None:
            chosen = dataclasses.replace(chosen, min_repeats=min_repeats)
        if seconds is not None:
            chosen = dataclasses.replace(chosen, seconds=seconds)
        # All names are looked up before the first runs: a slip in the last should not cost the time of the others.
        wanted = sorted(registry) if names == ("all",) else names
        for name in wanted:
            if name in gpu_check.all_parts() and name not in registry:
                raise harness.BenchError(f"{name} needs a GPU, and a command of its own: {_on_a_gpu(name)}.")
        for comparison in [registry.find(name) for name in wanted]:
            path = harness.run_comparison(comparison, chosen, out, say=lambda line: click.echo(line, err=True))
            click.echo(f"{harness.table_of(path)}\n{path}\n")
    except FastganError as error:
        raise click.ClickException(str(error)) from error


def _list_parts() -> None:
    """List what needs a GPU, and say why it does not run here where that is so."""
    reason = machine.why_not()
    click.echo(f"\nOn a GPU, by {_on_a_gpu('NAME')}" + (f" (not here: {reason})" if reason else "") + ":")
    for part in gpu_check.all_parts().values():
        click.echo(f"{part.name:16} {part.title[0].upper()}{part.title[1:]}.")


def _on_a_gpu(name: str) -> str:
    return f"`python -m bench.gpu_check --parts {name}`"


def make_tables(document: Path, results: Path, check: bool) -> None:
    """Make the tables of ``document`` anew, or only say whether that would change it."""
    try:
        before = document.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise harness.BenchError(
            f"There is no {document}: make it, with the markers <!-- bench:NAME --> and <!-- /bench:NAME --> where a "
            "comparison's tables belong."
        ) from error
    after = harness.fill_tables(before, results)
    shown = set(harness.OPENING.findall(after))
    for name in sorted({path.stem for path in results.glob("*/*.csv")} - shown):
        click.echo(f"{document} has no marker <!-- bench:{name} -->, so the results of {name} are not shown.", err=True)
    if after == before:
        click.echo(f"The tables of {document} are up to date.")
    elif check:
        raise harness.BenchError(f"The tables of {document} are out of date: `python -m bench tables` makes them anew.")
    else:
        write_atomically(document, after.encode())
        click.echo(f"Made the tables of {document} anew.")


if __name__ == "__main__":
    main(prog_name="python -m bench")
