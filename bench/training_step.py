"""One training step of the paper's MNIST networks, batch 100: each backend against the bare products in it.

The data are random bytes of MNIST's shape: what they show makes no difference to the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bench.blas import Gemm, GemmSequence
from bench.harness import Case, comparison
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

_NUM_ROWS = 10_000


@comparison("training-step", "One training step, MNIST networks, batch 100.")
def training_step(full: bool) -> Iterator[Case]:
    """Yield the bare products and each backend, for both updates, and a plain NumPy step for the alternating one."""
    data = _data()
    for update in ("alternating", "simultaneous"):
        config = preset("mnist").replace({"update": update})
        products = gemms(config)
        params = {"update": update, "B": config.batch_size}
        # The faster library of the two is the bound: it is what a step could be made of.
        sequence = min((GemmSequence(products, library) for library in ("numpy", "scipy")), key=_time_once)
        yield Case("bare sgemm", params=params, run=sequence.run, verify=sequence.verify, flop=sequence.flop)
        for backend in backends.LANDED:
            trainer = Trainer(config, data, device(backend), 1_000_000)
            yield Case(
                f"fastgan {backend}",
                params=params,
                run=trainer.step,
                verify=_check(config, data, backend),
                flop=sequence.flop,
                bound="bare sgemm",
            )
        if update == "alternating":
            plain = PlainTraining(config, Trainer(config, data, device("reference"), 1))
            yield Case(
                "plain NumPy",
                params=params,
                run=_plain_step(plain, data),
                verify=_check(config, data, "reference"),
                flop=sequence.flop,
                bound="bare sgemm",
            )


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


def _data() -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (_NUM_ROWS, 784), dtype=np.uint8)
    return Dataset("random", (1, 28, 28), {"train": Split(pixels, 255.0, None)}, "random", {}, num_validation=0)


def _time_once(sequence: GemmSequence) -> float:
    import time

    sequence.run()
    started = time.perf_counter()
    for _ in range(3):
        sequence.run()
    return time.perf_counter() - started


def _plain_step(plain: PlainTraining, data: Dataset) -> Callable[[], object]:
    B = plain.config.batch_size
    split = data.splits["train"]

    def run() -> object:
        real = split.as_float32(plain.random.integers(0, len(split), B))
        noises = (plain.draw_noise(), plain.draw_noise())
        return plain.step(real, noises, (plain.draw_masks(2 * B), plain.draw_masks(B)))

    return run


def _check(config: Config, data: Dataset, backend: str) -> Callable[[], None]:
    """Check that a backend's step and the plain one have the same losses from the same weights, noise and masks."""

    def verify() -> None:
        B = config.batch_size
        alternating = config.replace({"update": "alternating"})
        trainer = Trainer(alternating, data, device(backend), 2)
        plain = PlainTraining(alternating, Trainer(alternating, data, device("reference"), 2))
        rows = gather.order(_NUM_ROWS, seed=config.seed, epoch=1, start=0, count=B)
        noises = [
            noise.uniform(
                np.empty((B, config.noise_dim), np.float32), low=-(3**0.5), high=3**0.5,
                seed=config.seed, stream=stream_id(Purpose.NOISE, substep=j),
            )
            for j in range(2)
        ]  # fmt: skip
        masks = [
            [
                _factors(2 * B - j * B, len(W), Dropout(layer.dropout_keep, config.seed, _stream(i, j), 0, j * B))
                for i, ((W, _), layer) in enumerate(zip(plain.D, config.discriminator, strict=True))
            ]
            for j in range(2)
        ]
        expected = plain.step(data.splits["train"].as_float32(rows), (noises[0], noises[1]), (masks[0], masks[1]))
        trainer.step()
        np.testing.assert_allclose(trainer.sums[:2], expected, rtol=1e-5)
        # The weights after it too: a loss sees the forward passes alone.
        np.testing.assert_allclose(trainer.discriminator.layers[0].W, plain.D[0][0], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(trainer.generator.layers[0].W, plain.G[0][0], rtol=1e-3, atol=1e-6)

    return verify


def _stream(layer: int, substep: int) -> int:
    return stream_id(Purpose.DROPOUT, layer=layer, substep=substep)


def _factors(num_rows: int, num_columns: int, settings: Dropout) -> np.ndarray:
    factors: np.ndarray = dropout.mask(num_rows, num_columns, settings) * np.float32(settings.scale)
    return factors
