import numpy as np
import pytest
from scipy.signal import correlate2d

from fastgan.kernels import conv_maxout, dropout, sgd
from fastgan.kernels.common.philox import Purpose, stream_id
from fastgan.kernels.conv_maxout import cupy_raw as conv_maxout_cupy
from fastgan.kernels.dropout import Dropout
from tests.kernels.accuracy import assert_as_exact
from tests.kernels.differences import assert_gradient
from tests.kernels.flags import assert_marks, raised

# B, C, H, W, K, pad, U, P
SHAPES = [
    (1, 1, 1, 1, 1, 0, 1, 1), (2, 3, 5, 7, 3, 1, 4, 2), (3, 2, 8, 6, 5, 3, 3, 3), (2, 3, 9, 4, 4, 0, 2, 4),
    (5, 1, 7, 7, 8, 4, 5, 2), (1, 5, 3, 11, 2, 1, 1, 17), (1, 2, 4, 3, 3, 1, 2, 255),
    (7, 16, 17, 16, 8, 4, 4, 2), (9, 4, 15, 14, 5, 3, 12, 2),
]  # fmt: skip
DROPOUT = Dropout(0.5, seed=7, stream=stream_id(Purpose.DROPOUT, 1), step=3, row_offset=5)


def layer(rng, shape, dtype=np.float32):
    B, C, H, W, K, pad, U, P = shape
    arrays = (
        rng.normal(size=(B, C, H, W)),
        rng.normal(size=(C, K, K, U * P)) / (np.sqrt(C) * K),
        rng.normal(size=U * P),
        rng.normal(size=(B, U, H + 2 * pad - K + 1, W + 2 * pad - K + 1)),
        rng.normal(size=B),
    )
    return [np.ascontiguousarray(a, dtype=dtype) for a in arrays]


def written_out(x, W, b, dy, scale, P, pad, settings, dtype, pieces):
    """Compute everything in one dtype, by the formulas, place in the kernel by place; gradients go to ``pieces``."""
    x, W, b, dy, scale = (a.astype(dtype) for a in (x, W, b, dy, scale))
    factor = np.ones(x.shape, dtype)
    if settings is not None:
        mask = dropout.mask(len(x), x[0].size, settings, backend="reference").reshape(x.shape)
        factor = np.where(mask, dtype(settings.scale), dtype(0))
    K, (H, W_), (height, width) = W.shape[1], x.shape[2:], dy.shape[2:]
    padded = np.pad(x * factor, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    won = np.arange(P)[:, None, None] == pieces[:, :, None].astype(int)
    dz = (scale[:, None, None, None, None] * dy[:, :, None] * won).reshape(len(x), -1, height, width)
    z = np.zeros((len(x), W.shape[3], height, width), dtype) + b[:, None, None]
    dpadded, dW = np.zeros_like(padded), np.zeros_like(W)
    for k in range(K):
        for l in range(K):
            patch = padded[:, :, k : k + height, l : l + width]
            z += np.einsum("bchw,co->bohw", patch, W[:, k, l], optimize=True)
            dW[:, k, l] = np.einsum("bchw,bohw->co", patch, dz, optimize=True)
            dpadded[:, :, k : k + height, l : l + width] += np.einsum("bohw,co->bchw", dz, W[:, k, l], optimize=True)
    dx = dpadded[:, :, pad : pad + H, pad : pad + W_] * factor
    z = z.reshape(len(x), -1, P, height, width)
    return {"y": z.max(2), "dx": dx, "dW": dW, "db": dz.sum((0, 2, 3))}, z


def computed(x, W, b, dy, scale, P, pad, settings, backend):
    shared = {"pad": pad, "dropout": settings, "backend": backend}
    y, pieces = conv_maxout.forward(x, W, b, P, **shared)
    dx = conv_maxout.backward_input(dy, pieces, W, P, row_scale_B=scale, **shared)
    dW, db = conv_maxout.backward_weights(x, dy, pieces, P, row_scale_B=scale, **shared)
    return {"y": y, "dx": dx, "dW": dW, "db": db}, pieces


@pytest.mark.parametrize("settings", [None, DROPOUT], ids=["plain", "dropout"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward_are_the_formulas(backend, rng, shape, settings):
    arrays, pad, P = layer(rng, shape), shape[5], shape[7]
    before = [a.copy() for a in arrays]
    results, pieces = computed(*arrays, P, pad, settings, backend)
    exact, z = written_out(*arrays, P, pad, settings, np.float64, pieces)
    plain, _ = written_out(*arrays, P, pad, settings, np.float32, pieces)
    for name in exact:
        assert_as_exact(results[name], exact[name], plain[name], floor=3e-7)
    # The winning piece is one that is the maximum but for rounding.
    won = np.take_along_axis(z, pieces[:, :, None].astype(int), 2)[:, :, 0]
    assert (z.max(2) - won <= 1e-5 * np.abs(z).max()).all()
    assert pieces.dtype == np.uint8
    assert all((a == c).all() for a, c in zip(arrays, before, strict=True))


@pytest.mark.parametrize("shape", SHAPES[:6], ids=str)
def test_forward_is_scipys_correlation(backend, rng, shape):
    B, C, _, _, _, pad, U, P = shape
    x, W, b, _, _ = layer(rng, shape, np.float64)
    y, pieces = conv_maxout.forward(x, W, b, P, pad=pad, backend=backend)
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    for n in range(B):
        for u in range(U):
            z = [
                b[o] + sum(correlate2d(padded[n, c], W[c, :, :, o], mode="valid") for c in range(C))
                for o in range(u * P, u * P + P)
            ]
            np.testing.assert_allclose(y[n, u], np.max(z, axis=0), rtol=1e-12, atol=1e-12)
            assert (pieces[n, u] == np.argmax(z, axis=0)).all()


@pytest.mark.parametrize("shape", SHAPES[:6], ids=str)
def test_forward_and_backward_are_pytorchs(backend, rng, shape):
    torch = pytest.importorskip("torch")
    _, _, _, _, _, pad, U, P = shape
    x, W, b, dy, _ = layer(rng, shape, np.float64)
    results, _ = computed(x, W, b, dy, np.ones(len(x)), P, pad, None, backend)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, W.transpose(3, 0, 1, 2), b)]
    z = torch.nn.functional.conv2d(*tensors, padding=pad)
    y = z.reshape(len(x), U, P, *z.shape[2:]).amax(2)
    (y * torch.tensor(dy)).sum().backward()
    found = (results["y"], results["dx"], results["dW"].transpose(3, 0, 1, 2), results["db"])
    for array, tensor in zip(found, (y.detach(), *(t.grad for t in tensors)), strict=True):
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-11, atol=1e-11)


def test_gradients_against_central_differences(backend, rng):
    # Small, so that no maximum changes hands between the two evaluations.
    x, W, b, dy, _ = layer(rng, (2, 2, 4, 5, 3, 2, 2, 3), np.float64)
    shared = {"pad": 2, "dropout": DROPOUT, "backend": backend}
    _, pieces = conv_maxout.forward(x, W, b, 3, **shared)
    dx = conv_maxout.backward_input(dy, pieces, W, 3, **shared)
    dW, db = conv_maxout.backward_weights(x, dy, pieces, 3, **shared)

    def function():
        return float((conv_maxout.forward(x, W, b, 3, **shared)[0] * dy).sum())

    assert_gradient(function, [x, W, b], [dx, dW, db], rng)


def test_the_lowest_piece_wins_a_tie(backend):
    # Three units of three pieces: all equal, all equal and negative, and the last two equal and greatest.
    x = np.ones((2, 1, 2, 3), np.float32)
    W = np.array([5, 5, 5, -1, -1, -1, 1, 2, 2], np.float32).reshape(1, 1, 1, 9)
    y, pieces = conv_maxout.forward(x, W, np.zeros(9, np.float32), 3, backend=backend)
    assert (pieces == np.array([0, 0, 1])[:, None, None]).all()
    assert (y == np.array([5, -1, 2])[:, None, None]).all()


def test_nan_passes_on_and_its_first_piece_wins(backend):
    b = np.array([1, np.nan, 3, np.nan, 7, np.nan, 1, 2, 3, np.nan, np.nan, 1], np.float32)
    x, W = np.zeros((1, 1, 2, 2), np.float32), np.zeros((1, 1, 1, 12), np.float32)
    y, pieces = conv_maxout.forward(x, W, b, 3, backend=backend)
    expected = np.maximum.reduce(b.reshape(4, 3), axis=1)
    np.testing.assert_array_equal(y[0], np.broadcast_to(expected[:, None, None], (4, 2, 2)))
    assert (pieces[0] == np.array([1, 0, 2, 0])[:, None, None]).all()


def test_a_pixel_that_is_nan_spoils_what_sees_it_and_no_more(backend):
    x = np.zeros((2, 1, 6, 6), np.float32)
    x[1, 0, 2, 3] = np.nan
    W, b = np.ones((1, 3, 3, 2), np.float32), np.zeros(2, np.float32)
    y, _ = conv_maxout.forward(x, W, b, 2, pad=1, backend=backend)
    seen = np.zeros((2, 1, 6, 6), bool)
    seen[1, 0, 1:4, 2:5] = True
    assert (np.isnan(y) == seen).all()


def test_infinities_are_numbers_like_others(backend):
    b = np.array([-np.inf, -np.inf, 0, np.inf], np.float32)
    x, W = np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1, 4), np.float32)
    y, pieces = conv_maxout.forward(x, W, b, 2, backend=backend)
    assert y.reshape(-1).tolist() == [-np.inf, np.inf]
    assert pieces.reshape(-1).tolist() == [0, 1]


def test_a_dropped_pixel_is_zero_whatever_it_was(backend, rng):
    x, W, b, _, _ = layer(rng, (4, 2, 5, 5, 3, 1, 3, 2))
    kept = dropout.mask(4, 50, DROPOUT, backend="reference").reshape(x.shape)
    spoilt = np.where(kept, x, np.float32(np.nan))
    one, two = (conv_maxout.forward(a, W, b, 2, pad=1, dropout=DROPOUT, backend=backend) for a in (x, spoilt))
    assert (one[0] == two[0]).all()


@pytest.mark.parametrize("max_col_norm", [None, 0.7])
def test_backward_update_is_the_gradients_and_sgd(backend, rng, max_col_norm):
    x, W, b, dy, scale = layer(rng, (7, 3, 6, 7, 4, 2, 5, 2))
    vW, vb = rng.normal(size=W.shape).astype(np.float32), rng.normal(size=b.shape).astype(np.float32)
    shared = {"pad": 2, "dropout": DROPOUT, "backend": backend}
    _, pieces = conv_maxout.forward(x, W, b, 2, **shared)
    dW, db = conv_maxout.backward_weights(x, dy, pieces, 2, row_scale_B=scale, **shared)
    expected = [a.copy() for a in (W, b, vW, vb)]
    rates = {"learning_rate": 0.3, "momentum": 0.6, "backend": backend}
    kernels, velocities, gradients = (a.reshape(-1, W.shape[3]) for a in (expected[0], expected[2], dW))
    sgd.update(kernels, velocities, gradients, max_col_norm=max_col_norm, **rates)
    sgd.update(expected[1], expected[3], db, **rates)
    conv_maxout.backward_update(
        x, dy, pieces, 2, W, b, vW, vb, pad=2, max_col_norm=max_col_norm, dropout=DROPOUT, row_scale_B=scale, **rates
    )
    for found, wanted in zip((W, b, vW, vb), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_an_update_that_is_skipped_changes_nothing(backend, rng):
    x, W, b, dy, _ = layer(rng, (2, 1, 4, 4, 3, 1, 2, 2))
    parameters = [W, b, np.ones_like(W), np.ones_like(b)]
    before = [a.copy() for a in parameters]
    _, pieces = conv_maxout.forward(x, W, b, 2, pad=1, backend=backend)
    skip = np.array([1], np.int64)
    conv_maxout.backward_update(
        x, dy, pieces, 2, *parameters, pad=1, learning_rate=0.1, momentum=0.5, skip=skip, backend=backend
    )
    assert all((a == c).all() for a, c in zip(parameters, before, strict=True))


def test_an_image_is_the_same_in_any_batch(backend, rng):
    # A batch is taken in parts of a few images; the products may round differently in another part.
    x, W, b, _, _ = layer(rng, (23, 8, 20, 20, 5, 2, 6, 2))
    whole, _ = conv_maxout.forward(x, W, b, 2, pad=2, backend=backend)
    alone, _ = conv_maxout.forward(x[21:22], W, b, 2, pad=2, backend=backend)
    np.testing.assert_allclose(whole[21:22], alone, rtol=1e-5, atol=1e-5)


def test_an_update_that_meets_an_infinity_raises_the_flag(backend, rng):
    x, W, b, dy, _ = layer(rng, (2, 1, 4, 4, 3, 1, 2, 2))
    parameters = [W, b, np.ones_like(W), np.ones_like(b)]
    _, pieces = conv_maxout.forward(x, W, b, 2, pad=1, backend=backend)
    skip, rates = np.array([0], np.int64), {"learning_rate": 0.1, "momentum": 0.5, "backend": backend}
    conv_maxout.backward_update(x, dy, pieces, 2, *parameters, pad=1, skip=skip, **rates)
    assert skip[0] == 0
    dy[1, 0, 1, 1] = np.inf
    conv_maxout.backward_update(x, dy, pieces, 2, *parameters, pad=1, skip=skip, **rates)
    assert skip[0] == raised(backend)


# The second in one image of many places, for which several blocks share the sum over them.
@pytest.mark.parametrize("norm", [None, 0.7])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4, 3, 1, 7, 2), (1, 2, 40, 40, 3, 1, 3, 2)], ids=str)
def test_any_velocity_that_is_not_finite_raises_the_flag(backend, rng, shape, norm):
    x, W, b, dy, _ = layer(rng, shape)
    _, pieces = conv_maxout.forward(x, W, b, 2, pad=1, backend=backend)
    rates = {"learning_rate": 0.1, "momentum": 0.5, "max_col_norm": norm, "backend": backend}

    def update(W, b, vW, vb, skip):
        conv_maxout.backward_update(x, dy, pieces, 2, W, b, vW, vb, pad=1, skip=skip, **rates)

    assert_marks(update, [W, b, np.ones_like(W), np.ones_like(b)], backend)


def test_more_places_than_a_grid_has_tiles_for_are_several_launches(backend, rng, monkeypatch):
    # Two images at a time in place of thousands.
    monkeypatch.setattr(conv_maxout_cupy, "MAX_ROWS", 60)
    arrays = layer(rng, (5, 2, 5, 4, 3, 2, 3, 2))
    results, pieces = computed(*arrays, 2, 2, DROPOUT, backend)
    exact, _ = written_out(*arrays, 2, 2, DROPOUT, np.float64, pieces)
    for name in ("y", "dx"):
        np.testing.assert_allclose(results[name], exact[name], rtol=1e-5, atol=1e-5)


def good():
    shapes = {"x_BCHW": (2, 3, 5, 5), "W_CKKUP": (3, 3, 3, 6), "b_UP": (6,)}
    return {"num_pieces": 2, **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()}}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_pieces": 0}, ValueError, "^num_pieces is 0; it must be 1 to 255"),
        ({"num_pieces": 4}, ValueError, "^W has 6 kernels; their number must be a multiple of num_pieces, 4"),
        ({"pad": 3}, ValueError, "^pad is 3; it must be 0 to 2"),
        ({"pad": -1}, ValueError, "^pad is -1; it must be 0 to 2"),
        ({"W_CKKUP": np.zeros((3, 3, 2, 6), np.float32)}, ValueError, "^W has kernels of 3 x 2; they must be square"),
        ({"W_CKKUP": np.zeros((3, 6, 6, 6), np.float32)}, ValueError, "^H is 5, with padding 5; a kernel of 6 x 6 "),
        ({"W_CKKUP": np.zeros((4, 3, 3, 6), np.float32)}, ValueError, r"^W has shape \(4, 3, 3, 6\); it must be \(3, "),
        ({"x_BCHW": np.zeros((2, 75), np.float32)}, ValueError, r"^x has shape \(2, 75\); it must be \(any, any, "),
        ({"b_UP": np.zeros(2, np.float32)}, ValueError, r"^b has shape \(2\); it must be \(6\)|^b has shape \(2,\)"),
        ({"out_pieces": np.zeros((2, 3, 3, 3), np.int32)}, TypeError, "^out_pieces has dtype int32; it must be uint8"),
        ({"W_CKKUP": np.zeros((3, 3, 3, 6))}, TypeError, "^W has dtype float64; it must be float32"),
    ],
)
def test_bad_arguments_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        conv_maxout.forward(**{**good(), **changes})


def test_bad_arguments_of_the_backward_passes_are_named():
    x, W, b, dy = (np.zeros(shape, np.float32) for shape in ((2, 3, 5, 5), (3, 3, 3, 6), (6,), (2, 3, 3, 3)))
    pieces = np.zeros(dy.shape, np.uint8)
    with pytest.raises(ValueError, match=r"^W has 6 units of 1 pieces and dy has 3 channels; they must be as many"):
        conv_maxout.backward_input(dy, pieces, W, 1)
    with pytest.raises(ValueError, match=r"^x has images of 5 x 4 and dy of 3 x 3; with pad 0 no square kernel"):
        conv_maxout.backward_weights(x[..., :4].copy(), dy, pieces, 2)
    with pytest.raises(ValueError, match=r"^dy has shape \(2, 3, 3, 3\); for x, W and pad 1 it must be \(2, 3, 5, 5\)"):
        conv_maxout.backward_update(x, dy, pieces, 2, W, b, W, b, pad=1, learning_rate=0.1, momentum=0.5)
