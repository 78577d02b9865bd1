import numpy as np
import pytest

from fastgan.kernels import dropout, linear_maxout, sgd
from fastgan.kernels.common.philox import Purpose, stream_id
from fastgan.kernels.dropout import Dropout
from tests.kernels.accuracy import assert_as_exact
from tests.kernels.differences import assert_gradient
from tests.kernels.flags import assert_marks

# B, I, U, P
SHAPES = [
    (1, 1, 1, 1), (2, 3, 5, 2), (7, 13, 11, 3), (100, 100, 48, 5),
    (17, 65, 9, 8), (3, 4, 2, 17), (2, 3, 2, 255), (64, 1, 7, 4), (5, 31, 4, 6), (33, 9, 5, 7),
]  # fmt: skip
DROPOUT = Dropout(0.5, seed=7, stream=stream_id(Purpose.DROPOUT, 1), step=3, row_offset=5)


def layer(rng, shape, dtype=np.float32):
    B, I, U, P = shape
    arrays = (
        rng.normal(size=(B, I)),
        rng.normal(size=(I, U * P)) / np.sqrt(I),
        rng.normal(size=U * P),
        rng.normal(size=(B, U)),
        rng.normal(size=B),
    )
    return [np.ascontiguousarray(a, dtype=dtype) for a in arrays]


def written_out(x, W, b, dy, scale, num_pieces, settings, dtype, pieces=None):
    """Compute everything in one dtype, by the formulas; with ``pieces`` given the gradients go to those."""
    x, W, b, dy, scale = (a.astype(dtype) for a in (x, W, b, dy, scale))
    factor = np.ones(x.shape, dtype)
    if settings is not None:
        factor = np.where(dropout.mask(*x.shape, settings, backend="reference"), dtype(settings.scale), dtype(0))
    z = ((x * factor) @ W + b).reshape(len(x), -1, num_pieces)
    won = z.argmax(-1) if pieces is None else pieces
    dz = (scale[:, None, None] * dy[:, :, None] * (np.arange(num_pieces) == won[:, :, None])).reshape(len(x), -1)
    return {"y": z.max(-1), "dx": (dz @ W.T) * factor, "dW": (x * factor).T @ dz, "db": dz.sum(0)}, z


def computed(x, W, b, dy, scale, num_pieces, settings, backend):
    y, pieces = linear_maxout.forward(x, W, b, num_pieces, dropout=settings, backend=backend)
    shared = {"dropout": settings, "row_scale_B": scale, "backend": backend}
    dx = linear_maxout.backward_input(dy, pieces, W, num_pieces, **shared)
    dW, db = linear_maxout.backward_weights(x, dy, pieces, num_pieces, **shared)
    return {"y": y, "dx": dx, "dW": dW, "db": db}, pieces


@pytest.mark.parametrize("settings", [None, DROPOUT], ids=["plain", "dropout"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward_are_the_formulas(backend, rng, shape, settings):
    arrays, P = layer(rng, shape), shape[3]
    before = [a.copy() for a in arrays]
    results, pieces = computed(*arrays, P, settings, backend)
    exact, z = written_out(*arrays, P, settings, np.float64, pieces)
    plain, _ = written_out(*arrays, P, settings, np.float32, pieces)
    for name in exact:
        assert_as_exact(results[name], exact[name], plain[name], floor=3e-7)
    # The winning piece is one that is the maximum but for rounding.
    won = np.take_along_axis(z, pieces[:, :, None].astype(int), -1)[:, :, 0]
    assert (z.max(-1) - won <= 1e-5 * np.abs(z).max()).all()
    assert pieces.dtype == np.uint8
    assert all((a == c).all() for a, c in zip(arrays, before, strict=True))


def test_gradients_against_central_differences(backend, rng):
    x, W, b, dy, _ = layer(rng, (6, 9, 5, 4), np.float64)
    _, pieces = linear_maxout.forward(x, W, b, 4, dropout=DROPOUT, backend=backend)
    dx = linear_maxout.backward_input(dy, pieces, W, 4, dropout=DROPOUT, backend=backend)
    dW, db = linear_maxout.backward_weights(x, dy, pieces, 4, dropout=DROPOUT, backend=backend)

    def function():
        return float((linear_maxout.forward(x, W, b, 4, dropout=DROPOUT, backend=backend)[0] * dy).sum())

    assert_gradient(function, [x, W, b], [dx, dW, db], rng)


def test_the_lowest_piece_wins_a_tie(backend):
    # Four units of three equal pieces, and one whose last two are equal and greatest.
    x = np.ones((2, 1), np.float32)
    W = np.array([[5, 5, 5, 0, 0, 0, -1, -1, -1, 1, 2, 2]], np.float32)
    y, pieces = linear_maxout.forward(x, W, np.zeros(12, np.float32), 3, backend=backend)
    assert pieces.tolist() == [[0, 0, 0, 1]] * 2
    assert y.tolist() == [[5, 0, -1, 2]] * 2


def test_nan_passes_on_and_its_first_piece_wins(backend):
    b = np.array([1, np.nan, 3, np.nan, 7, np.nan, 1, 2, 3, np.nan, np.nan, 1], np.float32)
    y, pieces = linear_maxout.forward(
        np.zeros((1, 1), np.float32), np.zeros((1, 12), np.float32), b, 3, backend=backend
    )
    expected = np.maximum.reduce(b.reshape(4, 3), axis=1)
    np.testing.assert_array_equal(y[0], expected)
    assert pieces[0].tolist() == b.reshape(4, 3).argmax(1).tolist() == [1, 0, 2, 0]


def test_infinities_are_numbers_like_others(backend):
    b = np.array([-np.inf, -np.inf, 0, np.inf], np.float32)
    x, W = np.zeros((1, 1), np.float32), np.zeros((1, 4), np.float32)
    y, pieces = linear_maxout.forward(x, W, b, 2, backend=backend)
    assert y[0].tolist() == [-np.inf, np.inf]
    assert pieces[0].tolist() == [0, 1]


@pytest.mark.parametrize("max_col_norm", [None, 0.7])
def test_backward_update_is_the_gradients_and_sgd(backend, rng, max_col_norm):
    x, W, b, dy, scale = layer(rng, (10, 20, 6, 5))
    vW, vb = rng.normal(size=W.shape).astype(np.float32), rng.normal(size=b.shape).astype(np.float32)
    _, pieces = linear_maxout.forward(x, W, b, 5, dropout=DROPOUT, backend=backend)
    dW, db = linear_maxout.backward_weights(x, dy, pieces, 5, dropout=DROPOUT, row_scale_B=scale, backend=backend)
    expected = [a.copy() for a in (W, b, vW, vb)]
    rates = {"learning_rate": 0.3, "momentum": 0.6, "backend": backend}
    sgd.update(expected[0], expected[2], dW, max_col_norm=max_col_norm, **rates)
    sgd.update(expected[1], expected[3], db, **rates)
    linear_maxout.backward_update(
        x, dy, pieces, 5, W, b, vW, vb, max_col_norm=max_col_norm, dropout=DROPOUT, row_scale_B=scale, **rates
    )
    for found, wanted in zip((W, b, vW, vb), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_an_update_that_is_skipped_changes_nothing(backend, rng):
    x, W, b, dy, _ = layer(rng, (4, 5, 3, 2))
    parameters = [W, b, np.ones_like(W), np.ones_like(b)]
    before = [a.copy() for a in parameters]
    _, pieces = linear_maxout.forward(x, W, b, 2, backend=backend)
    skip = np.array([1], np.int64)
    linear_maxout.backward_update(
        x, dy, pieces, 2, *parameters, learning_rate=0.1, momentum=0.5, skip=skip, backend=backend
    )
    assert all((a == c).all() for a, c in zip(parameters, before, strict=True))


# Few rows of few inputs, and more; the backend cpu makes these two products in different ways.
@pytest.mark.parametrize("norm", [None, 0.7])
@pytest.mark.parametrize("shape", [(5, 7, 3, 2), (9, 70, 27, 5)], ids=str)
def test_any_velocity_that_is_not_finite_raises_the_flag(backend, rng, shape, norm):
    x, W, b, dy, _ = layer(rng, shape)
    num_pieces = shape[3]
    _, pieces = linear_maxout.forward(x, W, b, num_pieces, backend=backend)
    rates = {"learning_rate": 0.1, "momentum": 0.5, "max_col_norm": norm, "backend": backend}

    def update(W, b, vW, vb, skip):
        linear_maxout.backward_update(x, dy, pieces, num_pieces, W, b, vW, vb, skip=skip, **rates)

    assert_marks(update, [W, b, np.ones_like(W), np.ones_like(b)], backend)


def good():
    shapes = {"x_BI": (4, 5), "W_IUP": (5, 6), "b_UP": (6,)}
    return {"num_pieces": 3, **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()}}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_pieces": 0}, ValueError, "^num_pieces is 0; it must be 1 to 255"),
        ({"num_pieces": 256}, ValueError, "^num_pieces is 256; it must be 1 to 255"),
        ({"num_pieces": 4}, ValueError, "^W has 6 columns; their number must be a multiple of num_pieces, 4"),
        ({"b_UP": np.zeros(2, np.float32)}, ValueError, r"^b has shape \(2,\); it must be \(6\)"),
        ({"x_BI": np.zeros((4, 4), np.float32)}, ValueError, r"^W has shape \(5, 6\); it must be \(4, any\)"),
        ({"out_pieces": np.zeros((4, 2), np.int32)}, TypeError, "^out_pieces has dtype int32; it must be uint8"),
        ({"W_IUP": np.zeros((5, 6))}, TypeError, "^W has dtype float64; it must be float32"),
    ],
)
def test_bad_arguments_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        linear_maxout.forward(**{**good(), **changes})
