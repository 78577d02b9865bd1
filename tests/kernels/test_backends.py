import importlib
import inspect
import sys

import numpy as np
import pytest

from fastgan import datasets, kernels
from fastgan.errors import BackendError
from fastgan.kernels.common import backends
from fastgan.kernels.common.devices import device
from fastgan.trainer import Trainer
from tests.test_trainer import small

OTHERS = [name for name in backends.LANDED if name != "reference"]


def functions(operation, backend):
    module = importlib.import_module(f"fastgan.kernels.{operation}.{backends.FILES[backend]}")
    return {name: member for name, member in vars(module).items() if inspect.isfunction(member)}


@pytest.mark.parametrize("operation", kernels.__all__)
@pytest.mark.parametrize("name", OTHERS)
def test_signatures_are_the_references(name, operation):
    if operation in backends.LACKING.get(name, ()):
        assert importlib.util.find_spec(f"fastgan.kernels.{operation}.{backends.FILES[name]}") is None
        return
    public = importlib.import_module(f"fastgan.kernels.{operation}")
    called = {function for function in vars(public) if not function.startswith("_")}
    reference, own = functions(operation, "reference"), functions(operation, name)
    wanted = {function for function in reference if function in called}
    if name not in backends.ON_A_GPU:
        # The other operations of the host's backends call it.
        wanted |= {"apply_again"} & set(reference)
    assert wanted
    for function in wanted:
        assert str(inspect.signature(own[function])) == str(inspect.signature(reference[function])), function


def test_auto_is_the_compiled_one():
    assert backends.resolve() == "cpu"


def test_a_numba_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert backends.why_not("cpu").startswith("Numba cannot be imported (")
    assert backends.why_not("reference") is None
    backends.resolve.cache_clear()
    for name in ("auto", "cpu"):
        with pytest.raises(BackendError, match=r"^The backend cpu cannot run here: Numba .*; use --backend reference$"):
            backends.resolve(name)


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("name", OTHERS)
def test_thirty_steps_stay_with_the_reference(name, update, request):
    if name == "cupy" and backends.why_not(name) is not None:
        request.getfixturevalue("emulated")
    if (reason := backends.why_not(name)) is not None:
        pytest.skip(f"{name}: {reason}")
    digits = datasets.load("digits")
    # Five pieces, and two, which a backend may treat in another way; column norms in one layer of each kind.
    changes = {"discriminator.0.num_pieces": 5, "discriminator.1.num_pieces": 2, "discriminator.0.max_col_norm": 0.8}
    config = small(update=update, **changes, **{"generator.1.max_col_norm": 0.8})
    trainers = [Trainer(config, digits, device(backend), 30) for backend in (name, "reference")]
    for trainer in trainers:
        # On a GPU the first step runs as it is, the others are replayed.
        trainer.device.repeat(trainer.step, 30, lambda: False)
    found, expected = (trainer.arrays() for trainer in trainers)
    for tensor in expected:
        assert np.isfinite(found[tensor]).all()
        # Sums in another order, 30 times: the weights are about 0.2, and differ by a few roundings of float32.
        np.testing.assert_allclose(found[tensor], expected[tensor], rtol=1e-4, atol=2e-5, err_msg=tensor)
