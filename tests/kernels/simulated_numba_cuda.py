"""The backend numba-cuda in Numba's simulator: ``test_numba_cuda.py`` runs this file in processes of its own.

    NUMBA_ENABLE_CUDASIM=1 [SIMULATED_TILES=real] python -m pytest tests/kernels/simulated_numba_cuda.py

The simulator has to be asked for before Numba is imported, and makes a Python thread of each thread of a block. So the
tiles are made small (8 x 8, 16 threads) before the operations are imported: shapes of a few dozen then have several
tiles, whole and ragged. With SIMULATED_TILES=real they stay as they are, and one test of each product is enough.
"""

import os

import numpy as np
import pytest

from fastgan import kernels, preset
from fastgan.datasets.dataset import Dataset, Split
from fastgan.errors import BackendError
from fastgan.kernels.common import backends, numba_products, numba_runtime, philox
from fastgan.kernels.common.arrays import home_of
from fastgan.kernels.common.devices import device
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.step import StepState
from fastgan.trainer import Trainer
from tests import test_presets
from tests.kernels import test_linear, test_linear_maxout
from tests.kernels.accuracy import assert_as_exact
from tests.kernels.flags import assert_marks
from tests.kernels.on_device import on

assert numba_runtime.simulated(), "NUMBA_ENABLE_CUDASIM=1 has to be set before Numba is imported"

REAL = os.environ.get("SIMULATED_TILES") == "real"
# Of the simulator's threads one runs at a time, and hands over at each barrier: between cores that is half the time.
if hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0] if REAL else cores[-1]})
if not REAL:
    small = {"TX": 4, "TY": 4, "ROWS": 2, "COLUMNS": 2}
    small |= {"NUM_THREADS": 16, "TILE_M": 8, "TILE_N": 8, "TILE_K": 8, "PITCH_A": 9, "_QUADS": 2}
    for name, value in small.items():
        assert hasattr(numba_products, name)
        setattr(numba_products, name, value)
    numba_products.PITCH_B = numba_products.pitch_b(2)

with_small_tiles = pytest.mark.skipif(REAL, reason="needs many tiles")
DEVICE = device("numba-cuda")
MASK = Dropout(0.5, seed=7, stream=philox.stream_id(philox.Purpose.DROPOUT, 1), step=3, row_offset=5)


def call(function, *args, **kwargs):
    """Call an operation with arrays of the host on the device."""
    return on(function, "numba-cuda")(*args, **kwargs, backend="numba-cuda")


def both(function, *args, **kwargs):
    """Call an operation on the device and by its definition, on copies of the arrays; give results and arrays."""
    found = []
    for run in (call, lambda f, *a, **k: f(*a, **k, backend="reference")):
        own_args = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        own_kwargs = {n: a.copy() if isinstance(a, np.ndarray) else a for n, a in kwargs.items()}
        result = run(function, *own_args, **own_kwargs)
        arrays = [a for a in (*own_args, *own_kwargs.values()) if isinstance(a, np.ndarray)]
        found.append([*(result if isinstance(result, tuple) else (result,)), *arrays])
    return found


def assert_the_same(function, *args, rtol=2e-6, atol=2e-6, **kwargs):
    for found, wanted in zip(*both(function, *args, **kwargs), strict=True):
        if wanted is None:
            assert found is None
            continue
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    return request.param


# B, I, O: one element, whole tiles, one less and one more.
SHAPES = [(1, 1, 1), (7, 9, 7), (8, 16, 8), (9, 7, 17)]
REAL_SHAPE = (33, 35, 66)


@pytest.mark.parametrize("settings", [None, MASK], ids=["plain", "dropout"])
@pytest.mark.parametrize("shape", [REAL_SHAPE] if REAL else SHAPES, ids=str)
def test_linear_is_the_formulas(rng, shape, settings):
    arrays = test_linear.layer(rng, shape)
    x, W, b, dy, scale = arrays
    for activation in ["relu"] if REAL else test_linear.ACTIVATIONS:
        y = call(kernels.linear.forward, x, W, b, activation, dropout=settings)
        dx = call(kernels.linear.backward_input, dy, y, W, activation, dropout=settings, row_scale_B=scale)
        dW, db = call(kernels.linear.backward_weights, x, dy, y, activation, dropout=settings, row_scale_B=scale)
        exact, plain = (test_linear.written_out(*arrays, activation, settings, t) for t in (np.float64, np.float32))
        for name, found in (("y", y), ("dx", dx), ("dW", dW), ("db", db)):
            assert_as_exact(found, exact[name], plain[name], floor=3e-7)


# B, I, U, P: a share of up to 8 pieces at a time, so one share, two, and three.
@pytest.mark.parametrize("settings", [None, MASK], ids=["plain", "dropout"])
@pytest.mark.parametrize(
    "shape", [(33, 35, 17, 5)] if REAL else [(1, 1, 1, 1), (7, 9, 5, 2), (9, 17, 4, 5), (3, 8, 5, 9), (2, 3, 2, 17)],
    ids=str,
)  # fmt: skip
def test_maxout_is_the_formulas(rng, shape, settings):
    arrays, P = test_linear_maxout.layer(rng, shape), shape[3]
    x, W, b, dy, scale = arrays
    y, pieces = call(kernels.linear_maxout.forward, x, W, b, P, dropout=settings)
    dx = call(kernels.linear_maxout.backward_input, dy, pieces, W, P, dropout=settings, row_scale_B=scale)
    dW, db = call(kernels.linear_maxout.backward_weights, x, dy, pieces, P, dropout=settings, row_scale_B=scale)
    exact, z = test_linear_maxout.written_out(*arrays, P, settings, np.float64, pieces)
    plain, _ = test_linear_maxout.written_out(*arrays, P, settings, np.float32, pieces)
    for name, found in (("y", y), ("dx", dx), ("dW", dW), ("db", db)):
        assert_as_exact(found, exact[name], plain[name], floor=3e-7)
    won = np.take_along_axis(z, pieces[:, :, None].astype(int), -1)[:, :, 0]
    assert (z.max(-1) - won <= 1e-5 * np.abs(z).max()).all()


@with_small_tiles
def test_255_pieces(rng):
    x, W, b, dy, _ = test_linear_maxout.layer(rng, (2, 3, 1, 255))
    assert_the_same(kernels.linear_maxout.forward, x, W, b, 255)
    pieces = np.array([[254], [7]], np.uint8)
    assert_the_same(kernels.linear_maxout.backward_input, dy, pieces, W, 255)


RATES = {
    "numbers": (0.3, 0.6, None),
    "on the device": (np.array([0.3], np.float32), np.array([0.6], np.float32), np.zeros(1, np.int64)),
    "skipped": (np.array([0.3], np.float32), np.array([0.6], np.float32), np.ones(1, np.int64)),
}


@with_small_tiles
@pytest.mark.parametrize("max_col_norm", [None, 0.7])
@pytest.mark.parametrize("rates", RATES)
def test_updates_are_the_references(rng, dtype, rates, max_col_norm):
    learning_rate, momentum, skip = RATES[rates]
    update = {"learning_rate": learning_rate, "momentum": momentum, "skip": skip}
    x, W, b, dy, scale = test_linear.layer(rng, (9, 11, 10), dtype)
    vW, vb = rng.normal(size=W.shape).astype(dtype), rng.normal(size=b.shape).astype(dtype)
    more = {"dropout": MASK, "row_scale_B": scale, "max_col_norm": max_col_norm, **update}
    y = kernels.linear.forward(x, W, b, "sigmoid", dropout=MASK, backend="reference")
    # Rates are float64 in a float64 update by number, and float32 where they come from the device.
    assert_the_same(kernels.linear.backward_update, x, dy, y, "sigmoid", W, b, vW, vb, **more)
    pieces = rng.integers(0, 2, (9, 5)).astype(np.uint8)
    assert_the_same(
        kernels.linear_maxout.backward_update, x, np.ascontiguousarray(dy[:, :5]), pieces, 2, W, b, vW, vb, **more
    )
    dW, db = rng.normal(size=W.shape).astype(dtype), rng.normal(size=b.shape).astype(dtype)
    assert_the_same(kernels.sgd.update, W, vW, dW, max_col_norm=max_col_norm, **update)
    assert_the_same(kernels.sgd.update, b, vb, db, **update)


# NumPy's warnings of what the threads of the simulator compute.
@with_small_tiles
@pytest.mark.filterwarnings("ignore:.*invalid value")
def test_any_velocity_that_is_not_finite_raises_the_flag(rng):
    x, W, b, dy, _ = test_linear.layer(rng, (2, 3, 10))
    pieces = rng.integers(0, 2, (2, 5)).astype(np.uint8)
    parameters, rates = [W, b, np.ones_like(W), np.ones_like(b)], {"learning_rate": 0.1, "momentum": 0.5}

    def linear(*arrays, skip):
        call(kernels.linear.backward_update, x, dy, dy, "identity", *arrays, max_col_norm=0.7, skip=skip, **rates)

    def maxout(*arrays, skip):
        of_units = np.ascontiguousarray(dy[:, :5])
        call(kernels.linear_maxout.backward_update, x, of_units, pieces, 2, *arrays, skip=skip, **rates)

    def sgd(W, b, vW, vb, skip):
        call(kernels.sgd.update, W, vW, np.ones_like(W), skip=skip, **rates)
        call(kernels.sgd.update, b, vb, np.ones_like(b), skip=skip, **rates)

    for update in (linear, maxout, sgd):
        assert_marks(update, parameters, "numba-cuda")


@with_small_tiles
def test_columns_longer_than_a_block_are_clipped(rng):
    W = rng.normal(size=(37, 70)).astype(np.float32)
    W[:, 3] = np.nan
    W[:, 69] = 1e-3
    nothing = {"learning_rate": 0.0, "momentum": 0.0}
    assert_the_same(kernels.sgd.update, W, np.zeros_like(W), np.zeros_like(W), max_col_norm=2.0, **nothing)


@with_small_tiles
def test_ties_nan_and_infinity(rng):
    one = np.ones((2, 1), np.float32)
    for b in (
        [5, 5, 5, 0, 0, 0, -1, -1, -1, 1, 2, 2],
        [1, np.nan, 3, np.nan, 7, np.nan, 1, 2, 3, np.nan, np.nan, 1],
        [-np.inf, -np.inf, -np.inf, 0, np.inf, 1, np.inf, np.inf, 0, -np.inf, 3, 3],
    ):
        b = np.array(b, np.float32)
        assert_the_same(kernels.linear_maxout.forward, one, np.zeros((1, 12), np.float32), b, 3, rtol=0)
    # The same over the border of two shares of 5 pieces.
    b = np.zeros(9, np.float32)
    b[[4, 5]] = 1, 1
    assert_the_same(kernels.linear_maxout.forward, one, np.zeros((1, 9), np.float32), b, 9, rtol=0)
    b[[3, 7]] = np.nan, np.nan
    assert_the_same(kernels.linear_maxout.forward, one, np.zeros((1, 9), np.float32), b, 9, rtol=0)
    x, W, b, dy, _ = test_linear.layer(rng, (4, 5, 6))
    x[2, 3], dy[1, 2] = np.nan, np.nan
    for activation in test_linear.ACTIVATIONS:
        assert_the_same(kernels.linear.forward, x, W, b, activation)
        # 0 · NaN: where relu' is 0 too.
        y = np.maximum(rng.normal(size=dy.shape), 0).astype(np.float32)
        y[1, 2] = 0
        assert_the_same(kernels.linear.backward_input, dy, y, W, activation)
    ends = np.array([[-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4]], np.float32)
    with np.errstate(over="ignore"):
        assert_the_same(
            kernels.linear.forward, ends, np.eye(7, dtype=np.float32), np.zeros(7, np.float32), "sigmoid",
            rtol=1e-6, atol=1e-38,
        )  # fmt: skip


@with_small_tiles
@pytest.mark.parametrize("keep", [0.5, 1.0, 2.0**-24, 1 / 3])
def test_masks_are_the_same_bits(rng, dtype, keep):
    for step in (5, 2**32 - 1, np.array([5], np.int64)):
        settings = Dropout(keep, seed=2**63 + 3, stream=MASK.stream, step=step, row_offset=11)
        assert_the_same(kernels.dropout.mask, 5, 14, dropout=settings, rtol=0, atol=0)
    x = rng.normal(size=(5, 14)).astype(dtype)
    x[:, 2] = np.nan
    assert_the_same(kernels.dropout.apply, x, settings, out=np.empty_like(x), rtol=0, atol=0)


@with_small_tiles
def test_noise(dtype):
    out = np.empty((5, 11), dtype)
    more = {"seed": 2**40 + 4, "stream": 3, "row_offset": 2}
    # In float32 to the last bit; in float64 product and sum may be joined.
    tolerance = {"rtol": 0, "atol": 0} if dtype == np.float32 else {}
    for step in (6, np.array([6], np.int64)):
        assert_the_same(kernels.noise.uniform, out, low=0.0, high=1.0, step=step, **more, rtol=0, atol=0)
        assert_the_same(kernels.noise.uniform, out, low=-0.05, high=0.05, step=step, **more, **tolerance)
        assert_the_same(kernels.noise.normal, out, step=step, **more)


@with_small_tiles
@pytest.mark.parametrize("num_rows", [1, 2, 3, 37, 8193])
def test_an_epochs_order(num_rows):
    count = min(num_rows, 37)
    assert_the_same(kernels.gather.order, num_rows, seed=2**40, epoch=3, start=num_rows - count, count=count, atol=0)


@with_small_tiles
@pytest.mark.parametrize(("stored", "divisor"), [(np.uint8, 255), (np.float32, 1)])
def test_rows_of_an_epoch(rng, dtype, stored, divisor):
    data, out = rng.integers(0, 17, (57, 10)).astype(stored), np.empty((3, 10), dtype)
    for epoch, start in ((4, 20), (np.array([4], np.int64), np.array([20], np.int64))):
        more = {"seed": 9, "epoch": epoch, "start": start, "start_offset": 6}
        assert_the_same(kernels.gather.rows, data, divisor, out, **more, rtol=0, atol=0)


@with_small_tiles
@pytest.mark.parametrize("objective", ["non-saturating", "minimax"])
def test_losses(rng, dtype, objective):
    # More logits than threads.
    logits = (10 * rng.normal(size=150)).astype(dtype)
    logits[:4] = -1000, 1000, -80, 80
    d, g, sums = np.empty(150, dtype), np.empty(80, dtype), rng.normal(size=4)
    more = {"sums": sums, "non_finite": np.zeros(1, np.int64)}
    assert_the_same(kernels.gan_loss.gan_loss, logits, 70, objective, out_discriminator=d, out_generator=g, **more)
    assert_the_same(kernels.gan_loss.gan_loss, logits, 70, objective, out_discriminator=d)
    assert_the_same(kernels.gan_loss.gan_loss, logits[:80], 0, objective, out_generator=g, **more)
    more["non_finite"][0] = kernels.sgd.MARK
    assert_the_same(kernels.gan_loss.gan_loss, logits, 70, objective, out_discriminator=d, out_generator=g, **more)
    logits[100] = np.nan
    assert_the_same(kernels.gan_loss.gan_loss, logits, 70, objective, out_discriminator=d, out_generator=g, **more)


@with_small_tiles
def test_steps_and_epochs():
    rates, momenta = np.array([0.4, 0.3, 0.2], np.float32), np.array([0.5, 0.6], np.float32)
    host, there = StepState(), StepState(DEVICE.upload(StepState().words))
    tables = DEVICE.upload(rates), DEVICE.upload(momenta)
    kernels.step.set_rates(host, rates, momenta, backend="reference")
    kernels.step.set_rates(there, *tables)
    for fault in (0, 0, 0, 0, 0, kernels.sgd.MARK, 1):
        host.non_finite[0] = fault
        DEVICE.overwrite(there.non_finite, np.array([fault], np.int64))
        shape = {"rows_per_step": 10, "rows_per_epoch": 20}
        kernels.step.advance(host, rates, momenta, **shape, backend="reference")
        kernels.step.advance(there, *tables, **shape)
        # The views of the fields and the buffer are one memory.
        assert DEVICE.download(there.words).tolist() == host.words.tolist()
        assert DEVICE.download(there.learning_rate) == host.learning_rate
        assert DEVICE.download(there.momentum) == host.momentum
    assert host.update[0] == 5


@with_small_tiles
@pytest.mark.parametrize("blocks", [1, 256])
def test_the_nearest(rng, monkeypatch, blocks):
    monkeypatch.setattr("fastgan.kernels.nearest.numba_cuda._BLOCKS", blocks)
    queries, samples = rng.normal(size=(9, 10)).astype(np.float32), rng.normal(size=(45, 10))
    samples[30:40] = samples[3:13]
    queries[:2], queries[8, 3] = samples[[33, 12]], np.nan
    found = kernels.nearest.indices(queries, samples, backend="numba-cuda")
    assert found[:8].tolist() == kernels.nearest.indices(queries, samples, backend="reference")[:8].tolist()
    there = kernels.nearest.indices(DEVICE.upload(queries), samples, backend="numba-cuda")
    assert DEVICE.download(there).tolist() == found.tolist()


@with_small_tiles
@pytest.mark.parametrize("blocks", [1, 6])
def test_parzen(rng, monkeypatch, blocks):
    monkeypatch.setattr("fastgan.kernels.parzen.numba_cuda._BLOCKS", blocks)
    monkeypatch.setattr("fastgan.kernels.parzen.numba_cuda._QUERIES", 9)
    queries, samples = rng.random((11, 10)).astype(np.float32), rng.random((30, 10))
    samples[5] = queries[3]
    queries[7, 2], queries[4, 1] = np.nan, np.inf
    sigmas, counted = np.array([1e-100, 1e-3, 0.1, 1.0, 1e100]), []
    found, wanted = (
        kernels.parzen.log_density(queries, samples, sigmas, progress=progress, backend=backend)
        for backend, progress in (("numba-cuda", counted.append), ("reference", None))
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert np.isnan(found[:, 7]).all()
    assert (found[:, 4] == -np.inf).all()
    assert counted == [9, 2]
    there = kernels.parzen.log_density(DEVICE.upload(queries), DEVICE.upload(samples), sigmas, backend="numba-cuda")
    assert there.tobytes() == found.tobytes()
    samples[29, 0] = np.nan
    assert np.isnan(kernels.parzen.log_density(queries, samples, sigmas[2:3], backend="numba-cuda")).all()


def tiny():
    """Give a data set of 5 images of 9 pixels, and a configuration whose every part matters."""
    pixels = np.random.default_rng(1).integers(0, 256, (5, 9)).astype(np.uint8)
    split = Split(pixels, 255.0, None)
    data = Dataset("tiny", (1, 3, 3), {"train": split, "valid": split, "test": split}, "made up", {}, 5)
    config = preset("digits").replace(
        {
            "generator.0.num_units": 9, "generator.1.num_units": 5, "generator.1.max_col_norm": 0.8,
            "discriminator.0.num_units": 5, "discriminator.0.num_pieces": 5, "discriminator.0.max_col_norm": 0.8,
            "discriminator.1.num_units": 3, "discriminator.1.num_pieces": 2,
            "noise_dim": 3, "batch_size": 2, "learning_rate": 0.5,
            **{f"{network}.{i}.irange": 0.5 for network in ("generator", "discriminator") for i in range(3)},
        }
    )  # fmt: skip
    return data, config


@with_small_tiles
@pytest.mark.parametrize(
    ("changes", "num_steps"),
    [
        ({"update": "alternating", "d_steps": 2}, 2),
        ({"update": "simultaneous", "noise": "normal", "objective": "minimax"}, 3),
    ],
    ids=["alternating", "simultaneous"],
)
def test_training_steps_are_the_references(changes, num_steps):
    data, config = tiny()
    config = config.replace(changes)
    found, wanted = (Trainer(config, data, device(name), num_steps) for name in ("numba-cuda", "reference"))
    # Begun by one trainer and finished by another that takes its arrays up: over the end of an epoch.
    found.device.repeat(found.step, num_steps - 1, lambda: False)
    arrays = found.arrays()
    found = Trainer(config, data, device("numba-cuda"), num_steps)
    found.load_arrays(arrays)
    found.step()
    for _ in range(num_steps):
        wanted.step()
    arrays, exact = found.arrays(), wanted.arrays()
    assert arrays["state"][:2].tolist() == [num_steps, 2 if num_steps == 3 else 3]
    for name, array in exact.items():
        assert np.isfinite(arrays[name]).all()
        np.testing.assert_allclose(arrays[name], array, rtol=5e-3, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(found.generator.sample(3), wanted.generator.sample(3), rtol=5e-3)


@with_small_tiles
# The preset digits is trained above.
@pytest.mark.parametrize("name", ["mnist", "tfd", "tfd-stage2", "cifar10"])
def test_the_other_presets_train_as_the_reference_does(name):
    data, config = test_presets.data(name), test_presets.narrow(name, batch_size=4, **test_presets.wider(name))
    # Layers of one tile.
    narrower = {f"generator.{i}.num_units": 5 for i in range(len(config.generator) - 1)}
    config = config.replace(narrower | {f"discriminator.{i}.num_units": 3 for i in range(2)})
    found, wanted = (Trainer(config, data, device(backend), 2) for backend in ("numba-cuda", "reference"))
    for trainer in (found, wanted):
        trainer.step()
        trainer.step()
    arrays, exact = found.arrays(), wanted.arrays()
    for key, array in exact.items():
        assert np.isfinite(arrays[key]).all()
        np.testing.assert_allclose(arrays[key], array, rtol=5e-3, atol=2e-6, err_msg=key)


@with_small_tiles
def test_the_convolutional_preset_is_refused():
    with pytest.raises(BackendError, match=r"^The backend numba-cuda has no conv_\w+; use --backend cupy$"):
        Trainer(test_presets.narrow("cifar10-conv"), test_presets.data("cifar10-conv"), DEVICE, 2)


@with_small_tiles
def test_the_same_bits_every_time(rng):
    x, W, b, dy, scale = test_linear.layer(rng, (17, 9, 10))
    b, vW, vb = b[:10], np.zeros_like(W), np.zeros_like(b)
    arrays = [a.tobytes() for _ in range(2) for a in after_an_update(x, W, b, dy, scale, vW, vb)]
    assert arrays[:4] == arrays[4:]


def after_an_update(x, W, b, dy, scale, vW, vb):
    W, b, vW, vb = (a.copy() for a in (W, b, vW, vb))
    rates = {"learning_rate": 0.1, "momentum": 0.5, "dropout": MASK, "row_scale_B": scale}
    call(kernels.linear.backward_update, x, dy, dy, "identity", W, b, vW, vb, **rates)
    return W, b, vW, vb


@with_small_tiles
def test_a_loss_that_is_not_finite_freezes_the_state():
    data, config = tiny()
    trainer = Trainer(config, data, DEVICE, 9)
    arrays = trainer.arrays()
    arrays["discriminator/2/b"][:] = np.nan
    trainer.load_arrays(arrays)
    trainer.step()
    after = trainer.arrays()
    assert after["state"][[0, 3]].tolist() == [0, 1]
    for name, array in after.items():
        if name not in ("state", "sums"):
            np.testing.assert_array_equal(array, arrays[name])


@with_small_tiles
@pytest.mark.filterwarnings("ignore:.*invalid value")
def test_a_velocity_that_is_not_finite_freezes_the_state_in_its_own_step():
    data, config = tiny()
    trainer = Trainer(config.replace({"update": "alternating"}), data, DEVICE, 9)
    arrays = trainer.arrays()
    # The bias of a piece that can win no more: no loss shows it.
    arrays["discriminator/1/vb"][0] = -np.inf
    trainer.load_arrays(arrays)
    for _ in range(2):
        trainer.step()
        after = trainer.arrays()
        assert after["state"][[0, 3]].tolist() == [0, 1]
        assert trainer.first_non_finite() == "the gradient of discriminator/1/b"
        # D's update was made, and not that of G.
        bad = [name for name, array in after.items() if not np.isfinite(array).all()]
        assert bad == ["discriminator/1/b", "discriminator/1/vb"]
        for name in arrays:
            if name.startswith("generator"):
                np.testing.assert_array_equal(after[name], arrays[name])
        assert (after["discriminator/0/W"] != arrays["discriminator/0/W"]).any()


@with_small_tiles
def test_the_host_looks_in_and_may_stop():
    launched, looks = [], []

    def should_stop():
        looks.append(len(launched))
        return len(launched) >= 5

    DEVICE.repeat(lambda: launched.append(0), 100, should_stop)
    # Twice as many before each look, while that stays short.
    assert looks == [1, 3, 7]
    DEVICE.repeat(lambda: launched.append(0), 2, lambda: False)
    assert len(launched) == 9


@with_small_tiles
def test_where_arrays_live_is_known():
    there = DEVICE.upload(np.ones((3, 4), np.float32))
    assert home_of(there) == home_of(there[1:2]) == "numba-cuda"
    assert backends.why_not("numba-cuda") is None
    assert backends.resolve("auto") != "numba-cuda"
    assert "simulator" in DEVICE.describe()
    with pytest.raises(TypeError, match=r"^x lies on the GPU, as an array of numba.cuda and W on the host"):
        kernels.linear.forward(there, np.ones((4, 2), np.float32), np.ones(2, np.float32))
    with pytest.raises(ValueError, match=r"^x is not C-contiguous"):
        kernels.linear.forward(there[:, 1:], there, there)
    with pytest.raises(TypeError, match="an array lies on the host; the backend numba-cuda needs it on the GPU"):
        kernels.dropout.apply(there, Dropout(0.5, 1, 1, np.zeros(1, np.int64)))
    with pytest.raises(BackendError, match="there is no GPU 1: the driver counts 1"):
        device("numba-cuda", 1)
    with pytest.raises(BackendError, match="numba-cuda computes in float32"):
        device("numba-cuda", precision="tf32")
