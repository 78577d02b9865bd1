import numpy as np
import pytest

from fastgan.kernels import sgd
from tests.kernels.flags import raised


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (300, 5), (9,)])
def test_momentum(backend, rng, shape):
    W, v, dW = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
    kept, step = np.float64(np.float32(0.7)) * v, np.float64(np.float32(0.1)) * dW
    new_v, new_W = kept - step, W + kept - step
    # Two roundings, and for W three, of each of the numbers that are added, however near 0 their sum is.
    sizes = np.abs(kept) + np.abs(step)
    sizes_of_W = np.abs(W) + sizes
    sgd.update(W, v, dW, learning_rate=0.1, momentum=0.7, backend=backend)
    assert (np.abs(v - new_v) <= 2.0**-23 * sizes).all()
    assert (np.abs(W - new_W) <= 1.5 * 2.0**-23 * sizes_of_W).all()


def test_rates_may_be_elements_of_arrays(backend, rng):
    W, v, dW = (rng.normal(size=(3, 4)).astype(np.float32) for _ in range(3))
    W2, v2 = W.copy(), v.copy()
    sgd.update(W, v, dW, learning_rate=0.25, momentum=0.5, backend=backend)
    rate, momentum = np.array([0.25], np.float32), np.array([0.5], np.float32)
    sgd.update(W2, v2, dW, learning_rate=rate, momentum=momentum, backend=backend)
    assert (W == W2).all()
    assert (v == v2).all()


def test_column_norms(backend, rng):
    W = rng.normal(size=(50, 6)).astype(np.float32) * np.array([0, 0.01, 0.1, 1, 10, 100], np.float32)
    v = np.zeros_like(W)
    norms = np.linalg.norm(W.astype(np.float64), axis=0)
    expected = W * np.clip(norms, 0, 1.9365) / (1e-7 + norms)
    sgd.update(W, v, np.zeros_like(W), learning_rate=0.1, momentum=0.5, max_col_norm=1.9365, backend=backend)
    np.testing.assert_allclose(W, expected, rtol=2e-6)
    assert (W[:, 0] == 0).all()
    assert (v == 0).all()


def test_a_skipped_update_changes_nothing(backend):
    W, v, dW = np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), np.full((2, 2), np.nan, np.float32)
    sgd.update(W, v, dW, learning_rate=0.1, momentum=0.5, skip=np.array([1], np.int64), backend=backend)
    assert (W == 1).all()
    assert (v == 1).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("norm", [None, 1.5])
@pytest.mark.parametrize("place", [0, 1, 4999, 20 * 700 - 1])
def test_the_first_gradient_that_is_not_finite_raises_the_flag(backend, bad, norm, place, rng):
    W, v, dW = (rng.normal(size=(20, 700)).astype(np.float32) for _ in range(3))
    flag = np.zeros(1, np.int64)
    settings = {"learning_rate": 0.1, "momentum": 0.5, "max_col_norm": norm, "skip": flag, "backend": backend}
    sgd.update(W, v, dW, **settings)
    assert flag[0] == 0
    # Large numbers that are finite, and whose sum is not, are no fault.
    v[:, :2] = 3e38
    sgd.update(W, v, dW * 0, **settings)
    assert flag[0] == 0
    v[:, :2] = 0
    W[...] = 1
    dW.flat[place] = bad
    with np.errstate(invalid="ignore"):
        sgd.update(W, v, dW, **settings)
    assert flag[0] == raised(backend)
    # On a GPU a mark, which the next loss or the step's end makes the flag.
    flag[0] = 1
    before = W.copy(), v.copy()
    sgd.update(W, v, np.ones_like(dW), **settings)
    np.testing.assert_array_equal(W, before[0])
    np.testing.assert_array_equal(v, before[1])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"v": np.zeros((2, 2), np.float32)}, ValueError, r"^v has shape \(2, 2\); it must be \(2, 3\)"),
        ({"dW": np.zeros((2, 3))}, TypeError, "^dW has dtype float64"),
        ({"max_col_norm": 0.0}, ValueError, "^max_col_norm is 0.0"),
        ({"skip": np.zeros(1, np.int32)}, TypeError, "^skip has dtype int32; it must be int64"),
    ],
)
def test_bad_arguments_are_named(changes, error, message):
    W, v, dW = (np.zeros((2, 3), np.float32) for _ in range(3))
    arguments = {"W": W, "v": v, "dW": dW, "learning_rate": 0.1, "momentum": 0.5}
    with pytest.raises(error, match=message):
        sgd.update(**{**arguments, **changes})
