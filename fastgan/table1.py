"""Table 1 of the paper: Parzen-window log-likelihoods of its models, of one's own runs beside them, and of baselines.

MNIST's score is the mean over the test examples, with their standard error. TFD's is the mean over five folds, sigma
chosen on each fold's own validation set, with the standard error across the folds. Data sets that the paper does not
have get a column of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastgan import datasets, scoring
from fastgan.datasets import NUM_FOLDS
from fastgan.runs import Run

# The paper's own table: model, then mean and standard error in nats by data set.
PAPER: tuple[tuple[str, Mapping[str, tuple[float, float]]], ...] = (
    ("DBN", {"mnist": (138, 2), "tfd": (1909, 66)}),
    ("Stacked CAE", {"mnist": (121, 1.6), "tfd": (2110, 50)}),
    ("Deep GSN", {"mnist": (214, 1.1), "tfd": (1890, 29)}),
    ("Adversarial nets", {"mnist": (225, 2), "tfd": (2057, 26)}),
)
_HEADS = {"mnist": "MNIST", "tfd": "TFD"}
_FOLDED = "tfd"


@dataclass(frozen=True)
class Cell:
    """A score.

    Attributes
    ----------
    log_likelihood, standard_error : float
        Nats.
    sigmas : tuple of float
        The windows' standard deviations: one, or one a fold; none of the paper's are known.
    folds : tuple of float
        Each fold's mean, in nats; empty where there are no folds.
    """

    log_likelihood: float
    standard_error: float
    sigmas: tuple[float, ...] = ()
    folds: tuple[float, ...] = ()

    @classmethod
    def over_folds(cls, scores: Sequence[scoring.ParzenScore | scoring.Baseline]) -> Cell:
        """Put the scores of the folds together."""
        means = tuple(score.log_likelihood for score in scores)
        return cls(*scoring.folds_mean_and_error(means), tuple(score.sigma for score in scores), means)

    @classmethod
    def of(cls, score: scoring.ParzenScore | scoring.Baseline) -> Cell:
        """Take one score over test examples."""
        return cls(score.log_likelihood, score.standard_error, (score.sigma,))


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    name : str
        The model.
    kind : {"paper", "run", "baseline"}
        Whose score it is.
    cells : mapping of str to Cell
        By data set.
    """

    name: str
    kind: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Table:
    """The whole table.

    Attributes
    ----------
    columns : tuple of str
        Names of data sets: the paper's two, then those of the runs that it does not have.
    rows : tuple of Row
        The paper's, the runs', the baselines'.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def head(self) -> list[str]:
        """Name the columns, the first of them the model's."""
        return ["Model", *(_HEADS.get(name, f"{name} (not in the paper)") for name in self.columns)]

    def line(self, row: Row) -> list[str]:
        """Write a row's cells."""
        return [row.name, *(_written(row.cells.get(name), row.kind) for name in self.columns)]

    def to_text(self) -> str:
        """Write the table for a terminal."""
        lines = [self.head(), *(self.line(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        kinds = [None, *(row.kind for row in self.rows)]
        written = []
        for i, line in enumerate(lines):
            if i and kinds[i] != kinds[i - 1]:
                written.append("-" * (sum(widths) + 2 * len(widths) - 2))
            cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
            written.append("  ".join(cells).rstrip())
        return "\n".join([*written, "", *self.notes()])

    def to_markdown(self) -> str:
        """Write the table in Markdown."""
        head = self.head()
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *(self.line(row) for row in self.rows)]
        # A run's folder may be called anything.
        escaped = ([cell.replace("|", "&#124;") for cell in line] for line in lines)
        table = "\n".join(f"| {' | '.join(line)} |" for line in escaped)
        return "\n\n".join([table, *self.notes()])

    def to_json(self) -> dict[str, Any]:
        """Give the table as JSON's own kinds."""
        rows = [
            {"name": row.name, "kind": row.kind, "cells": {name: asdict(cell) for name, cell in row.cells.items()}}
            for row in self.rows
        ]
        return {"columns": list(self.columns), "rows": rows}

    def notes(self) -> list[str]:
        """Say what the numbers are."""
        notes = [
            "Parzen-window log-likelihood of test data under 10,000 samples, nats, ± standard error: over test "
            "examples, and for TFD across five folds, each with its own sigma.",
        ]
        if any(row.kind == "baseline" for row in self.rows):
            notes.append(
                "The last rows are no models: real training images, and k-means centroids of them, scored alike. "
                "A model can beat both and still draw badly (Theis et al., 2015)."
            )
        return notes


def score_run(
    run: Run,
    *,
    data_dir: str | None = None,
    baselines: bool = True,
    backend: str = "auto",
    load: Callable[[int | None], datasets.Dataset] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Cell]:
    """Score a run, and the baselines of its data, as Table 1 does.

    Parameters
    ----------
    run : Run
        Its generator draws 10,000 samples once.
    data_dir : str, optional
        Where its data are looked for.
    baselines : bool
        Whether to score them too.
    backend : str
        As for the kernels.
    load : callable, optional
        Gives the data for a fold (None where there are none), in place of ``run.load_dataset``.
    progress : callable, optional
        As for ``scoring.parzen``.

    Returns
    -------
    dict of str to Cell
        The run's score under its folder's name, first; then the baselines'.
    """
    if load is None:

        def load(fold: int | None) -> datasets.Dataset:
            return run.load_dataset(data_dir, fold=fold)

    samples = run.generator.sample(scoring.NUM_SAMPLES)
    folds: Sequence[int | None] = range(NUM_FOLDS) if run.config.dataset == _FOLDED else (None,)
    scores = [
        scoring.parzen(samples, load(fold), baselines=baselines, backend=backend, any_range=True, progress=progress)
        for fold in folds
    ]
    put_together = Cell.over_folds if len(folds) > 1 else lambda of_folds: Cell.of(of_folds[0])
    cells = {run.path.resolve().name: put_together(scores)}
    for i, baseline in enumerate(scores[0].baselines or ()):
        cells[baseline.name] = put_together([(score.baselines or ())[i] for score in scores])
    return cells


def column_of(run: Run) -> str:
    """Name the column that a run's score belongs in; a file of the user's own is never taken for a known data set."""
    name = run.config.dataset
    return name if name in datasets.names() else f"{run.data['name']}, own file"


def make_table(scored: Sequence[tuple[str, str, Mapping[str, Cell]]]) -> Table:
    """Put what ``score_run`` gave beside the paper's rows.

    Parameters
    ----------
    scored : sequence of (data set, label, cells)
        The label stands in place of the run's name.

    Returns
    -------
    Table
    """
    columns = tuple(dict.fromkeys([*_HEADS, *(name for name, _, _ in scored)]))
    rows = [Row(name, "paper", {of: Cell(*pair) for of, pair in cells.items()}) for name, cells in PAPER]
    baselines: dict[str, dict[str, Cell]] = {}
    for dataset, label, cells in scored:
        (_, own), *others = cells.items()
        rows.append(Row(label, "run", {dataset: own}))
        for name, cell in others:
            baselines.setdefault(name, {}).setdefault(dataset, cell)
    rows += [Row(name, "baseline", cells) for name, cells in baselines.items()]
    return Table(columns, tuple(rows))


def _written(cell: Cell | None, kind: str) -> str:
    if cell is None:
        return "–"
    if kind == "paper":
        return f"{cell.log_likelihood:g} ± {cell.standard_error:g}"
    return f"{cell.log_likelihood:.1f} ± {cell.standard_error:.1f}"
