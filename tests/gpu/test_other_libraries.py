"""Arrays that come from CuPy and PyTorch and go back there, without a copy and in the right order."""

import numpy as np
import pytest

from fastgan.kernels import linear, linear_maxout


@pytest.fixture
def cupy(runtime):
    return pytest.importorskip("cupy")


@pytest.fixture
def torch(cupy):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch finds no GPU")
    return torch


def test_dlpack_there_and_back(cupy, torch):
    torch.manual_seed(0)
    x, W, b = torch.rand(33, 57, device="cuda"), torch.rand(57, 40, device="cuda"), torch.rand(40, device="cuda")
    torch.cuda.synchronize()
    y = linear.forward(*(cupy.from_dlpack(array) for array in (x, W, b)), "sigmoid", backend="cupy")
    cupy.cuda.Device().synchronize()
    back = torch.from_dlpack(y)
    assert back.data_ptr() == y.data.ptr
    expected = torch.sigmoid(x.double() @ W.double() + b.double())
    torch.testing.assert_close(back.double(), expected, rtol=1e-5, atol=1e-6)


def test_an_output_in_pytorchs_memory(cupy, torch):
    x, W, b = torch.rand(16, 24, device="cuda"), torch.rand(24, 30, device="cuda"), torch.rand(30, device="cuda")
    out = torch.full((16, 6), float("nan"), device="cuda")
    torch.cuda.synchronize()
    arrays = [cupy.from_dlpack(array) for array in (x, W, b)]
    _, pieces = linear_maxout.forward(*arrays, num_pieces=5, out=cupy.from_dlpack(out), backend="cupy")
    cupy.cuda.Device().synchronize()
    expected = (x.double() @ W.double() + b.double()).view(16, 6, 5).max(-1)
    torch.testing.assert_close(out.double(), expected.values, rtol=1e-5, atol=1e-6)
    assert (torch.from_dlpack(pieces).long() == expected.indices).float().mean() > 0.99


def test_a_tensor_itself_is_refused_with_the_way_out(torch):
    x, W, b = torch.rand(16, 24, device="cuda"), torch.rand(24, 30, device="cuda"), torch.rand(30, device="cuda")
    with pytest.raises(TypeError, match="from_dlpack"):
        linear.forward(x, W, b, "relu", backend="cupy")


def test_what_cupy_launched_before_is_done_and_what_it_launches_after_waits(cupy):
    """An operation runs on CuPy's current stream: it overtakes nothing there, and nothing there overtakes it.

    Work of some milliseconds stands before the operation, on CuPy's stream, and writes what it reads; its result is
    read there right after.
    """
    random = np.random.default_rng(0)
    W, b = (cupy.asarray(random.random(shape, dtype=np.float32)) for shape in ((64, 48), (48,)))
    big = cupy.asarray(random.random((6000, 6000), dtype=np.float32)) * np.float32(1 / 3000)
    x_host = random.random((32, 64), dtype=np.float32)
    expected = x_host.astype(np.float64) @ cupy.asnumpy(W).astype(np.float64) + cupy.asnumpy(b)
    x_there = cupy.asarray(x_host)
    cupy.cuda.Device().synchronize()
    for _ in range(5):
        x, y = cupy.zeros((32, 64), np.float32), cupy.zeros((32, 48), np.float32)
        slow = big @ big @ big
        x += x_there + 0 * slow[:32, :64]
        linear.forward(x, W, b, "identity", out=y, backend="cupy")
        found = cupy.asnumpy(y + 0)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
