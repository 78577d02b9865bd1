import numpy as np
import pytest

from fastgan import datasets, preset
from fastgan.errors import ConfigError, DataError
from fastgan.kernels.common import backends
from fastgan.kernels.common.devices import device
from fastgan.kernels.step import StepState
from fastgan.trainer import Trainer, learning_rates, momenta
from tests.kernels.differences import assert_gradient
from tests.plain import PlainTraining


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def small(**changes):
    """Give the digits preset at small widths, with weights large enough that every part of it matters."""
    widths = {
        "generator.0.num_units": 17, "generator.1.num_units": 13,
        "discriminator.0.num_units": 11, "discriminator.1.num_units": 7, "discriminator.1.num_pieces": 3,
        "noise_dim": 9, "batch_size": 20, "learning_rate": 0.5,
    }  # fmt: skip
    networks = {"generator": range(3), "discriminator": range(3)}
    iranges = {f"{network}.{i}.irange": 0.4 for network, layers in networks.items() for i in layers}
    return preset("digits").replace({**widths, **iranges, **changes})


def plain_of(trainer, config, dataset):
    layers = [
        [[np.array(getattr(layer, name)) for name in layer.PARAMETERS] for layer in network.layers]
        for network in (trainer.generator, trainer.discriminator)
    ]
    return PlainTraining(config, dataset, *layers)


CONFIGS = {
    "simultaneous": {},
    "simultaneous, minimax, normal noise": {"objective": "minimax", "noise": "normal"},
    "simultaneous, column norms": {"generator.0.max_col_norm": 0.5, "discriminator.0.max_col_norm": 0.6},
    "alternating": {"update": "alternating"},
    "alternating, k = 3, minimax": {"update": "alternating", "d_steps": 3, "objective": "minimax"},
    "alternating, no dropout": {"update": "alternating", "discriminator.0.dropout_keep": 1.0},
    "momentum and decay": {"momentum": 0.9, "momentum_epochs": 2, "learning_rate_decay": 1.01, "learning_rate": 0.05},
}


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS.keys())
def test_steps_are_those_of_the_plain_implementation(backend, digits, changes):
    if backend in backends.ON_A_GPU:
        pytest.skip(f"{backend} computes in float32: its steps are held against float64's below")
    config = small(**changes)
    # Over the end of an epoch, so that its order, the next one's and the momentum's ramp are in it.
    epoch = len(digits.splits["train"]) // (config.batch_size * config.d_steps)
    num_steps = epoch + 3
    trainer = Trainer(config, digits, device(backend), num_steps, np.float64)
    plain = plain_of(trainer, config, digits)
    for _ in range(num_steps):
        trainer.step()
        plain.step()
    assert trainer.state.update[0] == num_steps
    assert trainer.state.epoch[0] == 2
    np.testing.assert_allclose(trainer.sums, plain.sums, rtol=1e-4)
    for network, layers in ((trainer.generator, plain.G), (trainer.discriminator, plain.D)):
        for i, (layer, expected) in enumerate(zip(network.layers, layers, strict=True)):
            for name, wanted in zip(layer.PARAMETERS, expected, strict=True):
                found = trainer.device.download(getattr(layer, name))
                assert np.isfinite(found).all()
                # Not closer, as rates, masks' scales and pixels are rounded to float32 once, on one side or on both.
                np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-6, err_msg=f"{i}/{name}")


def test_float32_steps_stay_close_to_float64(backend, digits):
    config = small()
    trainers = [
        Trainer(config, digits, device(name), 30, dtype)
        for name, dtype in ((backend, np.float32), ("reference", np.float64))
    ]
    for trainer in trainers:
        for _ in range(30):
            trainer.step()
    single, double = (trainer.arrays() for trainer in trainers)
    for name in single:
        if single[name].dtype == np.float32:
            np.testing.assert_allclose(single[name], double[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("objective", ["non-saturating", "minimax"])
def test_gradients_of_both_players_through_the_whole_networks(digits, rng, objective):
    # One simultaneous step at rate 1 without momentum moves each parameter by minus its gradient.
    config = small(objective=objective, momentum=0.0, learning_rate=1.0)

    def fresh():
        return Trainer(config, digits, device("reference"), 2, np.float64)

    start, after = fresh(), fresh()
    after.step()
    before, moved = start.arrays(), after.arrays()
    for player, loss in (("discriminator", 0), ("generator", 1)):
        names = [name for name in before if name.startswith(player) and name.endswith(("/W", "/b"))]
        changed = [before[name].copy() for name in names]

        def function(names=names, changed=changed, loss=loss):
            trainer = fresh()
            trainer.load_arrays({**before, **dict(zip(names, changed, strict=True))})
            trainer.step()
            return float(trainer.sums[loss])

        assert_gradient(function, changed, [before[name] - moved[name] for name in names], rng, relative=1e-5)


def test_repeated_steps_are_the_steps_themselves(backend, digits):
    # What a device keeps of a step and replays makes the same bits as the step run anew each time.
    trainers = [Trainer(small(update="alternating"), digits, device(backend), 6) for _ in range(2)]
    for _ in range(6):
        trainers[0].step()
    trainers[1].device.repeat(trainers[1].step, 4, lambda: False)
    trainers[1].device.repeat(trainers[1].step, 2, lambda: False)
    eager, repeated = (trainer.arrays() for trainer in trainers)
    assert eager["state"][0] == 6
    for name, array in eager.items():
        np.testing.assert_array_equal(repeated[name], array, err_msg=name)


def test_two_trainers_make_the_same_bits(backend, digits):
    config = small(update="alternating")
    trainers = [Trainer(config, digits, device(backend), 20) for _ in range(2)]
    for trainer in trainers:
        for _ in range(20):
            trainer.step()
        # Sampling on the way leaves no trace.
        trainer.generator.sample(30)
    one, two = (trainer.arrays() for trainer in trainers)
    assert all((one[name] == two[name]).all() for name in one)


def test_going_on_from_arrays_is_going_on(backend, digits):
    config = small(update="alternating", d_steps=2)
    whole = Trainer(config, digits, device(backend), 40)
    for _ in range(17):
        whole.step()
    taken_up = Trainer(config, digits, device(backend), 40)
    taken_up.load_arrays(whole.arrays())
    for trainer in (whole, taken_up):
        for _ in range(23):
            trainer.step()
    one, two = whole.arrays(), taken_up.arrays()
    assert all((one[name] == two[name]).all() for name in one)


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_loaded(digits):
    trainer = Trainer(small(), digits, device("reference"), 5)
    before = trainer.arrays()
    other = {name: array + 1 for name, array in before.items()}
    other["discriminator/2/W"] = np.zeros((3, 1), np.float32)
    with pytest.raises(ValueError, match=r"discriminator/2/W is float32 \(3, 1\); it must be float32 \(7, 1\)"):
        trainer.load_arrays(other)
    del other["discriminator/2/W"]
    with pytest.raises(ValueError, match="there is no discriminator/2/W"):
        trainer.load_arrays(other)
    assert all((before[name] == array).all() for name, array in trainer.arrays().items())


def test_a_loss_that_is_not_finite_freezes_the_state(backend, digits):
    trainer = Trainer(small(), digits, device(backend), 9)
    for _ in range(3):
        trainer.step()
    arrays = trainer.arrays()
    arrays["discriminator/2/b"][:] = np.nan
    trainer.load_arrays(arrays)
    for _ in range(2):
        trainer.step()
    state = StepState(trainer.device.download(trainer.state.words))
    assert state.non_finite[0] == 1
    assert state.update[0] == 3
    for name, array in trainer.arrays().items():
        if name not in ("state", "sums"):
            np.testing.assert_array_equal(array, arrays[name])


def test_rates_and_momenta():
    config = preset("mnist")
    rates = learning_rates(config, 3_000_000)
    assert rates[0] == np.float32(0.1)
    assert rates[1] == np.float32(0.1 / 1.000004)
    # Halved after ln 2 / ln 1.000004 = 173,287 updates; the floor, 1e-6, is reached after 2,878,237.
    assert rates[173_287] == pytest.approx(0.05, rel=1e-5)
    assert rates[2_878_200] > np.float32(1e-6)
    # The table ends with the floor, which holds ever after.
    assert len(rates) < 2_878_300
    assert rates[-1] == np.float32(1e-6)
    assert rates[-2] > rates[-1]
    table = momenta(config)
    assert len(table) == 250
    assert (table[0], table[-1]) == (np.float32(0.5), np.float32(0.7))
    assert table[124] == pytest.approx(0.5 + 0.2 * 124 / 249)


def test_no_rate_depends_on_how_long_training_will_be():
    config = preset("mnist")
    assert (learning_rates(config, 10) == learning_rates(config, 1000)[:10]).all()


def test_networks_that_do_not_fit_the_data_are_refused(digits):
    with pytest.raises(ConfigError, match=r"output layer has 784 units and an image of the data 64 pixels"):
        Trainer(small(**{"generator.2.num_units": 784}), digits, device("reference"), 1)
    with pytest.raises(ConfigError, match=r"^generator has no layers"):
        Trainer(small(generator=[]), digits, device("reference"), 1)


def test_data_of_fewer_rows_than_a_step_needs(digits):
    with pytest.raises(DataError, match=r"1197 rows and a step needs 1200: use a smaller --batch-size or --d-steps"):
        Trainer(small(update="alternating", batch_size=400, d_steps=3), digits, device("reference"), 1)
