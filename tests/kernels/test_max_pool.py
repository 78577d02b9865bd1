import numpy as np
import pytest

from fastgan.kernels import max_pool
from tests.kernels.differences import assert_gradient

# B, C, H, W, size, stride; the recipe's last ones.
SHAPES = [
    (1, 1, 1, 1, 1, 1), (2, 3, 5, 7, 2, 2), (2, 1, 6, 4, 3, 2), (1, 4, 9, 9, 2, 2), (3, 2, 7, 8, 4, 1),
    (2, 2, 33, 33, 4, 2), (2, 3, 15, 15, 4, 2), (1, 2, 16, 19, 16, 5),
]  # fmt: skip


def written_out(x, size, stride):
    """Window by window, over an image that goes on with -infinity."""
    B, C, H, W = x.shape
    height, width = (int(np.ceil((n - size) / stride)) + 1 for n in (H, W))
    padded = np.pad(x, ((0, 0), (0, 0), (0, size), (0, size)), constant_values=-np.inf)
    y, places = np.empty((B, C, height, width), x.dtype), np.empty((B, C, height, width), np.uint8)
    for i in range(height):
        for j in range(width):
            window = padded[:, :, i * stride : i * stride + size, j * stride : j * stride + size].reshape(B, C, -1)
            y[:, :, i, j], places[:, :, i, j] = window.max(-1), window.argmax(-1)
    return y, places


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_is_the_maximum_of_every_window(backend, rng, shape):
    x = rng.normal(size=shape[:4]).astype(np.float32)
    before = x.copy()
    y, places = max_pool.forward(x, *shape[4:], backend=backend)
    expected, expected_places = written_out(x, *shape[4:])
    assert (y == expected).all()
    assert (places == expected_places).all()
    assert places.dtype == np.uint8
    assert (x == before).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward_gives_each_gradient_to_its_pixel(backend, rng, shape):
    *_, H, W, size, stride = shape
    # Few values, so that there are ties in most windows.
    x = rng.integers(0, 4, size=shape[:4]).astype(np.float32)
    y, places = max_pool.forward(x, size, stride, backend=backend)
    dy = rng.normal(size=y.shape).astype(np.float32)
    expected = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(*y.shape):
        place = int(places[n, c, i, j])
        expected[n, c, i * stride + place // size, j * stride + place % size] += dy[n, c, i, j]
    found = max_pool.backward(dy, places, size, stride, (H, W), backend=backend)
    assert found.dtype == np.float32
    # A pixel has the sum of up to 16 gradients.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)


def test_forward_and_backward_are_pytorchs(backend, rng):
    torch = pytest.importorskip("torch")
    for *_, H, W, size, stride in SHAPES:
        x = rng.normal(size=(2, 3, H, W))
        y, places = max_pool.forward(x, size, stride, backend=backend)
        dy = rng.normal(size=y.shape)
        tensor = torch.tensor(x, requires_grad=True)
        pooled = torch.nn.functional.max_pool2d(tensor, size, stride, ceil_mode=True)
        (pooled * torch.tensor(dy)).sum().backward()
        np.testing.assert_array_equal(y, pooled.detach().numpy())
        dx = max_pool.backward(dy, places, size, stride, (H, W), backend=backend)
        np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=1e-13, atol=1e-13)


def test_gradients_against_central_differences(backend, rng):
    x = rng.normal(size=(2, 2, 7, 6))
    y, places = max_pool.forward(x, 3, 2, backend=backend)
    dy = rng.normal(size=y.shape)
    dx = max_pool.backward(dy, places, 3, 2, (7, 6), backend=backend)
    assert_gradient(lambda: float((max_pool.forward(x, 3, 2, backend=backend)[0] * dy).sum()), [x], [dx], rng)


def test_the_recipes_sizes():
    lengths = [(33, 4, 2, 16), (15, 4, 2, 7), (9, 2, 2, 5)]
    assert all(max_pool.output_length("H", n, size, stride) == m for n, size, stride, m in lengths)


def test_the_first_pixel_wins_a_tie(backend):
    y, places = max_pool.forward(np.full((1, 1, 5, 5), -3, np.float32), 3, 2, backend=backend)
    assert (y == -3).all()
    assert (places == 0).all()


def test_nan_passes_on_and_the_first_one_wins(backend):
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    x[0, 0, 1, 0] = x[0, 0, 1, 1] = x[0, 0, 2, 3] = np.nan
    x[0, 0, 2, 0] = np.inf
    x[0, 0, 0, 2:] = x[0, 0, 1, 2:] = -np.inf
    y, places = max_pool.forward(x, 2, 2, backend=backend)
    np.testing.assert_array_equal(y[0, 0], [[np.nan, -np.inf], [np.inf, np.nan]])
    assert places[0, 0].tolist() == [[2, 0], [0, 1]]


def test_a_gradient_that_is_nan_goes_to_its_pixel_alone(backend):
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    _, places = max_pool.forward(x, 2, 2, backend=backend)
    dy = np.array([[np.nan, 1], [2, np.inf]], np.float32).reshape(1, 1, 2, 2)
    dx = max_pool.backward(dy, places, 2, 2, (4, 4), backend=backend)
    expected = np.zeros((4, 4))
    expected[1, 1], expected[1, 3], expected[3, 1], expected[3, 3] = np.nan, 1, 2, np.inf
    np.testing.assert_array_equal(dx[0, 0], expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((1, 1, 4, 4), np.float32), 0, 1), ValueError, "^size is 0; it must be 1 to 16"),
        ((np.zeros((1, 1, 20, 20), np.float32), 17, 1), ValueError, "^size is 17; it must be 1 to 16"),
        ((np.zeros((1, 1, 4, 4), np.float32), 2, 3), ValueError, "^stride is 3; it must be 1 to 2"),
        ((np.zeros((1, 1, 4, 3), np.float32), 4, 2), ValueError, "^W is 3; it must be 4 or more"),
        ((np.zeros((1, 4, 4), np.float32), 2, 2), ValueError, r"^x has shape \(1, 4, 4\); it must be \(any, "),
        ((np.zeros((1, 1, 4, 4), np.int32), 2, 2), TypeError, "^x has dtype int32; it must be float32 or float64"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        max_pool.forward(*arguments)


def test_an_image_that_cannot_have_made_these_windows_is_refused():
    dy, places = np.zeros((1, 1, 2, 2), np.float32), np.zeros((1, 1, 2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"^dy has shape \(1, 1, 2, 2\); it must be \(any, any, 3, 2\)"):
        max_pool.backward(dy, places, 2, 2, (5, 4))
