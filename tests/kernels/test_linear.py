import numpy as np
import pytest

from fastgan.kernels import dropout, linear, sgd
from fastgan.kernels.common.philox import Purpose, stream_id
from fastgan.kernels.dropout import Dropout
from tests.kernels.accuracy import assert_as_exact
from tests.kernels.differences import assert_gradient
from tests.kernels.flags import assert_marks

SHAPES = [(1, 1, 1), (2, 3, 5), (7, 13, 11), (100, 100, 240), (17, 257, 33), (64, 1, 64), (1, 300, 1), (200, 240, 1)]
FUNCTIONS = {
    "identity": (lambda z: z, np.ones_like),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(z.dtype)),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
}
ACTIVATIONS = list(FUNCTIONS)
DROPOUT = Dropout(0.8, seed=7, stream=stream_id(Purpose.DROPOUT, 1), step=3, row_offset=5)


def layer(rng, shape, dtype=np.float32):
    B, I, O = shape
    x = rng.normal(size=(B, I))
    W = rng.normal(size=(I, O)) / np.sqrt(I)
    b = rng.normal(size=O)
    dy = rng.normal(size=(B, O))
    scale = rng.normal(size=B)
    return [np.ascontiguousarray(a, dtype=dtype) for a in (x, W, b, dy, scale)]


def written_out(x, W, b, dy, scale, activation, settings, dtype):
    """Compute everything in one dtype, by the formulas."""
    x, W, b, dy, scale = (a.astype(dtype) for a in (x, W, b, dy, scale))
    factor = np.ones(x.shape, dtype)
    if settings is not None:
        factor = np.where(dropout.mask(*x.shape, settings, backend="reference"), dtype(settings.scale), dtype(0))
    f, df = FUNCTIONS[activation]
    z = (x * factor) @ W + b
    dz = scale[:, None] * dy * df(z)
    return {"y": f(z), "dx": (dz @ W.T) * factor, "dW": (x * factor).T @ dz, "db": dz.sum(0)}


def computed(x, W, b, dy, scale, activation, settings, backend):
    y = linear.forward(x, W, b, activation, dropout=settings, backend=backend)
    shared = {"dropout": settings, "row_scale_B": scale, "backend": backend}
    dx = linear.backward_input(dy, y, W, activation, **shared)
    dW, db = linear.backward_weights(x, dy, y, activation, **shared)
    return {"y": y, "dx": dx, "dW": dW, "db": db}


@pytest.mark.parametrize("settings", [None, DROPOUT], ids=["plain", "dropout"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward_are_the_formulas(backend, rng, shape, activation, settings):
    arrays = layer(rng, shape)
    before = [a.copy() for a in arrays]
    results = computed(*arrays, activation, settings, backend)
    exact = written_out(*arrays, activation, settings, np.float64)
    plain = written_out(*arrays, activation, settings, np.float32)
    for name in exact:
        assert_as_exact(results[name], exact[name], plain[name], floor=3e-7)
    assert all((a == c).all() for a, c in zip(arrays, before, strict=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_against_central_differences(backend, rng, activation):
    x, W, b, dy, _ = layer(rng, (6, 9, 7), np.float64)
    settings = DROPOUT

    def function():
        return float((linear.forward(x, W, b, activation, dropout=settings, backend=backend) * dy).sum())

    y = linear.forward(x, W, b, activation, dropout=settings, backend=backend)
    dx = linear.backward_input(dy, y, W, activation, dropout=settings, backend=backend)
    dW, db = linear.backward_weights(x, dy, y, activation, dropout=settings, backend=backend)
    assert_gradient(function, [x, W, b], [dx, dW, db], rng)


@pytest.mark.parametrize("max_col_norm", [None, 0.7])
@pytest.mark.parametrize("settings", [None, DROPOUT], ids=["plain", "dropout"])
def test_backward_update_is_the_gradients_and_sgd(backend, rng, settings, max_col_norm):
    x, W, b, dy, scale = layer(rng, (10, 20, 30))
    vW, vb = rng.normal(size=W.shape).astype(np.float32), rng.normal(size=b.shape).astype(np.float32)
    y = linear.forward(x, W, b, "sigmoid", dropout=settings, backend=backend)
    dW, db = linear.backward_weights(x, dy, y, "sigmoid", dropout=settings, row_scale_B=scale, backend=backend)
    expected = [a.copy() for a in (W, b, vW, vb)]
    rates = {"learning_rate": 0.3, "momentum": 0.6, "backend": backend}
    sgd.update(expected[0], expected[2], dW, max_col_norm=max_col_norm, **rates)
    sgd.update(expected[1], expected[3], db, **rates)
    linear.backward_update(
        x, dy, y, "sigmoid", W, b, vW, vb,
        max_col_norm=max_col_norm, dropout=settings, row_scale_B=scale, **rates,
    )  # fmt: skip
    for found, wanted in zip((W, b, vW, vb), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_an_update_that_is_skipped_changes_nothing(backend, rng):
    x, W, b, dy, _ = layer(rng, (4, 5, 6))
    parameters = [W, b, np.ones_like(W), np.ones_like(b)]
    before = [a.copy() for a in parameters]
    y = linear.forward(x, W, b, backend=backend)
    skip = np.array([1], np.int64)
    rates = {"learning_rate": 0.1, "momentum": 0.5, "max_col_norm": 0.1, "skip": skip, "backend": backend}
    linear.backward_update(x, dy, y, "identity", *parameters, **rates)
    assert all((a == c).all() for a, c in zip(parameters, before, strict=True))
    skip[0] = 0
    linear.backward_update(x, dy, y, "identity", *parameters, **rates)
    assert all((a != c).any() for a, c in zip(parameters, before, strict=True))


@pytest.mark.parametrize("norm", [None, 0.7])
def test_any_velocity_that_is_not_finite_raises_the_flag(backend, rng, norm):
    x, W, b, dy, _ = layer(rng, (9, 70, 131))
    y = linear.forward(x, W, b, "sigmoid", backend=backend)
    rates = {"learning_rate": 0.1, "momentum": 0.5, "max_col_norm": norm, "backend": backend}

    def update(W, b, vW, vb, skip):
        linear.backward_update(x, dy, y, "sigmoid", W, b, vW, vb, skip=skip, **rates)

    assert_marks(update, [W, b, np.ones_like(W), np.ones_like(b)], backend)


def test_the_mask_that_forward_left_is_the_one_that_is_drawn_again(backend, rng):
    x, W, b, dy, _ = layer(rng, (10, 21, 6))
    with_bits = Dropout(0.5, seed=7, stream=3, step=9, bits=np.empty((10, 3), np.uint8))
    without = Dropout(0.5, seed=7, stream=3, step=9)
    results = [computed(x, W, b, dy, np.ones(10, np.float32), "relu", s, backend) for s in (with_bits, without)]
    for name in results[0]:
        assert (results[0][name] == results[1][name]).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_passes_on(backend, rng, activation):
    x, W, b, _, _ = layer(rng, (4, 5, 6))
    x[2, 3] = np.nan
    y = linear.forward(x, W, b, activation, backend=backend)
    assert np.isnan(y[2]).all()
    assert np.isfinite(np.delete(y, 2, axis=0)).all()


def test_sigmoid_at_its_ends(backend):
    z = np.array([[-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4]], np.float32)
    y = linear.forward(z, np.eye(7, dtype=np.float32), np.zeros(7, np.float32), "sigmoid", backend=backend)
    exact = 1 / (1 + np.exp(-z.astype(np.float64).clip(-700)))
    np.testing.assert_allclose(y, exact, rtol=1e-6, atol=1e-38)


def test_outputs_go_where_they_are_asked_to(backend, rng):
    x, W, b, dy, _ = layer(rng, (4, 5, 6))
    out = np.full((4, 6), 9, np.float32)
    assert linear.forward(x, W, b, out=out, backend=backend) is out
    dx = np.full((4, 5), 9, np.float32)
    assert linear.backward_input(dy, out, W, out=dx, backend=backend) is dx
    dW, db = np.full_like(W, 9), np.full_like(b, 9)
    found = linear.backward_weights(x, dy, out, out_dW=dW, out_db=db, backend=backend)
    assert found[0] is dW
    assert found[1] is db
    np.testing.assert_allclose(dW, x.T @ dy, rtol=1e-5, atol=1e-6)


def good():
    return {"x_BI": np.zeros((4, 5), np.float32), "W_IO": np.zeros((5, 6), np.float32), "b_O": np.zeros(6, np.float32)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x_BI": [[1.0]]}, TypeError, "^x is a list; it must be an array"),
        ({"x_BI": np.zeros((4, 5), np.int32)}, TypeError, "^x has dtype int32; it must be float32 or float64"),
        ({"x_BI": np.zeros((4, 5))}, TypeError, "^W has dtype float32; it must be float64"),
        ({"x_BI": np.zeros(5, np.float32)}, ValueError, r"^x has shape \(5,\); it must be \(any, any\)"),
        ({"x_BI": np.zeros((5, 4), np.float32).T}, ValueError, "^x is not C-contiguous"),
        ({"W_IO": np.zeros((4, 6), np.float32)}, ValueError, r"^W has shape \(4, 6\); it must be \(5, any\)"),
        ({"b_O": np.zeros(5, np.float32)}, ValueError, r"^b has shape \(5,\); it must be \(6\)"),
        ({"out": np.zeros((4, 5), np.float32)}, ValueError, r"^out has shape \(4, 5\); it must be \(4, 6\)"),
        ({"activation": "tanh"}, ValueError, "^activation is 'tanh'; it must be one of identity, relu, sigmoid"),
        ({"backend": "gpu"}, ValueError, "^backend is 'gpu'; it must be one of auto, cupy"),
    ],
)
def test_bad_arguments_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        linear.forward(**{**good(), **changes})
