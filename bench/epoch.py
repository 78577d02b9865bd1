"""Whole epochs: images a second through the trainer alone, without reports, samples and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bench import recipe
from bench.harness import Case, comparison, settled
from fastgan.kernels.common import backends

# A tenth of MNIST: long enough for what happens once an epoch to show, short enough for many repeats.
_NUM_ROWS, _NUM_ROWS_QUICKLY = 6_000, 500


@comparison("epoch", "A whole epoch of MNIST-shaped data: images a second.")
def epoch(full: bool) -> Iterator[Case]:
    """Yield the bare products of an epoch, and each backend, for both updates."""
    data = recipe.random_images(_NUM_ROWS if full else _NUM_ROWS_QUICKLY)
    for update in ("alternating", "simultaneous"):
        config = recipe.configuration(update)
        num_rows, steps = len(data.splits["train"]), len(data.splits["train"]) // config.batch_size
        products = recipe.gemms(config)
        bare = recipe.BareProducts(products)
        same: dict[str, Any] = {
            "params": {"update": update, "rows": num_rows},
            "flop": recipe.flop_of(products) * steps,
            "measure": "images/s",
        }
        run = partial(_images_per_second, partial(_repeat, bare.run, steps), num_rows)
        yield Case("bare sgemm", run=run, verify=bare.verify, setup=settled(bare.run), **same)
        for backend in recipe.HOST_BACKENDS:
            name = f"fastgan {backend}"
            if (reason := backends.why_not(backend)) is not None:
                yield Case(name, missing=reason, **same)
                continue
            own = recipe.FastganSteps(config, data, backend)
            yield Case(
                name,
                run=partial(_images_per_second, own.epoch, num_rows),
                verify=partial(_verify, own),
                setup=settled(own.step),
                bound="bare sgemm",
                **same,
            )


def _images_per_second(run: Callable[[], object], num_images: int) -> float:
    started = time.perf_counter()
    run()
    return num_images / (time.perf_counter() - started)


def _repeat(run: Callable[[], object], times: int) -> None:
    for _ in range(times):
        run()


def _verify(own: recipe.FastganSteps) -> None:
    """Check that an epoch is one, and that nothing became NaN: updates would stand still from there, and cost less."""
    own.epoch()
    state = own.trainer.state
    assert (int(state.update[0]), int(state.epoch[0]), int(state.start[0])) == (own.trainer.steps_per_epoch, 2, 0)
    assert not state.non_finite[0], "a loss is not finite"
