"""What a GPU's backend refuses, and the sentences that it says then."""

import numpy as np
import pytest

from fastgan.errors import BackendError
from fastgan.kernels import linear
from fastgan.kernels.common import launcher
from fastgan.kernels.common.devices import CupyDevice, device
from fastgan.kernels.common.kernel import Kernel


def test_tf32_needs_tensor_cores_that_have_it(runtime, monkeypatch):
    monkeypatch.setattr(runtime, "architecture", 75)
    with pytest.raises(BackendError, match=r"^The GPU has compute capability 7\.5 and TF32 needs 8\.0 or newer"):
        device("cupy", precision="tf32")


def test_out_of_memory_is_a_sentence():
    there = CupyDevice()
    with pytest.raises(BackendError, match=r"^The GPU 0 is out of memory: 70368744177664 more bytes are asked for"):
        there.empty((1 << 46,), np.uint8)
    # And the device goes on.
    assert there.download(there.upload(np.arange(5))).tolist() == [0, 1, 2, 3, 4]


def test_arrays_of_the_host_are_refused():
    x, W, b = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32), np.ones(4, np.float32)
    with pytest.raises(TypeError, match=r"on the host and the backend cupy needs it on the GPU"):
        linear.forward(x, W, b, "relu", backend="cupy")
    there = CupyDevice()
    with pytest.raises(TypeError, match="bring them to one place"):
        linear.forward(there.upload(x), W, there.upload(b), "relu", backend="cupy")


def test_a_process_computes_on_one_gpu():
    CupyDevice()
    with pytest.raises(BackendError, match="cannot change to GPU 99"):
        device("cupy", 99)


def test_float64_is_refused_in_a_sentence():
    there = CupyDevice()
    x, W, b = (there.upload(np.ones(shape)) for shape in ((2, 3), (3, 4), (4,)))
    with pytest.raises((TypeError, BackendError), match="float32"):
        linear.forward(x, W, b, "relu", backend="cupy")


def test_more_shared_memory_than_there_is_is_refused(runtime):
    kernel = Kernel("step/step.cu", "set_rates", shared_bytes=runtime.max_shared_bytes + 1)
    with pytest.raises(BackendError, match="bytes of shared memory a block, and the GPU has"):
        launcher.launch(kernel, (1, 1, 1))
