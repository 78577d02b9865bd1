"""CuPy's runtime over a CuPy of the tests' own, which only writes down what it is told: what runs on no GPU here."""

import contextlib
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from fastgan.errors import BackendError, FastganWarning
from fastgan.kernels.common import backends, cupy_runtime, launcher
from fastgan.kernels.common.cupy_runtime import CupyRuntime
from fastgan.kernels.common.kernel import Kernel

KERNEL = Kernel("step/step.cu", "advance", threads=1)
LARGE = Kernel("step/step.cu", "set_rates", threads=32, shared_bytes=64 * 1024)


class FakeCupy(types.ModuleType):
    """The part of CuPy that is called, on a machine with one H200."""

    def __init__(self, capability="90", count=1):
        super().__init__("cupy")
        self.__version__ = "0"
        self.log = []
        self.current = [FakeStream(self, "null")]
        device = types.SimpleNamespace(
            compute_capability=capability,
            attributes={"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": 232448},
            mem_info=(10, 100),
            use=lambda: self.log.append("use"),
        )
        self.cuda = types.SimpleNamespace(
            Device=lambda number: device,
            Stream=lambda non_blocking: FakeStream(self, f"stream{len(self.streams)}"),
            get_current_stream=lambda: self.current[-1],
            memory=types.SimpleNamespace(OutOfMemoryError=MemoryError),
            runtime=types.SimpleNamespace(
                getDeviceCount=lambda: count,
                driverGetVersion=lambda: 13010,
                getDeviceProperties=lambda number: {"name": b"NVIDIA H200"},
            ),
        )
        self.streams = []
        self.functions = {}
        self.limit = 1 << 20

    def empty(self, shape, dtype):
        if np.prod(shape) > self.limit:
            raise MemoryError
        return FakeArray(np.empty(shape, dtype))

    def asnumpy(self, array):
        return np.array(array.array)

    def RawModule(self, *, code, options, name_expressions):
        if "-Dbroken=1" in options:
            raise RuntimeError("line one\nline two")
        self.log.append(("compile", tuple(options), tuple(name_expressions)))
        assert "__global__" in code

        # The same function for the same text, options and name, as CuPy remembers them.
        def get_function(name):
            return self.functions.setdefault((code, options, name), FakeFunction(self, name))

        return types.SimpleNamespace(get_function=get_function)


class FakeArray:
    __cuda_array_interface__ = None

    def __init__(self, array):
        self.array = array

    def set(self, array):
        self.array[...] = array


class FakeFunction:
    def __init__(self, cupy, name):
        self.cupy, self.name, self.max_dynamic_shared_size_bytes = cupy, name, 48 * 1024

    def __call__(self, grid, block, arguments, shared_mem):
        assert shared_mem <= self.max_dynamic_shared_size_bytes
        self.cupy.log.append((self.cupy.current[-1].name, self.name, grid, block, arguments))


class FakeStream:
    def __init__(self, cupy, name):
        self.cupy, self.name = cupy, name
        if name != "null":
            cupy.streams.append(self)

    def __enter__(self):
        self.cupy.current.append(self)

    def __exit__(self, *_):
        self.cupy.current.pop()

    def record(self):
        return self.name

    def wait_event(self, event):
        self.cupy.log.append((self.name, "waits for", event))

    def synchronize(self):
        self.cupy.log.append((self.name, "synchronize"))

    def begin_capture(self):
        self.cupy.log.append((self.name, "capture"))

    def end_capture(self):
        self.cupy.log.append((self.name, "captured"))
        return types.SimpleNamespace(
            upload=lambda stream: None, launch=lambda stream: self.cupy.log.append((stream.name, "graph"))
        )


@pytest.fixture
def cupy(monkeypatch):
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    launcher.set_runtime(None)
    backends.resolve.cache_clear()
    yield fake
    launcher.set_runtime(None)
    backends.resolve.cache_clear()


def test_a_launch_goes_to_the_current_stream_with_the_arguments_as_they_are(cupy):
    runtime = CupyRuntime()
    runtime.launch(KERNEL, (2, 1, 1), (np.int32(3), None))
    runtime.launch(LARGE, (1, 1, 1), ())
    runtime.launch(KERNEL, (2, 1, 1), (np.int32(3), None))
    launches = [entry for entry in cupy.log if entry[0] == "null"]
    assert [entry[1] for entry in launches] == ["advance", "set_rates", "advance"]
    assert launches[0][2:4] == ((2, 1, 1), (1, 1, 1))
    number, pointer = launches[0][4]
    assert (type(number), type(pointer), pointer) == (np.int32, np.uint64, 0)
    # Compiled once.
    assert len([entry for entry in cupy.log if entry[0] == "compile"]) == 2


def test_kernels_that_differ_in_shared_memory_alone_do_not_limit_each_other(cupy):
    runtime = CupyRuntime()
    smaller = replace(LARGE, shared_bytes=LARGE.shared_bytes - 1024)
    for kernel in (LARGE, smaller, LARGE):
        runtime.launch(kernel, (1, 1, 1), ())
    assert [entry[1] for entry in cupy.log if entry[0] == "null"] == ["set_rates"] * 3


def test_branches_come_after_what_was_before_them_and_before_the_join(cupy):
    runtime = CupyRuntime()
    cupy.log.clear()
    with runtime.branch():
        runtime.launch(KERNEL, (1, 1, 1), ())
        with runtime.branch():
            runtime.launch(KERNEL, (1, 1, 1), ())
    with runtime.branch():
        runtime.launch(KERNEL, (1, 1, 1), ())
    runtime.launch(KERNEL, (1, 1, 1), ())
    runtime.join()
    runtime.join()
    order = [entry[:3] if "waits for" in entry else entry[:2] for entry in cupy.log if entry[0] != "compile"]
    assert order == [
        ("stream1", "waits for", "null"), ("stream1", "advance"), ("stream1", "advance"),
        ("stream2", "waits for", "null"), ("stream2", "advance"), ("null", "advance"),
        ("null", "waits for", "stream1"), ("null", "waits for", "stream2"),
    ]  # fmt: skip


def test_more_branches_than_streams_share_them(cupy):
    runtime = CupyRuntime()
    for _ in range(6):
        with runtime.branch():
            runtime.launch(KERNEL, (1, 1, 1), ())
    cupy.log.clear()
    runtime.join()
    assert [entry[2] for entry in cupy.log] == ["stream1", "stream2", "stream3", "stream4"]


@pytest.mark.parametrize("times", [0, 1, 2, 15, 16, 17, 100, 1000])
def test_a_sequence_is_repeated_so_many_times(cupy, times):
    runtime = CupyRuntime()
    made = []
    runtime.repeat(lambda: made.append(1), times, lambda: False)
    # One step as it is, and where there are steps left, one captured alone and sixteen more in another graph.
    graphs = [entry for entry in cupy.log if entry[1:] == ("graph",)]
    assert len(made) == (0 if times == 0 else 1 + 1 + 16)
    left = max(times - 1, 0)
    assert len(graphs) == left // 16 + left % 16


def test_a_graph_serves_the_next_call_too_until_it_is_forgotten(cupy):
    runtime = CupyRuntime()
    made = []

    def sequence():
        made.append(1)

    runtime.repeat(sequence, 3, lambda: False)
    first = len(made)
    runtime.repeat(sequence, 3, lambda: False)
    assert len(made) == first
    runtime.forget()
    runtime.repeat(sequence, 3, lambda: False)
    assert len(made) == 2 * first


def test_a_stop_is_looked_for_between_graphs(cupy):
    runtime = CupyRuntime()
    looks = iter([False, True])
    runtime.repeat(lambda: None, 10_000, lambda: next(looks))
    assert len([entry for entry in cupy.log if entry[1:] == ("graph",)]) == 1


def test_arrays_go_there_and_back(cupy):
    runtime = CupyRuntime()
    array = runtime.upload(np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(runtime.download(array), [[0, 1, 2], [3, 4, 5]])
    runtime.overwrite(array, np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(runtime.download(array), np.ones((2, 3)))
    assert runtime.describe() == "NVIDIA H200, 132 multiprocessors, CUDA driver 13.1, CuPy 0"


def test_out_of_memory_is_a_sentence(cupy):
    runtime = CupyRuntime()
    with pytest.raises(
        BackendError, match=r"GPU 0 is out of memory: 8388608 more bytes .* 10 of 100 are free; use a sm"
    ):
        runtime.empty((1 << 21,), np.float32)


def test_a_kernel_that_does_not_compile_is_a_sentence(cupy):
    broken = Kernel("step/step.cu", "advance", (("broken", 1),))
    with pytest.raises(BackendError, match=r"advance of step/step.cu cannot be compiled or loaded: line one line two$"):
        CupyRuntime().launch(broken, (1, 1, 1), ())


def test_a_gpu_that_is_not_there_or_too_old_is_refused(cupy, monkeypatch):
    with pytest.raises(BackendError, match="there is no GPU 1: the driver counts 1, from 0 on"):
        CupyRuntime(1)
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(capability="61"))
    with pytest.raises(BackendError, match=r"GPU 0 has compute capability 6.1 and the kernels need 7.5 or newer"):
        CupyRuntime()


@pytest.mark.parametrize(
    ("module", "sentence"),
    [(None, "CuPy is not installed"), (FakeCupy(count=0), "the driver counts none")],
)
def test_why_there_is_no_cupy(monkeypatch, cupy, module, sentence):
    monkeypatch.setitem(sys.modules, "cupy", module)
    launcher.set_runtime(None)
    assert sentence in backends.why_not("cupy")
    with pytest.raises(BackendError, match=f"^The backend cupy cannot run here: .*{sentence}.*; use --backend auto$"):
        backends.resolve("cupy")


def test_auto_takes_the_gpu(cupy):
    assert backends.resolve("auto") == "cupy"


def test_auto_says_once_what_to_install_where_a_driver_answers_without_cupy(monkeypatch, no_cupy):
    monkeypatch.setattr(cupy_runtime, "driver_version", lambda: 12040)
    with pytest.warns(FastganWarning, match=r"GPU's driver answers, but CuPy is not installed.*cupy-cuda12x\[ctk\]"):
        assert backends.resolve("auto") == "cpu"
    # Remembered, with what it said.
    assert backends.resolve("auto") == "cpu"


def test_a_driver_that_is_not_there(monkeypatch):
    def missing(name):
        raise OSError(name)

    cupy_runtime.driver_version.cache_clear()
    monkeypatch.setattr(cupy_runtime.ctypes, "CDLL", missing)
    assert cupy_runtime.driver_version() is None
    cupy_runtime.driver_version.cache_clear()


def test_the_tf32_of_a_gpu_that_has_none_is_refused(emulated):
    from fastgan.kernels.common.devices import device

    with contextlib.ExitStack() as stack:
        stack.callback(setattr, emulated, "architecture", emulated.architecture)
        emulated.architecture = 75
        with pytest.raises(
            BackendError, match=r"compute capability 7.5 and TF32 needs 8.0 or newer; leave --precision"
        ):
            device("cupy", precision="tf32")
