import importlib.util

import pytest

from bench import epoch, memory, operations, recipe, scale, training_step
from bench.harness import CannotRunError

SMALL = (1, 4, 4)


def test_a_peer_that_is_not_installed_is_a_row_with_the_command(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jax" else found(name))
    config = recipe.configuration(batch_size=2)
    cases = {case.name: case for case in training_step.peer_cases(config, recipe.random_images(10), {"B": 2})}
    assert cases["JAX jit"].missing == "not installed: pip install jax"
    assert cases["plain NumPy"].missing is None


def test_a_peer_that_fails_is_a_row_with_the_reason():
    def fails(config, trainer):
        raise RuntimeError("no compiler\nand much more")

    data = recipe.random_images(10)
    with pytest.raises(CannotRunError, match=r"^RuntimeError: no compiler$"):
        training_step.PeerWork(fails).verify(recipe.configuration(batch_size=2), data, recipe.FLOAT32)


def test_more_batches_in_full(monkeypatch):
    asked = []
    monkeypatch.setattr(training_step, "fastgan_cases", lambda config, data, params: asked.append(params["B"]) or [])
    monkeypatch.setattr(training_step, "peer_cases", lambda config, data, params: asked.append(-params["B"]) or [])
    list(training_step.training_step(False))
    assert asked == [100, -100] * 2
    asked.clear()
    list(training_step.training_step(True))
    assert asked == [16, 64, 100, -100, 256, 1024, -1024, 4096] * 2


@pytest.mark.parametrize("backend", recipe.HOST_BACKENDS)
def test_every_operation_computes_what_the_reference_does(backend):
    for operation in operations.all_operations():
        operations.verify(operation, backend)


def test_every_operation_has_one_bound():
    for operation in operations.all_operations():
        assert bool(operation.products) != bool(operation.num_bytes), operation.name


def test_an_operation_that_is_wrong_does_not_verify():
    (right,) = (operation for operation in operations.all_operations() if operation.name == "sgd.update")

    def make(backend, dtype):
        work = right.make(backend, dtype)
        return work if backend == "reference" else operations.Work(lambda: None, work.outputs)

    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        operations.verify(right._replace(make=make), "idle")


def test_an_epoch_is_one(monkeypatch):
    monkeypatch.setattr(epoch, "_NUM_ROWS_QUICKLY", 200)
    cases = list(epoch.epoch(False))
    assert len(cases) == 2 * (1 + len(recipe.HOST_BACKENDS))
    for case in [case for case in cases if case.missing is None][:2]:
        case.verify()
        assert case.measure == "images/s"
        assert case.run() > 0


def test_memory_is_of_the_process_alone():
    """A bare Python has less resident than this one, which getrusage in a child would not show."""
    (python, *training) = memory.memory(False)
    megabytes = python.run()
    assert 5 < megabytes < 200
    digits = next(case for case in training if case.params["data"] == "digits" and case.missing is None)
    assert digits.run() > megabytes


def test_the_sizes_that_grow(monkeypatch):
    for comparison, parameter in ((scale.scale_batch, "B"), (scale.scale_width, "U"), (scale.scale_pieces, "P")):
        asked = []
        monkeypatch.setattr(
            scale, "fastgan_cases", lambda config, data, params, asked=asked: asked.append((params, config)) or []
        )
        list(comparison(False))
        quick = len(asked)
        asked.clear()
        list(comparison(True))
        values = [params[parameter] for params, _ in asked]
        assert values == sorted(set(values))
        assert len(values) > quick > 2
    params, config = asked[0]
    assert (params, config.discriminator[0].num_pieces) == ({"P": 1}, 1)


def test_the_growth_with_rows_is_verified(monkeypatch):
    monkeypatch.setattr(scale, "_ROWS", (200,))
    cases = list(scale.scale_rows(False))
    growing = [f"fastgan {backend}, {part}" for backend in recipe.HOST_BACKENDS for part in ("start-up", "step")]
    assert [case.name for case in cases[: 1 + len(growing)]] == ["load the file", *growing]
    for case in cases[: 1 + len(growing)]:
        case.verify()
