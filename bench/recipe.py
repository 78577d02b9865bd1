"""The training step as the comparisons need it: its data, its products, what it draws, and what must come out.

The data are random bytes of MNIST's shape: what they show makes no difference to the time.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.blas import Gemm, GemmSequence
from bench.plain_numpy import PlainTraining
from fastgan.config import Config
from fastgan.datasets import Dataset, Split
from fastgan.kernels import dropout, gather, noise
from fastgan.kernels.common import backends
from fastgan.kernels.common.devices import device
from fastgan.kernels.common.philox import Purpose, stream_id
from fastgan.kernels.dropout import Dropout
from fastgan.presets import preset
from fastgan.trainer import Trainer

Array = NDArray[np.float32]


class Tolerance(NamedTuple):
    """How far a first step may be off: the losses, and the change of a layer's weights as a part of its norm."""

    losses: float
    changes: float


# Found: changes that differ by 1e-4 in float32, by 1e-3 where among thousands of rows a piece wins by a rounding, and
# by up to 0.13 in bfloat16, where many pieces do. A mask or a factor that is forgotten makes 0.4 and more. In TF32 the
# emulator, which truncates sums, found 0.05 for changes and 3e-5 for losses; no device has been asked yet.
FLOAT32, TF32, BFLOAT16 = Tolerance(1e-5, 1e-2), Tolerance(1e-3, 0.1), Tolerance(5e-3, 0.2)

# The backends whose arrays are the host's, which a clock of the host times.
HOST_BACKENDS = tuple(name for name in backends.LANDED if name not in backends.ON_A_GPU)


def configuration(
    update: str = "alternating", batch_size: int = 100, changes: Mapping[str, object] | None = None
) -> Config:
    """Give the ``mnist`` preset with an update, a batch size and other changes by name.

    D's first weights are ten times the recipe's, which makes no difference to the time: so one step moves G's weights
    by far more than their rounding, and a comparison after one step sees what moved them.
    """
    fields: dict[str, object] = {"update": update, "batch_size": batch_size}
    fields |= {f"discriminator.{i}.irange": 0.05 for i in range(3)}
    return preset("mnist").replace(fields | dict(changes or {}))


def random_images(num_rows: int = 10_000, image_shape: tuple[int, int, int] = (1, 28, 28)) -> Dataset:
    """Make a data set of random bytes whose only split is "train"."""
    pixels = np.random.default_rng(0).integers(0, 256, (num_rows, int(np.prod(image_shape))), dtype=np.uint8)
    return Dataset("random", image_shape, {"train": Split(pixels, 255.0, None)}, "random", {}, num_validation=0)


@functools.cache
def scratch_folder() -> Path:
    """Make a folder for the files of a comparison, one a process; it goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="fastgan-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def gemms(config: Config, num_pixels: int = 784) -> list[Gemm]:
    """List the products of one step in their order, without those that no step needs.

    Left out: the gradient with respect to D's input on D's own step and, in the simultaneous step, of its real rows.
    """
    B, k = config.batch_size, config.d_steps
    G = _shapes(config.noise_dim, [layer.num_units or num_pixels for layer in config.generator], [1, 1, 1])
    pieces = [getattr(layer, "num_pieces", 1) for layer in config.discriminator]
    D = _shapes(num_pixels, [layer.num_units or 1 for layer in config.discriminator], pieces)

    def forward(layers: list[tuple[int, int]], rows: int) -> list[Gemm]:
        return [Gemm(rows, columns, inputs) for inputs, columns in layers]

    def backward(layers: list[tuple[int, int]], rows: int, *, weights: bool, input_rows: int) -> list[Gemm]:
        products = []
        for i in reversed(range(len(layers))):
            inputs, columns = layers[i]
            to_input = rows if i else input_rows
            if to_input:
                products.append(Gemm(to_input, inputs, columns, trans_b=True))
            if weights:
                products.append(Gemm(inputs, columns, rows, trans_a=True))
        return products

    if config.update == "simultaneous":
        return [
            *forward(G, B),
            *forward(D, 2 * B),
            *backward(D, 2 * B, weights=True, input_rows=B),
            *backward(G, B, weights=True, input_rows=0),
        ]
    d_step = [*forward(D, 2 * B), *backward(D, 2 * B, weights=True, input_rows=0)]
    return [
        *forward(G, (k + 1) * B),
        *(d_step * k),
        *forward(D, B),
        *backward(D, B, weights=False, input_rows=B),
        *backward(G, B, weights=True, input_rows=0),
    ]


def _shapes(num_inputs: int, units: list[int], pieces: list[int]) -> list[tuple[int, int]]:
    inputs = [num_inputs, *units[:-1]]
    return [(i, u * p) for i, u, p in zip(inputs, units, pieces, strict=True)]


def flop_of(products: Sequence[Gemm]) -> int:
    """Count the floating-point operations of products."""
    return sum(2 * gemm.m * gemm.n * gemm.k for gemm in products)


class BareProducts:
    """The bound of some work: its products from the faster of the two libraries that it could be made of.

    Its arrays are made, and the libraries compared, at the first use: a list of cases is made in no time.
    """

    def __init__(self, products: Sequence[Gemm]) -> None:
        self._products = products

    @functools.cached_property
    def _sequence(self) -> GemmSequence:
        return min((GemmSequence(self._products, library) for library in ("numpy", "scipy")), key=_time)

    def run(self) -> None:
        """Compute every product once."""
        self._sequence.run()

    def verify(self) -> None:
        """Compare every product with float64."""
        self._sequence.verify()


class FastganSteps:
    """A trainer that is made at its first use."""

    def __init__(self, config: Config, data: Dataset, backend: str, precision: str = "float32") -> None:
        self._make = functools.partial(Trainer, config, data, device(backend, precision=precision), 1_000_000)

    @functools.cached_property
    def trainer(self) -> Trainer:
        """The trainer."""
        return self._make()

    def step(self) -> None:
        """Make a step as a run makes it."""
        self.trainer.device.repeat(self.trainer.step, 1, lambda: False)

    def epoch(self) -> None:
        """Make the steps of an epoch."""
        self.trainer.device.repeat(self.trainer.step, self.trainer.steps_per_epoch, lambda: False)


def _time(sequence: GemmSequence) -> float:
    sequence.run()
    started = time.perf_counter()
    for _ in range(3):
        sequence.run()
    return time.perf_counter() - started


class Draws(NamedTuple):
    """What a step draws: real rows, a noise and D's masks for each of its sub-steps, as factors 0 or 1 / keep."""

    real: Array
    noises: list[Array]
    masks: list[list[Array]]


def first_draws(config: Config, data: Dataset) -> Draws:
    """Give what fastgan's first step draws; the simultaneous update has one sub-step, the alternating one two."""
    B, seed = config.batch_size, config.seed
    num_pixels = data.num_pixels
    rows = gather.order(len(data.splits["train"]), seed=seed, epoch=1, start=0, count=B, backend="reference")
    inputs = [num_pixels, *(layer.num_units for layer in config.discriminator[:-1])]
    noises, masks = [], []
    for j in range(1 if config.update == "simultaneous" else 2):
        z = np.empty((B, config.noise_dim), np.float32)
        noise.uniform(
            z, low=-(3**0.5), high=3**0.5,
            seed=seed, stream=stream_id(Purpose.NOISE, substep=j), backend="reference",
        )  # fmt: skip
        noises.append(z)
        # D's joined batch has real rows first; G's own step has the generated ones alone, numbered as in a joined one.
        num_rows, first_row = (2 * B, 0) if j == 0 else (B, B)
        of_substep = []
        for i, (layer, num_inputs) in enumerate(zip(config.discriminator, inputs, strict=True)):
            assert num_inputs is not None
            stream = stream_id(Purpose.DROPOUT, layer=i, substep=j)
            settings = Dropout(layer.dropout_keep, seed, stream, 0, first_row)
            of_substep.append(
                dropout.mask(num_rows, num_inputs, settings, backend="reference") * np.float32(settings.scale)
            )
        masks.append(of_substep)
    return Draws(data.splits["train"].as_float32(rows), noises, masks)


class Training(Protocol):
    """The recipe in another library: what the comparison asks of a peer."""

    def step_with(self, draws: Draws) -> tuple[float, float]:
        """Make one step with what is handed in; give D's loss and G's."""

    def step(self) -> object:
        """Make one step with rows, noise and masks of the library's own generator, and return when it is done."""

    def weights(self) -> list[Array]:
        """Give copies of G's and then D's weights, as fastgan lays them out: a unit's pieces side by side."""


class Outcome(NamedTuple):
    """What a first step leads to: both losses, and the change of every layer's weights, G's first."""

    losses: tuple[float, float]
    changes: list[Array]


def outcome_of_fastgan(config: Config, data: Dataset, backend: str, precision: str = "float32") -> Outcome:
    """Make a backend's first step."""
    trainer = Trainer(config, data, device(backend, precision=precision), 2)
    before = weights_of(trainer)
    trainer.step()
    changes = [after - start for after, start in zip(weights_of(trainer), before, strict=True)]
    sums = trainer.device.download(trainer.sums)
    return Outcome((float(sums[0]), float(sums[1])), changes)


def outcome_of_peer(config: Config, data: Dataset, peer: Training) -> Outcome:
    """Make a peer's first step with what fastgan's would draw."""
    before = peer.weights()
    losses = peer.step_with(first_draws(config, data))
    changes = [after - start for after, start in zip(peer.weights(), before, strict=True)]
    return Outcome(losses, changes)


def weights_of(trainer: Trainer) -> list[Array]:
    """Give copies of G's and then D's weights."""
    networks = (trainer.generator, trainer.discriminator)
    return [trainer.device.download(layer.W) for network in networks for layer in network.layers]


def check_same(found: Outcome, expected: Outcome, tolerance: Tolerance) -> None:
    """Raise ``AssertionError`` unless losses and changes of weights agree; a loss sees the forward passes alone."""
    np.testing.assert_allclose(found.losses, expected.losses, rtol=tolerance.losses, err_msg="losses of D and G")
    for i, (own, wanted) in enumerate(zip(found.changes, expected.changes, strict=True)):
        error = float(np.linalg.norm(own - wanted) / np.linalg.norm(wanted))
        # Written so that a NaN does not pass.
        assert error <= tolerance.changes, f"the change of weights {i} (G's first) is off by {error:.2g} of its norm"


def check_fastgan(
    config: Config, data: Dataset, backend: str, precision: str = "float32", tolerance: Tolerance = FLOAT32
) -> Callable[[], None]:
    """Make the verification of a backend: the reference against the plain step, any other against the reference."""

    def verify() -> None:
        found = outcome_of_fastgan(config, data, backend, precision)
        if backend == "reference":
            plain = PlainTraining(config, Trainer(config, data, device("reference"), 2))
            expected = outcome_of_peer(config, data, plain)
        else:
            expected = outcome_of_fastgan(config, data, "reference")
        check_same(found, expected, tolerance)

    return verify


def pieces_outside(columns: Array, num_pieces: int) -> Array:
    """Move the pieces of W (I, U·P) or b (U·P,) outwards, to (I, P·U): a maximum over them is then of whole rows."""
    split = columns.reshape(*columns.shape[:-1], -1, num_pieces)
    return np.ascontiguousarray(split.swapaxes(-1, -2)).reshape(columns.shape)


def pieces_inside(columns: Array, num_pieces: int) -> Array:
    """Undo ``pieces_outside``."""
    return pieces_outside(columns, columns.shape[-1] // num_pieces)
