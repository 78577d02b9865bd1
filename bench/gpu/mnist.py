"""The MNIST recipe on the GPU for a bounded time: seconds of training to each Parzen score."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastgan
from bench.gpu import part
from bench.gpu.part import FAILED, NOT_HERE, PASSED, Context, Table
from fastgan import datasets
from fastgan.config import Config
from fastgan.datasets import Dataset
from fastgan.errors import DataError, FastganError
from fastgan.scoring import NUM_SAMPLES, sigma_grid, validation_log_likelihoods
from fastgan.trainer import Trainer
from fastgan.training import Callback

_EPOCHS_BETWEEN_SCORES = 20
# Left for the last report, its score and the checkpoint.
_SECONDS_FOR_THE_END = 10.0
_COLUMNS = (
    "epoch", "step", "seconds of training", "images/s", "validation nats", "standard error", "sigma", "D(x)", "D(G(z))",
)  # fmt: skip


class Scores(Callback):
    """Scores reports on validation data and writes a row each; stops the run when its time is over."""

    def __init__(
        self, table: Table, dataset: Dataset, context: Context, stop: threading.Event, scoring_backend: str, every: int
    ) -> None:
        self._table, self._dataset, self._context, self._stop = table, dataset, context, stop
        self._backend, self._every = scoring_backend, every
        self._trainer: Any = None
        self.lines: list[dict[str, Any]] = []

    def on_begin(self, path: Path, trainer: Trainer, last_step: int) -> None:
        """Keep the trainer, whose generator is scored."""
        self._trainer = trainer

    def on_progress(self, step: int) -> None:
        """Stop in time."""
        if self._context.left < _SECONDS_FOR_THE_END:
            self._stop.set()

    def on_report(self, line: Mapping[str, Any]) -> None:
        """Write a row, scored every so many epochs and at the end."""
        row: dict[str, Any] = {
            "epoch": f"{line['epoch']:g}", "step": line["step"], "seconds of training": f"{line['seconds']:.3f}",
            "images/s": f"{line['images_per_second']:.0f}",
            "D(x)": f"{line['D_x']:.3f}", "D(G(z))": f"{line['D_G_z']:.3f}",
        }  # fmt: skip
        if line["epoch"] % self._every == 0 or self._stop.is_set():
            samples = self._trainer.generator.sample(NUM_SAMPLES, self._trainer.config.seed)
            means, errors = validation_log_likelihoods(samples, self._dataset, sigma_grid(), backend=self._backend)
            best = int(means.argmax())
            row |= {
                "validation nats": f"{means[best]:.2f}", "standard error": f"{errors[best]:.2f}",
                "sigma": f"{sigma_grid()[best]:.3f}",
            }  # fmt: skip
            self.lines.append(row)
        self._table.add(row)
        print(", ".join(f"{key} {value}" for key, value in row.items()))


def run(
    context: Context,
    precision: str = "",
    *,
    config: Config | None = None,
    dataset: Dataset | None = None,
    scoring_backend: str = "cpu",
    every: int = _EPOCHS_BETWEEN_SCORES,
) -> int:
    """Train until the time is over, and score on the way: on the host, whose scores are known to be right."""
    try:
        dataset = dataset or datasets.load("mnist", data_dir=context.data_dir, download=False)
    except DataError as error:
        print(f"recipe: MNIST is not at hand ({error})")
        return NOT_HERE
    precision = precision or "float32"
    config = config or fastgan.preset("mnist").replace({"epochs": 1000, "backend": "cupy", "precision": precision})
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder, context.table(f"recipe-{precision}", _COLUMNS) as table:
        scores = Scores(table, dataset, context, stop, scoring_backend, every)
        try:
            trained = fastgan.train(
                config, run_dir=Path(folder) / "run", dataset=dataset, callbacks=[scores], stop=stop
            )
        except FastganError as error:
            print(f"recipe, {precision}: {error}")
            return FAILED
    if not scores.lines:
        print(f"recipe, {precision}: {trained.step} steps, and no score in that time")
        return FAILED
    last = scores.lines[-1]
    print(
        f"recipe, {precision}: {last['validation nats']} nats on validation data at epoch {last['epoch']}, after "
        f"{last['seconds of training']} s of training"
    )
    return PASSED


if __name__ == "__main__":
    part.main(run, "precision")
