"""The training step on a GPU: the same bits captured and eager, the reference's steps to the tolerance."""

import numpy as np
import pytest

from bench import recipe
from fastgan.kernels.common.devices import device
from fastgan.presets import preset
from fastgan.trainer import Trainer

CHANGES = {
    "simultaneous": {},
    "alternating": {"update": "alternating"},
    "alternating, k = 3, minimax": {"update": "alternating", "d_steps": 3, "objective": "minimax"},
    "column norms, normal noise": {"discriminator.0.max_col_norm": 0.6, "noise": "normal"},
}


def small(**changes):
    """Give the digits' networks at small and odd widths."""
    widths = {
        "generator.0.num_units": 61, "generator.1.num_units": 48, "noise_dim": 13, "batch_size": 20,
        "discriminator.0.num_units": 37, "discriminator.1.num_units": 24,
    }  # fmt: skip
    return preset("digits").replace(widths | changes)


def never():
    return False


def trainer_of(config, data, precision="float32", backend="cupy"):
    return Trainer(config, data, device(backend, precision=precision), 10_000)


def updates_of(trainer):
    return int(trainer.device.download(trainer.state.update)[0])


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert array.tobytes() == found[name].tobytes(), f"{name} differs"
        assert name == "state" or np.isfinite(array).all()


def check_captured(config, data, precision, num_steps):
    captured, eager = trainer_of(config, data, precision), trainer_of(config, data, precision)
    captured.device.repeat(captured.step, num_steps, never)
    for _ in range(num_steps):
        eager.step()
    assert_same_bits(captured.arrays(), eager.arrays())
    assert updates_of(eager) == num_steps


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_a_captured_step_is_an_eager_one(changes, precision, digits):
    # Enough for graphs of many steps, of one, and for the end of an epoch.
    check_captured(small(**changes), digits, precision, 75)


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_a_captured_step_of_the_mnist_networks_is_an_eager_one(update, precision, images):
    check_captured(recipe.configuration(update), images, precision, 70)


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_two_runs_are_the_same_bit_for_bit(update, precision, images):
    arrays = []
    for _ in range(2):
        trainer = trainer_of(recipe.configuration(update), images, precision)
        trainer.device.repeat(trainer.step, 200, never)
        arrays.append(trainer.arrays())
    assert_same_bits(*arrays)


def test_a_stop_between_two_graphs_loses_nothing(digits):
    whole, parts = (trainer_of(small(), digits) for _ in range(2))
    whole.device.repeat(whole.step, 90, never)
    made = 0
    while made < 90:
        looks = iter([False])
        # Stops at the second look each time.
        parts.device.repeat(parts.step, 90 - made, lambda looks=looks: next(looks, True))
        now = updates_of(parts)
        assert now > made
        made = now
    assert_same_bits(parts.arrays(), whole.arrays())


def test_a_run_goes_on_from_its_arrays_bit_for_bit(digits):
    config = small(update="alternating")
    whole, first, second = (trainer_of(config, digits) for _ in range(3))
    whole.device.repeat(whole.step, 40, never)
    first.device.repeat(first.step, 17, never)
    second.load_arrays(first.arrays())
    second.device.repeat(second.step, 23, never)
    assert_same_bits(second.arrays(), whole.arrays())


# Relative differences after 30 steps, tensor by tensor. The emulator found, at reduced widths, 5e-8 for weights and
# 1e-6 for their velocities in float32, FMA and split; 3e-5 and 0.17 in TF32. Biases' gradients are sums that nearly
# cancel: 0.01 there, and 0.1 in TF32; hence their floor, some roundings of what is summed.
BARS = {
    "float32": {"W": 1e-6, "vW": 1e-5, "b": 0.05, "vb": 0.05},
    "tf32": {"W": 1e-3, "vW": 0.5, "b": 0.5, "vb": 0.5},
}
FLOORS = {"float32": 1e-7, "tf32": 1e-4}


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_thirty_steps_are_those_of_the_reference(update, precision, digits):
    config = preset("digits").replace({"update": update})
    found, expected = trainer_of(config, digits, precision), trainer_of(config, digits, backend="reference")
    for trainer in (found, expected):
        trainer.device.repeat(trainer.step, 30, never)
    arrays, wanted = found.arrays(), expected.arrays()
    for name, array in arrays.items():
        if array.dtype == np.float32:
            assert np.isfinite(array).all()
            kind = name.rpartition("/")[2]
            error, norm = np.linalg.norm(array - wanted[name].astype(np.float64)), np.linalg.norm(wanted[name])
            bar = BARS[precision][kind] * norm + (FLOORS[precision] if kind in ("b", "vb") else 0)
            assert error <= bar, f"{name} is off by {error:.2g}, and its norm is {norm:.2g}"
    # Update, epoch and place.
    assert arrays["state"][:3].tobytes() == wanted["state"][:3].tobytes()
    np.testing.assert_allclose(arrays["sums"], wanted["sums"], rtol=1e-5 if precision == "float32" else 2e-3)


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_the_first_step_of_the_mnist_networks_is_that_of_the_reference(update, precision, images):
    tolerance = recipe.TF32 if precision == "tf32" else recipe.FLOAT32
    recipe.check_fastgan(recipe.configuration(update), images, "cupy", precision, tolerance)()


def test_a_loss_that_is_not_finite_stops_the_updates(digits):
    trainer = trainer_of(small(learning_rate=1e30), digits)
    trainer.device.repeat(trainer.step, 40, never)
    assert int(trainer.device.download(trainer.state.non_finite)[0]) == 1
    assert updates_of(trainer) < 40
