"""``fastgan table1``."""

from __future__ import annotations

import json

import click

from fastgan.cli.common import BACKENDS, StatusLine, data_dir_option, runs_option


@click.command("table1")
@click.argument("run", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--checkpoint",
    type=click.Choice(["latest", "best"]),
    default="latest",
    show_default=True,
    help="Which checkpoint of each run: the latest, or the best by validation score.",
)
@runs_option
@data_dir_option
@click.option("--no-baselines", is_flag=True, help="Leave out real images and k-means centroids, which take longer.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: every sigma and fold too.")
@click.option("--backend", type=BACKENDS, default="auto", show_default=True, help="What computes.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def command(
    run: tuple[str, ...],
    checkpoint: str,
    runs_dir: str,
    data_dir: str | None,
    no_baselines: bool,
    markdown: bool,
    as_json: bool,
    backend: str,
    quiet: bool,
) -> None:
    """Make the paper's Table 1: its rows, a row for each RUN, and baselines that no model drew.

    A run on MNIST fills that column; one on TFD is scored on all five folds, each with its own sigma; one on another
    data set gets a column of its own. RUN is a run's folder, name or number.

    \b
      fastgan table1 3
      fastgan table1 runs/00003-mnist-seed0 runs/00005-tfd-seed0 --markdown > table1.md
    """  # noqa: D301
    if markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other; give one of them.")
    from fastgan import table1
    from fastgan.runs import find_run, load_run

    # All are read before the first is scored: a mistyped name should not cost minutes.
    runs = [load_run(find_run(name, runs_dir), checkpoint, backend=backend) for name in run]
    scored = []
    for loaded in runs:
        label = loaded.path.resolve().name
        status = StatusLine(quiet)

        def show(done: int, total: int, label: str = label, status: StatusLine = status) -> None:
            status.show(f"{label}: {done} of {total} images")

        cells = table1.score_run(loaded, data_dir=data_dir, baselines=not no_baselines, backend=backend, progress=show)
        status.clear()
        scored.append((table1.column_of(loaded), label, cells))
    table = table1.make_table(scored)
    if as_json:
        click.echo(json.dumps(table.to_json(), indent=2))
    else:
        click.echo(table.to_markdown() if markdown else table.to_text())
