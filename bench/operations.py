"""Each operation of the training step alone, at the MNIST networks' shapes and batch 100, on every backend.

What bounds it is the bare product of the same shape where it has one, else a bare copy that moves as many bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from bench import recipe
from bench.blas import Gemm
from bench.harness import Case, comparison, settled
from fastgan import layers
from fastgan.config import LayerConfig, LinearConfig, MaxoutConfig
from fastgan.kernels import dropout as dropout_operation
from fastgan.kernels import gather, noise, sgd
from fastgan.kernels.common import backends
from fastgan.kernels.common.arrays import Array, Workspace
from fastgan.kernels.common.devices import device
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.gan_loss import gan_loss
from fastgan.layers import Update

_BATCH = 100
_RATE, _MOMENTUM = 0.01, 0.5
# Relative to the largest element of an output: single-precision sums of up to 1,200 terms.
_TOLERANCE = 1e-4


class Work(NamedTuple):
    """An operation over arrays of its own: what to call, and the arrays that it writes."""

    run: Callable[[], object]
    outputs: list[Array]


class Operation(NamedTuple):
    """An operation of the step: its name, its shape for people, its bound, and what makes it.

    ``make(backend, dtype)`` gives the same numbers for every backend and dtype. ``products`` is empty where there are
    none; then ``num_bytes`` must be read and written.
    """

    name: str
    shape: str
    make: Callable[[str, type[np.floating]], Work]
    products: tuple[Gemm, ...] = ()
    num_bytes: int = 0


@comparison("operations", "Each operation of the training step alone, against its bare product or a copy of its bytes.")
def operations(full: bool) -> Iterator[Case]:
    """Yield the bound and every backend for each operation; they are the same in a quick and in a full run."""
    for operation in all_operations():
        params = {"operation": operation.name, "shape": operation.shape}
        bound, same = _bound(operation, params)
        yield bound
        for backend in recipe.HOST_BACKENDS:
            name = f"fastgan {backend}"
            if (reason := backends.why_not(backend)) is not None:
                yield Case(name, missing=reason, **same)
                continue
            run = _run_later(operation, backend)
            check = partial(verify, operation, backend)
            yield Case(name, run=run, verify=check, setup=settled(run), bound=bound.name, **same)


def all_operations() -> Iterator[Operation]:
    """Yield the operations in the order of a step; the rows are those of the alternating update."""
    B = _BATCH
    yield Operation(
        "noise.uniform", f"{2 * B} x 100", partial(_noise, kind="uniform"), num_bytes=4 * 2 * B * 100
    )  # fmt: skip
    yield Operation("noise.normal", f"{2 * B} x 100", partial(_noise, kind="normal"), num_bytes=4 * 2 * B * 100)
    for I, O, activation in ((100, 1200, "relu"), (1200, 1200, "relu"), (1200, 784, "sigmoid")):
        config = LinearConfig(num_units=O, activation=activation)
        yield from _layer_operations(config, I, O, {"forward": 2 * B, "backward_input": B, "backward_update": B})
    yield Operation("gather.rows", f"{B} x 784", _gather, num_bytes=B * 784 * (1 + 4))
    yield Operation("dropout.apply", f"{2 * B} x 784", _dropout, num_bytes=2 * B * 784 * (4 + 4))
    maxout = MaxoutConfig(num_units=240, num_pieces=5, irange=0.05)
    rows = {"forward": 2 * B, "backward_input": 2 * B, "backward_update": 2 * B}
    # From D's first layer a gradient goes on for G's rows alone.
    yield from _layer_operations(maxout, 784, 240, rows | {"backward_input": B}, keep=0.8)
    yield from _layer_operations(maxout, 240, 240, rows, keep=0.5)
    yield from _layer_operations(LinearConfig(num_units=1), 240, 1, rows, keep=0.5)
    yield Operation("gan_loss", f"{2 * B}", _gan_loss, num_bytes=2 * B * (4 + 4))
    # W and v are read and written, dW is read.
    yield Operation("sgd.update", "1200 x 1200", _sgd, num_bytes=5 * 4 * 1200 * 1200)


def _layer_operations(
    config: LayerConfig, I: int, O: int, rows: dict[str, int], keep: float | None = None
) -> Iterator[Operation]:
    (_, columns), _ = layers.parameter_shapes(config, (I,), O)
    name = "linear_maxout" if isinstance(config, MaxoutConfig) else "linear"
    width = f"{O}·{config.num_pieces}" if isinstance(config, MaxoutConfig) else f"{O}"
    for part, B in rows.items():
        product = {
            "forward": Gemm(B, columns, I),
            "backward_input": Gemm(B, I, columns, trans_b=True),
            "backward_update": Gemm(I, columns, B, trans_a=True),
        }[part]
        make = partial(_layer, config, I, O, B, keep, part)
        details = "".join(
            [f" {config.activation}" if isinstance(config, LinearConfig) else "", " dropout" * bool(keep)]
        )
        yield Operation(f"{name}.{part}", f"{B} x {I} to {width}{details}", make, (product,))


def _run_later(operation: Operation, backend: str) -> Callable[[], object]:
    """Give what runs an operation whose arrays are made at its first use."""
    make = cache(partial(operation.make, backend, np.float32))
    return lambda: make().run()


def _bound(operation: Operation, params: dict[str, str]) -> tuple[Case, dict[str, Any]]:
    """Return the case that bounds an operation, and what the operation's own cases share with it."""
    if operation.products:
        bare = recipe.BareProducts(operation.products)
        same: dict[str, Any] = {"params": params, "flop": recipe.flop_of(operation.products)}
        run, check, name = bare.run, bare.verify, "bare sgemm"
    else:
        source = np.ones(operation.num_bytes // 8, np.float32)
        target = np.zeros_like(source)
        same = {"params": params, "bytes": operation.num_bytes}
        name, run = "bare copy", partial(np.copyto, target, source)

        def check() -> None:
            run()
            np.testing.assert_array_equal(target, source)

    return Case(name, run=run, verify=check, setup=settled(run), **same), same


def verify(operation: Operation, backend: str) -> None:
    """Compare a first run with the reference's in float64, both from fresh arrays."""
    found, expected = operation.make(backend, np.float32), operation.make("reference", np.float64)
    found.run()
    expected.run()
    for own, wanted in zip(found.outputs, expected.outputs, strict=True):
        np.testing.assert_allclose(own, wanted, rtol=0, atol=_TOLERANCE * max(float(np.abs(wanted).max()), 1e-30))


def _layer(
    config: LayerConfig, I: int, O: int, B: int, keep: float | None, part: str, backend: str, dtype: type[np.floating]
) -> Work:
    """Make one of a layer's three operations, after the forward pass that it depends on."""
    random = np.random.default_rng(0)

    def uniform(*shape: int) -> Array:
        # Rounded to float32 in float64 too: both dtypes start from the same numbers.
        return random.uniform(-1, 1, shape).astype(np.float32).astype(dtype)

    where = device(backend)
    (_, columns), _ = layers.parameter_shapes(config, (I,), O)
    layer = layers.make(config, (I,), uniform(I, columns) * dtype(0.05), uniform(columns), where, Workspace())
    dropout = None
    if keep is not None:
        dropout = Dropout(keep, seed=1, stream=2, step=3, bits=np.empty((B, -(-I // 8)), np.uint8))
    x = where.upload(uniform(B, I))
    saved = layer.saved(x, where.empty((B, O), dtype), dropout, where)
    dy, dx = where.upload(uniform(B, O)), where.empty((B, I), dtype)
    update = Update(_RATE / B, _MOMENTUM)
    layer.forward(saved)
    if part == "forward":
        return Work(partial(layer.forward, saved), [saved.y])
    if part == "backward_input":
        return Work(partial(layer.backward_input, dy, saved, dx), [dx])
    return Work(partial(layer.backward_update, dy, saved, update), [layer.W, layer.b, layer.vW, layer.vb])


def _noise(backend: str, dtype: type[np.floating], *, kind: str) -> Work:
    z = np.empty((2 * _BATCH, 100), dtype)
    settings: dict[str, Any] = {"seed": 1, "stream": 2, "step": 3, "backend": backend}
    if kind == "normal":
        return Work(partial(noise.normal, z, **settings), [z])
    return Work(partial(noise.uniform, z, low=-(3**0.5), high=3**0.5, **settings), [z])


def _gather(backend: str, dtype: type[np.floating]) -> Work:
    split = recipe.random_images(1000).splits["train"]
    out = np.empty((_BATCH, 784), dtype)
    # The place moves on as it does in training: the order of places asked for before could else be kept.
    epoch, start = np.ones(1, np.int64), np.zeros(1, np.int64)

    def run() -> None:
        gather.rows(split.pixels, split.divisor, out, seed=1, epoch=epoch, start=start, backend=backend)
        start[0] += _BATCH
        if start[0] == len(split):
            start[0] = 0
            epoch[0] += 1

    return Work(run, [out])


def _dropout(backend: str, dtype: type[np.floating]) -> Work:
    x = np.random.default_rng(0).random((2 * _BATCH, 784), np.float32).astype(dtype)
    out = np.empty_like(x)
    settings = Dropout(0.8, seed=1, stream=2, step=3, bits=np.empty((2 * _BATCH, 98), np.uint8))
    return Work(partial(dropout_operation.apply, x, settings, out=out, backend=backend), [out])


def _gan_loss(backend: str, dtype: type[np.floating]) -> Work:
    logits = np.random.default_rng(0).standard_normal(2 * _BATCH, np.float32).astype(dtype)
    out, values = np.empty_like(logits), np.zeros(4)

    def run() -> None:
        values[...] = gan_loss(logits, _BATCH, out_discriminator=out, backend=backend)

    return Work(run, [out, values])


def _sgd(backend: str, dtype: type[np.floating]) -> Work:
    random = np.random.default_rng(0)
    W, v, dW = (random.random((1200, 1200), np.float32).astype(dtype) for _ in range(3))
    return Work(partial(sgd.update, W, v, dW, learning_rate=1e-6, momentum=_MOMENTUM, backend=backend), [W, v])
