import numpy as np
import pytest
from scipy.signal import convolve2d

from fastgan.kernels import conv_transpose, sgd
from fastgan.kernels.conv_maxout import cupy_raw as conv_maxout_cupy
from tests.kernels.accuracy import assert_as_exact
from tests.kernels.differences import assert_gradient
from tests.kernels.flags import assert_marks, raised

# B, C, H, W, O, K, stride; the recipe's last, at fewer channels.
SHAPES = [
    (1, 1, 1, 1, 1, 1, 1), (2, 3, 4, 5, 2, 3, 2), (3, 5, 3, 2, 4, 2, 3), (1, 2, 6, 4, 3, 5, 1),
    (7, 4, 2, 3, 1, 4, 4), (5, 17, 10, 10, 3, 5, 3),
]  # fmt: skip


def layer(rng, shape, dtype=np.float32):
    B, C, H, W, O, K, stride = shape
    image = (O, stride * (H - 1) + K, stride * (W - 1) + K)
    arrays = (
        rng.normal(size=(B, C, H, W)),
        rng.normal(size=(C, O, K, K)) / np.sqrt(C),
        rng.normal(size=image),
        rng.normal(size=(B, *image)),
    )
    return [np.ascontiguousarray(a, dtype=dtype) for a in arrays]


def written_out(x, W, b, dy, stride, dtype):
    """Compute everything in one dtype, by the formulas, place in the kernel by place."""
    x, W, b, dy = (a.astype(dtype) for a in (x, W, b, dy))
    K, (H, W_) = W.shape[2], x.shape[2:]
    y, dx, dW = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(W)
    for k in range(K):
        for l in range(K):
            at = (..., slice(k, k + stride * (H - 1) + 1, stride), slice(l, l + stride * (W_ - 1) + 1, stride))
            y[at] += np.einsum("bchw,co->bohw", x, W[:, :, k, l], optimize=True)
            dx += np.einsum("bohw,co->bchw", dy[at], W[:, :, k, l], optimize=True)
            dW[:, :, k, l] = np.einsum("bchw,bohw->co", x, dy[at], optimize=True)
    return {"y": y + b, "dx": dx, "dW": dW, "db": dy.sum(0)}


def computed(x, W, b, dy, stride, backend):
    y = conv_transpose.forward(x, W, b, stride, backend=backend)
    dx = conv_transpose.backward_input(dy, W, stride, backend=backend)
    dW, db = conv_transpose.backward_weights(x, dy, stride, backend=backend)
    return {"y": y, "dx": dx, "dW": dW, "db": db}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward_are_the_formulas(backend, rng, shape):
    arrays, stride = layer(rng, shape), shape[6]
    before = [a.copy() for a in arrays]
    results = computed(*arrays, stride, backend)
    exact, plain = (written_out(*arrays, stride, dtype) for dtype in (np.float64, np.float32))
    for name in exact:
        assert_as_exact(results[name], exact[name], plain[name], floor=3e-7)
    assert all((a == c).all() for a, c in zip(arrays, before, strict=True))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_is_scipys_convolution_of_pixels_set_apart(backend, rng, shape):
    B, C, H, W_, O, _, stride = shape
    x, W, b, _ = layer(rng, shape, np.float64)
    apart = np.zeros((B, C, stride * (H - 1) + 1, stride * (W_ - 1) + 1))
    apart[:, :, ::stride, ::stride] = x
    y = conv_transpose.forward(x, W, b, stride, backend=backend)
    for n in range(B):
        for o in range(O):
            expected = b[o] + sum(convolve2d(apart[n, c], W[c, o]) for c in range(C))
            np.testing.assert_allclose(y[n, o], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward_are_pytorchs(backend, rng, shape):
    torch = pytest.importorskip("torch")
    stride = shape[6]
    x, W, b, dy = layer(rng, shape, np.float64)
    results = computed(x, W, b, dy, stride, backend)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, W, b)]
    y = torch.nn.functional.conv_transpose2d(tensors[0], tensors[1], stride=stride) + tensors[2]
    (y * torch.tensor(dy)).sum().backward()
    expected = {"y": y.detach(), "dx": tensors[0].grad, "dW": tensors[1].grad, "db": tensors[2].grad}
    for name, tensor in expected.items():
        np.testing.assert_allclose(results[name], tensor.numpy(), rtol=1e-11, atol=1e-11)


def test_gradients_against_central_differences(backend, rng):
    x, W, b, dy = layer(rng, (3, 4, 3, 5, 2, 4, 3), np.float64)
    results = computed(x, W, b, dy, 3, backend)

    def function():
        return float((conv_transpose.forward(x, W, b, 3, backend=backend) * dy).sum())

    assert_gradient(function, [x, W, b], [results[name] for name in ("dx", "dW", "db")], rng)


def test_a_pixel_that_is_nan_spoils_its_kernels_place_and_no_more(backend):
    x = np.zeros((2, 1, 3, 3), np.float32)
    x[1, 0, 1, 2] = np.nan
    y = conv_transpose.forward(
        x, np.ones((1, 1, 2, 2), np.float32), np.zeros((1, 8, 8), np.float32), 3, backend=backend
    )
    spoilt = np.zeros((2, 1, 8, 8), bool)
    spoilt[1, 0, 3:5, 6:8] = True
    assert (np.isnan(y) == spoilt).all()


def test_backward_update_is_the_gradients_and_sgd(backend, rng):
    x, W, b, dy = layer(rng, (6, 5, 3, 4, 2, 4, 2))
    vW, vb = rng.normal(size=W.shape).astype(np.float32), rng.normal(size=b.shape).astype(np.float32)
    dW, db = conv_transpose.backward_weights(x, dy, 2, backend=backend)
    expected = [a.copy() for a in (W, b, vW, vb)]
    rates = {"learning_rate": 0.3, "momentum": 0.6, "backend": backend}
    sgd.update(expected[0].reshape(5, -1), expected[2].reshape(5, -1), dW.reshape(5, -1), **rates)
    sgd.update(expected[1].reshape(-1), expected[3].reshape(-1), db.reshape(-1), **rates)
    conv_transpose.backward_update(x, dy, W, b, vW, vb, 2, **rates)
    for found, wanted in zip((W, b, vW, vb), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_an_update_that_is_skipped_changes_nothing(backend, rng):
    x, W, b, dy = layer(rng, (2, 2, 2, 2, 1, 3, 2))
    parameters = [W, b, np.ones_like(W), np.ones_like(b)]
    before = [a.copy() for a in parameters]
    skip = np.array([1], np.int64)
    conv_transpose.backward_update(x, dy, *parameters, 2, learning_rate=0.1, momentum=0.5, skip=skip, backend=backend)
    assert all((a == c).all() for a, c in zip(parameters, before, strict=True))


def test_an_update_that_meets_an_infinity_raises_the_flag(backend, rng):
    x, W, b, dy = layer(rng, (2, 2, 2, 2, 1, 3, 2))
    parameters = [W, b, np.ones_like(W), np.ones_like(b)]
    skip, rates = np.array([0], np.int64), {"learning_rate": 0.1, "momentum": 0.5, "backend": backend}
    conv_transpose.backward_update(x, dy, *parameters, 2, skip=skip, **rates)
    assert skip[0] == 0
    dy[1, 0, 1, 1] = np.inf
    conv_transpose.backward_update(x, dy, *parameters, 2, skip=skip, **rates)
    assert skip[0] == raised(backend)


# The second with so many places that several blocks share the sum over them.
@pytest.mark.parametrize("shape", [(2, 2, 2, 2, 1, 3, 2), (4, 3, 20, 20, 2, 3, 2)], ids=str)
def test_any_velocity_that_is_not_finite_raises_the_flag(backend, rng, shape):
    x, W, b, dy = layer(rng, shape)

    def update(W, b, vW, vb, skip):
        rates = {"learning_rate": 0.1, "momentum": 0.5, "skip": skip, "backend": backend}
        conv_transpose.backward_update(x, dy, W, b, vW, vb, shape[-1], **rates)

    assert_marks(update, [W, b, np.ones_like(W), np.ones_like(b)], backend)


def test_more_places_than_a_grid_has_tiles_for_are_several_launches(backend, rng, monkeypatch):
    # Two images at a time in place of thousands.
    monkeypatch.setattr(conv_maxout_cupy, "MAX_ROWS", 26)
    arrays = layer(rng, (5, 2, 3, 4, 2, 3, 2))
    results, exact = computed(*arrays, 2, backend), written_out(*arrays, 2, np.float64)
    for name in ("y", "dx"):
        np.testing.assert_allclose(results[name], exact[name], rtol=1e-5, atol=1e-5)


def good():
    shapes = {"x_BCHW": (2, 3, 4, 4), "W_COKK": (3, 2, 3, 3), "b_OHW": (2, 9, 9)}
    return {"stride": 2, **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()}}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"stride": 0}, ValueError, "^stride is 0; it must be 1 or more"),
        ({"stride": 3}, ValueError, r"^b has shape \(2, 9, 9\); it must be \(2, 12, 12\)"),
        ({"W_COKK": np.zeros((3, 2, 3, 2), np.float32)}, ValueError, "^W has kernels of 3 x 2; they must be square"),
        ({"W_COKK": np.zeros((4, 2, 3, 3), np.float32)}, ValueError, r"^W has shape \(4, 2, 3, 3\); it must be \(3, "),
        ({"x_BCHW": np.zeros((2, 48), np.float32)}, ValueError, r"^x has shape \(2, 48\); it must be \(any, any, "),
        ({"W_COKK": np.zeros((3, 2, 3, 3))}, TypeError, "^W has dtype float64; it must be float32"),
    ],
)
def test_bad_arguments_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        conv_transpose.forward(**{**good(), **changes})


def test_bad_arguments_of_the_backward_passes_are_named():
    x, W, b, dy = (np.zeros(shape, np.float32) for shape in ((2, 3, 4, 4), (3, 2, 3, 3), (2, 9, 9), (2, 2, 9, 9)))
    with pytest.raises(
        ValueError, match=r"^H of dy is 8; it must be 3, the kernel's size, or a multiple of the stride"
    ):
        conv_transpose.backward_input(np.zeros((2, 2, 8, 9), np.float32), W, 2)
    with pytest.raises(ValueError, match=r"^x has images of 4 x 3 and dy of 9 x 9; with stride 2 no square kernel"):
        conv_transpose.backward_weights(x[..., :3].copy(), dy, 2)
    with pytest.raises(ValueError, match=r"^dy has shape \(2, 2, 9, 9\); for x, W and stride 1 it must be"):
        conv_transpose.backward_update(x, dy, W, b, W, b, 1, learning_rate=0.1, momentum=0.5)
