"""Every kernel that the operations launch: their launch code runs, on a runtime that only writes down what it is told.

    python -m tests.kernels.every_kernel

prints registers, stack, spills and shared memory of each, by NVRTC, for every architecture.
"""

import contextlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from types import MappingProxyType

import numpy as np

from bench.recipe import random_images
from fastgan import datasets, preset
from fastgan.kernels import (
    conv_maxout,
    conv_transpose,
    dropout,
    gather,
    linear,
    linear_maxout,
    max_pool,
    nearest,
    noise,
    sgd,
)
from fastgan.kernels.common import gemm_tile, launcher, planes_tile
from fastgan.kernels.common.devices import device
from fastgan.kernels.common.kernel import ARCHITECTURES
from fastgan.kernels.common.planes_tile import PLANES
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.parzen import cupy_raw as parzen_cupy
from fastgan.trainer import Trainer
from tests.kernels import nvrtc

UPDATES = ("alternating", "simultaneous")


class Recorded:
    """An array of the recording runtime."""

    fastgan_home = "cupy"
    __cuda_array_interface__ = MappingProxyType({"data": (0, False)})

    def __init__(self, array):
        self._array = array

    def __getattr__(self, name):
        return getattr(self._array, name)

    def __len__(self):
        return len(self._array)

    def __getitem__(self, key):
        return Recorded(self._array[key])

    def view(self, dtype):
        return Recorded(self._array.view(dtype))

    def reshape(self, *shape):
        return Recorded(self._array.reshape(*shape))


class RecordingRuntime:
    """``launcher.Runtime`` that launches nothing."""

    number = 0

    def __init__(self, architecture):
        self.architecture = architecture
        self.num_multiprocessors = {75: 40, 80: 108, 90: 132}[architecture]
        self.max_shared_bytes = {75: 65536, 80: 166912, 90: 232448}[architecture]
        # In the order of their first launch.
        self.kernels = {}

    def launch(self, kernel, grid, arguments):
        assert all(1 <= size <= limit for size, limit in zip(grid, (2**31 - 1, 65535, 65535), strict=True)), grid
        self.kernels.setdefault(kernel, grid)

    def empty(self, shape, dtype):
        return Recorded(np.zeros(shape, dtype))

    def upload(self, array):
        return Recorded(array)

    def download(self, array):
        return array._array

    def branch(self):
        return contextlib.nullcontext()

    def join(self):
        pass

    def forget(self):
        pass


def every_kernel(architecture):
    """Give the kernels of an architecture, with the grid of their first launch: a dict."""
    runtime = RecordingRuntime(architecture)
    chosen = dict(gemm_tile.ARITHMETIC)
    launcher.set_runtime(runtime)
    try:
        newest = architecture == max(ARCHITECTURES)
        for arithmetic in {75: ("float32",), 80: ("float32", "tf32"), 90: ("float32", "split", "tf32")}[architecture]:
            gemm_tile.ARITHMETIC["float32"] = gemm_tile.SPLIT if arithmetic == "split" else gemm_tile.FMA
            _train("tf32" if arithmetic == "tf32" else "float32", "mnist", UPDATES if newest else UPDATES[:1])
        gemm_tile.ARITHMETIC.update(chosen)
        if newest:
            _train("float32", "digits", UPDATES)
            _train("tf32", "digits", UPDATES)
        _launch_the_others(runtime)
        _launch_convolutions(architecture)
    finally:
        gemm_tile.ARITHMETIC.update(chosen)
        launcher.set_runtime(None)
    return runtime.kernels


def _train(precision, name, updates):
    data = datasets.load("digits") if name == "digits" else random_images(200)
    for update in updates:
        Trainer(preset(name).replace({"update": update}), data, device("cupy", precision=precision), 1).step()


def _launch_the_others(runtime):
    def array(*shape, dtype=np.float32):
        return Recorded(np.ones(shape, dtype))

    settings = Dropout(0.5, seed=1, stream=2)
    dropout.mask(3, 5, settings, backend="cupy")
    dropout.apply(array(3, 5), settings)
    noise.normal(array(3, 5), seed=1, stream=2)
    gather.order(10, seed=1, epoch=1, start=0, count=3, backend="cupy")
    gather.rows(array(10, 5), 1.0, array(3, 5), seed=1, epoch=1, start=0)
    sgd.update(array(4, 5), array(4, 5), array(4, 5), learning_rate=0.1, momentum=0.5, max_col_norm=1.0)
    for activation in linear.ACTIVATIONS:
        x, y, W = array(100, 64), array(100, 80), array(64, 80)
        linear.forward(x, W, array(80), activation, dropout=settings)
        linear.backward_input(y, y, W, activation, row_scale_B=array(100))
        linear.backward_weights(x, y, y, activation)
    for num_pieces in (1, 2, 16, 17, 255):
        x, y, W, pieces = array(100, 64), array(100, 7), array(64, 7 * num_pieces), array(100, 7, dtype=np.uint8)
        linear_maxout.forward(x, W, array(7 * num_pieces), num_pieces)
        linear_maxout.backward_input(y, pieces, W, num_pieces)
        linear_maxout.backward_weights(x, y, pieces, num_pieces)
    for one in (np.float32, np.float64):
        for other in (np.float32, np.float64):
            nearest.indices(array(40, 784, dtype=one), array(90, 784, dtype=other), backend="cupy")
            sigmas = parzen_cupy.Sigmas(array(4, 10, dtype=np.float64))
            parts = parzen_cupy.directly(array(40, 784, dtype=one), array(90, 784, dtype=other), sigmas)
            parzen_cupy.merge(parts, sigmas, array(10, 40, dtype=np.float64))
    for dtype in (np.float32, np.float64):
        rows = np.linspace(0, 1, 200 * 784, dtype=dtype).reshape(200, 784)
        # By the product, whose error is 0 here, where nothing is computed.
        parzen_cupy.log_density(rows, rows, np.full(10, 0.5), None)
        # And by each arithmetic; in the small tiles too.
        newest = runtime.architecture == max(ARCHITECTURES)
        for arithmetic in (gemm_tile.TF32, gemm_tile.SPLIT, *PLANES, gemm_tile.FMA)[: 5 if newest else 4]:
            if runtime.architecture < planes_tile.FROM:
                break
            for size in (2000, 40) if newest else (2000,):
                some, means = array(size, 784, dtype=dtype), array(784, dtype=np.float64)
                rows = [parzen_cupy.rows_of(some, arithmetic, means, 1.0, are_samples=which) for which in (False, True)]
                parzen_cupy.by_product(*rows, sigmas)


def _launch_convolutions(architecture):
    def array(*shape, dtype=np.float32):
        # Large and never touched.
        return Recorded(np.empty(shape, dtype))

    settings, rates = Dropout(0.5, seed=1, stream=2), {"learning_rate": 0.1, "momentum": 0.5}
    # C, H, K, pad, U and the pooling's size, of the convolutional CIFAR-10 model; B is that of its joined batch.
    layers = [(32, 16, 8, 3, 32, 4)]
    if architecture == max(ARCHITECTURES):
        layers += [(3, 32, 8, 4, 32, 4), (32, 7, 5, 3, 192, 2)]
    for precision in ("float32", "tf32") if architecture >= 80 else ("float32",):
        for C, H, K, pad, U, size in layers if precision == "float32" else layers[:1]:
            x, W, b = array(256, C, H, H), array(C, K, K, 2 * U), array(2 * U)
            shared = {"pad": pad, "precision": precision}
            y, pieces = conv_maxout.forward(x, W, b, 2, dropout=settings, **shared)
            conv_maxout.backward_input(y, pieces, W, 2, row_scale_B=array(256), **shared)
            conv_maxout.backward_update(x, y, pieces, 2, W, b, W, b, max_col_norm=1.0, **shared, **rates)
            pooled, places = max_pool.forward(y, size, 2)
            max_pool.backward(pooled, places, size, 2, y.shape[2:])
        x, W, b, shared = array(128, 80, 10, 10), array(80, 3, 5, 5), array(3, 32, 32), {"precision": precision}
        y = conv_transpose.forward(x, W, b, 3, **shared)
        conv_transpose.backward_input(y, W, 3, **shared)
        conv_transpose.backward_update(x, y, W, b, W, b, 3, **shared, **rates)
    x, y, pieces = array(2, 3, 9, 9), array(2, 4, 7, 7), array(2, 4, 7, 7, dtype=np.uint8)
    conv_maxout.backward_weights(x, y, pieces, 2)
    conv_transpose.backward_weights(y, x, 1)


def all_compiled(architectures=ARCHITECTURES):
    """Compile all of them, several at a time: (kernel, architecture, what came out) each.

    Raises
    ------
    RuntimeError
        One does not compile; with the compiler's log.
    """
    jobs = [(kernel, architecture) for architecture in architectures for kernel in every_kernel(architecture)]
    # Processes, as NVRTC compiles one program at a time in each.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(nvrtc.compiled, *zip(*jobs, strict=True)))
    return [(*job, one) for job, one in zip(jobs, found, strict=True)]


def table(compiled):
    """Give what ``all_compiled`` found as a Markdown table."""
    lines = [
        "| Kernel | sm | Tile | Arithmetic | Parts of K | Registers | Stack | Spills | Shared memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kernel, architecture, found in compiled:
        of = dict(kernel.defines)
        tiled = "TILE_M" in of
        tile = f"{of['TILE_M']} x {of['TILE_N']}" + (f" x {of['TILE_K']}" if "TILE_K" in of else "") if tiled else ""
        arithmetic = ("FMA", "TF32", "split", "halves", "bytes")[of["ARITHMETIC"]] if tiled else ""
        lines.append(
            f"| `{kernel.name}` | {architecture} | {tile} | {arithmetic} | {of.get('SPLITS', '')} | {found.registers} "
            f"| {found.stack} | {found.spills} | {kernel.shared_bytes} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(all_compiled()))
