import numpy as np
import pytest
from scipy import stats

from fastgan.kernels import noise
from fastgan.kernels.common import philox

STREAM = philox.stream_id(philox.Purpose.NOISE)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (100, 100)])
def test_uniforms_are_the_scaled_words(backend, shape):
    words = philox.words(*shape, seed=4, stream=STREAM, step=6, row_offset=2)
    out = np.empty(shape, np.float32)
    noise.uniform(out, low=0.0, high=1.0, seed=4, stream=STREAM, step=6, row_offset=2, backend=backend)
    assert (out == (words >> 8).astype(np.float32) * np.float32(2.0**-24)).all()
    noise.uniform(out, low=-0.05, high=0.05, seed=4, stream=STREAM, step=6, row_offset=2, backend=backend)
    # Product and sum rounded one after the other: a fused multiply-add would differ in the last bit.
    product = (words >> 8).astype(np.float32) * np.float32(2.0**-24) * np.float32(0.05 - -0.05)
    assert (out == product + np.float32(-0.05)).all()


@pytest.mark.parametrize("shape", [(1, 1), (5, 6), (4, 7), (50, 99)])
def test_normals_are_box_and_mullers(backend, shape):
    rows, columns = shape
    words = philox.words(rows, columns + columns % 2, seed=4, stream=STREAM, step=6)
    u = ((words[:, 0::2] >> 8) + 1) * 2.0**-24
    v = (words[:, 1::2] >> 8) * 2.0**-24
    pairs = np.sqrt(-2 * np.log(u))[..., None] * np.stack([np.cos(2 * np.pi * v), np.sin(2 * np.pi * v)], axis=-1)
    out = noise.normal(np.empty(shape, np.float32), seed=4, stream=STREAM, step=6, backend=backend)
    np.testing.assert_allclose(out, pairs.reshape(rows, -1)[:, :columns], rtol=2e-6, atol=1e-6)


def test_the_distributions_are_what_they_are_called(backend):
    uniform = np.empty((1000, 100), np.float32)
    noise.uniform(uniform, low=-(3**0.5), high=3**0.5, seed=9, stream=STREAM, backend=backend)
    normal = noise.normal(np.empty((1000, 101), np.float32), seed=9, stream=STREAM, backend=backend)
    assert stats.kstest(uniform.ravel(), stats.uniform(-(3**0.5), 2 * 3**0.5).cdf).pvalue > 1e-3
    assert stats.kstest(normal.ravel(), stats.norm.cdf).pvalue > 1e-3
    # Neighbours in a pair, in a counter and in rows have nothing to do with each other.
    for shifted in (normal[:, 1:] * normal[:, :-1], normal[1:] * normal[:-1], uniform[:, 1:] * uniform[:, :-1]):
        assert abs(shifted.mean()) < 4 / np.sqrt(shifted.size)


def test_a_range_upside_down_is_refused():
    with pytest.raises(ValueError, match=r"^low is 1"):
        noise.uniform(np.empty((1, 1), np.float32), low=1.0, high=0.0, seed=0, stream=0)
