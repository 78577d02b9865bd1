from dataclasses import replace

import numpy as np
import pytest

from fastgan.kernels import dropout, linear
from fastgan.kernels.common import gemm_tile, philox
from fastgan.kernels.common.devices import device
from fastgan.kernels.dropout import Dropout

STREAM = philox.stream_id(philox.Purpose.DROPOUT, 1)


@pytest.mark.parametrize("keep", [0.5, 0.8, 1.0, 2.0**-24, 1 / 3])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (100, 784)])
def test_the_mask_is_the_words_against_the_threshold(backend, keep, shape):
    settings = Dropout(keep, seed=3, stream=STREAM, step=5, row_offset=11)
    words = philox.words(*shape, seed=3, stream=STREAM, step=5, row_offset=11)
    expected = (words >> 8).astype(np.float64) < np.ceil(keep * 2.0**24)
    assert (dropout.mask(*shape, settings, backend=backend) == expected).all()


def test_the_share_that_is_kept(backend):
    for keep in (0.5, 0.8):
        kept = dropout.mask(500, 1000, Dropout(keep, seed=1, stream=STREAM), backend=backend).mean()
        # Four standard deviations of a binomial of 500,000.
        assert abs(kept - keep) < 4 * np.sqrt(keep * (1 - keep) / 500_000)


def test_kept_elements_are_scaled_and_dropped_ones_are_zero(backend, rng):
    x = rng.normal(size=(9, 21)).astype(np.float32)
    settings = Dropout(0.8, seed=3, stream=STREAM)
    kept = dropout.mask(9, 21, settings, backend=backend)
    before = x.copy()
    y = dropout.apply(x, settings, backend=backend)
    assert (y == np.where(kept, x * np.float32(1.25), 0)).all()
    assert (x == before).all()


def test_a_dropped_nan_is_zero_and_a_kept_one_passes(backend):
    settings = Dropout(0.5, seed=3, stream=STREAM)
    y = dropout.apply(np.full((4, 16), np.nan, np.float32), settings, backend=backend)
    kept = dropout.mask(4, 16, settings, backend=backend)
    assert np.isnan(y[kept]).all()
    assert (y[~kept] == 0).all()


def test_each_step_has_its_own_mask_and_the_same_again(backend):
    step = np.array([0], np.int64)
    settings = Dropout(0.5, seed=3, stream=STREAM, step=step)
    first = dropout.mask(8, 32, settings, backend=backend)
    step[0] = 1
    second = dropout.mask(8, 32, settings, backend=backend)
    step[0] = 0
    assert (first != second).any()
    assert (first == dropout.mask(8, 32, settings, backend=backend)).all()


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1, float("nan")])
def test_a_keep_out_of_range_is_refused(keep):
    with pytest.raises(ValueError, match=r"^keep is .* it must be in \(0, 1\]"):
        Dropout(keep, seed=0, stream=0)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=r"^seed is"):
        Dropout(0.5, seed=seed, stream=0)


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (5, 64), (3, 784)])
def test_the_packed_mask_on_a_gpu(emulated, shape):
    B, I = shape
    bits = emulated.empty((B, -(-I // 8)), np.uint8)
    settings = Dropout(0.5, seed=3, stream=STREAM, step=5, row_offset=11, bits=bits)
    device("cupy").draw_mask(settings, I)
    mask = dropout.mask(B, I, Dropout(0.5, seed=3, stream=STREAM, step=5, row_offset=11), backend="reference")
    assert (emulated.download(bits) == np.packbits(mask, axis=1)).all()


def test_who_draws_the_packed_mask_on_a_gpu(emulated, rng, monkeypatch):
    # A product by 1 is then the number itself.
    monkeypatch.setitem(gemm_tile.ARITHMETIC, "float32", gemm_tile.FMA)
    x = rng.normal(size=(6, 20)).astype(np.float32)
    W, b = emulated.upload(np.eye(20, dtype=np.float32)), emulated.upload(np.zeros(20, np.float32))
    on_device = emulated.upload(x)

    def dropped(settings):
        return emulated.download(linear.forward(on_device, W, b, dropout=settings, backend="cupy"))

    def gradient(settings):
        return emulated.download(linear.backward_input(on_device, on_device, W, dropout=settings, backend="cupy"))

    plain = Dropout(0.5, seed=3, stream=STREAM, step=5)
    expected = dropout.apply(x, plain, backend="reference")
    none = np.zeros((6, 3), np.uint8)
    # Without bits each operation draws the mask for itself.
    assert (dropped(plain) == expected).all()
    assert (gradient(plain) == expected).all()
    # The forward pass leaves it in them, and the backward pass takes what is there.
    settings = replace(plain, bits=emulated.upload(none))
    assert (gradient(settings) == 0).all()
    assert (dropped(settings) == expected).all()
    assert (gradient(settings) == expected).all()
    # What was drawn ahead is taken as it is by both.
    ahead = device("cupy").drawn_ahead(replace(plain, bits=emulated.upload(none)))
    assert (dropped(ahead) == 0).all()
    device("cupy").draw_mask(ahead, 20)
    assert (dropped(ahead) == expected).all()
    assert (gradient(ahead) == expected).all()


def test_other_devices_draw_nothing_ahead():
    settings = Dropout(0.5, seed=3, stream=STREAM, bits=np.zeros((2, 1), np.uint8))
    assert device("cpu").drawn_ahead(settings) is settings
    device("cpu").draw_mask(settings, 8)
    assert (settings.bits == 0).all()
