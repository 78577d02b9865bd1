"""The bridge by which tests in NumPy run on a device: what it brings there and back."""

import sys
from dataclasses import dataclass

import numpy as np
import pytest

from fastgan.kernels import dropout, step
from fastgan.kernels.common import arrays
from fastgan.kernels.common.arrays import Workspace
from fastgan.kernels.dropout import Dropout
from tests.cuda_emulator.device_array import DeviceArray
from tests.cuda_emulator.runtime import EmulatedRuntime, EmulatorError
from tests.kernels.on_device import on, put_on


@dataclass(frozen=True)
class Settings:
    rate: float
    step: object


SEEN = {}


def operation(x, out, settings=None, pair=(), workspace=None, *, sums=None, act=None, backend="auto"):
    """Stand for an operation: keep what arrives, do what the test asks for."""
    SEEN.update(x=x, out=out, settings=settings, pair=pair, workspace=workspace, sums=sums)
    return act(x, out, sums) if act else out


@pytest.fixture
def there(emulated):
    """The operation by way of the bridge, on the emulator."""
    return on(operation, "cupy")


def write(target, values):
    runtime = EmulatedRuntime()
    runtime.overwrite(target, np.asarray(values, target.dtype))


def test_backends_of_the_host_get_the_module_itself():
    assert on(dropout, "cpu") is dropout
    assert on(dropout, "reference") is dropout


def test_a_module_keeps_what_is_no_operation(emulated):
    there = on(step, "cupy")
    assert there.StepState is step.StepState
    assert there.advance is not step.advance


def test_arrays_go_up_wherever_they_are(there, emulated):
    x, out, counter, other = np.arange(3.0), np.empty(3), np.array([7]), np.ones(2, np.uint8)

    def act(x, out, sums):
        write(out, [0, 0, 0])
        return x

    assert there(x, out, Settings(0.5, counter), (other, 3), Workspace(), backend="cupy", act=act) is x
    assert SEEN["settings"].rate == 0.5
    assert SEEN["pair"][1] == 3
    for seen, host in ((SEEN["x"], x), (SEEN["settings"].step, counter), (SEEN["pair"][0], other)):
        assert (type(seen), seen.dtype, seen.shape) == (DeviceArray, host.dtype, host.shape)
        assert (emulated.download(seen) == host).all()
    assert arrays.home_of(SEEN["workspace"].array("a", (1,), np.dtype(np.float32))) == "cupy"


def test_other_calls_go_through_as_they_are(there):
    x = np.arange(3.0)
    there(x, x, backend="reference")
    assert SEEN["x"] is x
    there(x, x)
    assert SEEN["x"] is x


def test_outputs_have_to_be_written(there):
    with pytest.raises(EmulatorError, match="which nobody wrote"):
        there(np.zeros(3), np.zeros(3), backend="cupy", act=lambda x, o, s: x)


def test_what_changed_comes_back_and_the_rest_is_untouched(there):
    x, out, sums = np.arange(3.0), np.full(3, 9.0), np.zeros(4)
    x.flags.writeable = False

    def act(x, out, sums):
        write(out, [1, 2, 3])
        write(sums[1:3], [5, 6])
        return out, sums, 7

    result = there(x, out, sums=sums, backend="cupy", act=act)
    assert result[0] is out
    assert result[1] is sums
    assert result[2] == 7
    assert out.tolist() == [1, 2, 3]
    assert sums.tolist() == [0, 5, 6, 0]


def test_results_of_the_devices_own_come_down(there, emulated):
    made = there(np.zeros(1), None, backend="cupy", act=lambda x, o, s: emulated.upload(np.array([4, 5])))
    assert isinstance(made, np.ndarray)
    assert made.tolist() == [4, 5]


def test_views_stay_views_of_one_memory(there):
    state = step.StepState()
    there(state, state.learning_rate, sums=state.update, backend="cupy")
    words = SEEN["x"].words
    assert SEEN["out"].address == words.address + 32
    assert SEEN["sums"].address == words.address
    x = np.zeros(4, np.float32)
    there(x, x, backend="cupy")
    assert SEEN["x"].address == SEEN["out"].address


def test_what_is_not_aligned_stays_so(there):
    memory = np.zeros(64, np.float32)
    for first in (0, 1, 2, 3):
        view = memory[first : first + 8]
        there(view, None, backend="cupy")
        assert SEEN["x"].address % 16 == view.ctypes.data % 16
    assert memory.ctypes.data % 16 == 0


def test_what_is_not_contiguous_is_refused(there):
    with pytest.raises(ValueError, match=r"^x is not contiguous"):
        there(np.zeros((3, 4)).T, None, backend="cupy")


def test_the_operations_of_a_test_module_are_put_there(monkeypatch, emulated):
    put_on(monkeypatch, sys.modules[__name__], "cupy")
    assert sys.modules[__name__].dropout is not sys.modules["fastgan.kernels.dropout"]
    kept = dropout.mask(3, 5, Dropout(0.5, seed=1, stream=2, step=np.array([3])), backend="cupy")
    assert isinstance(kept, np.ndarray)
    assert (kept == dropout.mask(3, 5, Dropout(0.5, seed=1, stream=2, step=3), backend="reference")).all()
