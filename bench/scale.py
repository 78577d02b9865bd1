"""How the cost of a step grows: with the batch, the width of the networks, the pieces of maxout, the rows of data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import recipe
from bench.harness import Case, comparison, settled
from bench.training_step import fastgan_cases
from fastgan.datasets import Dataset
from fastgan.datasets.user_file import load_user_file
from fastgan.kernels.common import backends
from fastgan.kernels.common.devices import device
from fastgan.trainer import Trainer

_BATCHES, _MORE_BATCHES = (16, 64, 256), (1024, 4096)
_WIDTHS, _MORE_WIDTHS = (60, 120, 240), (480, 960)
_PIECES, _MORE_PIECES = (1, 2, 4, 8), (3, 5, 6, 7)
_ROWS, _MORE_ROWS = (1_000, 10_000), (100_000, 1_000_000)


@comparison("scale-batch", "Growth with the batch: an alternating step of the MNIST networks, B rows of each kind.")
def scale_batch(full: bool) -> Iterator[Case]:
    """Yield the bare products and each backend for every batch size."""
    data = recipe.random_images()
    for B in sorted(_BATCHES + (_MORE_BATCHES if full else ())):
        yield from fastgan_cases(recipe.configuration(batch_size=B), data, {"B": B})


@comparison("scale-width", "Growth with the width: U maxout units a layer of D, 5·U units a layer of G, batch 100.")
def scale_width(full: bool) -> Iterator[Case]:
    """Yield the bare products and each backend for every width; 240 is the MNIST recipe's."""
    data = recipe.random_images(1000)
    for U in sorted(_WIDTHS + (_MORE_WIDTHS if full else ())):
        changes = {f"generator.{i}.num_units": 5 * U for i in range(2)}
        changes |= {f"discriminator.{i}.num_units": U for i in range(2)}
        yield from fastgan_cases(recipe.configuration(changes=changes), data, {"U": U})


@comparison("scale-pieces", "Growth with the pieces: P pieces of each of D's 240 units a layer, batch 100.")
def scale_pieces(full: bool) -> Iterator[Case]:
    """Yield the bare products and each backend for every number of pieces; 5 is the MNIST recipe's."""
    data = recipe.random_images(1000)
    for P in sorted(_PIECES + (_MORE_PIECES if full else ())):
        changes = {f"discriminator.{i}.num_pieces": P for i in range(2)}
        yield from fastgan_cases(recipe.configuration(changes=changes), data, {"P": P})


@comparison("scale-rows", "Growth with the data: N images of 64 pixels, the MNIST networks' hidden layers, batch 100.")
def scale_rows(full: bool) -> Iterator[Case]:
    """Yield, for every number of rows, the loading of a file, what comes between it and the first step, and a step."""
    for N in sorted(_ROWS + (_MORE_ROWS if full else ())):
        same: dict[str, Any] = {"params": {"N": N}}
        load = partial(_load, N)
        yield Case("load the file", run=load, verify=partial(_verify_load, N), bytes=64 * N, **same)
        for backend in recipe.HOST_BACKENDS:
            if (reason := backends.why_not(backend)) is not None:
                yield Case(f"fastgan {backend}, start-up", missing=reason, **same)
                continue
            yield Case(
                f"fastgan {backend}, start-up",
                run=partial(_start_up, N, backend),
                verify=partial(_verify_start_up, N, backend),
                **same,
            )
            own = recipe.FastganSteps(recipe.configuration(), _dataset(N), backend)
            check = recipe.check_fastgan(recipe.configuration(), _dataset(N), backend)
            yield Case(f"fastgan {backend}, step", run=own.step, verify=check, setup=settled(own.step), **same)


@cache
def _dataset(num_rows: int) -> Dataset:
    return recipe.random_images(num_rows, (1, 8, 8))


def _start_up(num_rows: int, backend: str) -> Trainer:
    """Make a trainer of data that are loaded, and its first step."""
    trainer = Trainer(recipe.configuration(), _dataset(num_rows), device(backend), 1_000_000)
    trainer.step()
    return trainer


def _verify_start_up(num_rows: int, backend: str) -> None:
    trainer = _start_up(num_rows, backend)
    assert trainer.steps_per_epoch == num_rows // 100
    assert int(trainer.state.update[0]) == 1
    assert not trainer.state.non_finite[0], "a loss is not finite"


@cache
def _file(num_rows: int) -> Path:
    path = recipe.scratch_folder() / f"{num_rows}.npy"
    np.save(path, _dataset(num_rows).splits["train"].pixels)
    return path


def _load(num_rows: int) -> Dataset:
    return load_user_file(_file(num_rows))


def _verify_load(num_rows: int) -> None:
    pixels = np.concatenate([split.pixels for split in _load(num_rows).splits.values()])
    np.testing.assert_array_equal(pixels, _dataset(num_rows).splits["train"].pixels)
