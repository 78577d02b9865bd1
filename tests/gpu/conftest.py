"""What the tests of this folder need: a GPU with CuPy. Without one they skip, all of them."""

import pytest

from bench import recipe
from fastgan import datasets
from fastgan.kernels.common import backends, gemm_tile, launcher
from fastgan.kernels.common.devices import TF32_FROM


@pytest.fixture(autouse=True)
def runtime():
    """What launches on the GPU."""
    reason = backends.why_not("cupy")
    if reason is not None:
        pytest.skip(reason)
    return launcher.runtime()


@pytest.fixture(params=["float32, FMA", "float32, split", "tf32"])
def precision(request, runtime, monkeypatch):
    """Each arithmetic, by the precision that asks for it."""
    name, _, arithmetic = request.param.partition(", ")
    if request.param != "float32, FMA" and runtime.architecture < TF32_FROM:
        pytest.skip("this GPU has no TF32")
    if arithmetic:
        value = gemm_tile.SPLIT if arithmetic == "split" else gemm_tile.FMA
        monkeypatch.setitem(gemm_tile.ARITHMETIC, "float32", value)
    return name


@pytest.fixture(scope="session")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="session")
def images():
    """Random images of MNIST's shape."""
    return recipe.random_images(2000)
