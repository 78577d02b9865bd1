"""The convolutional CIFAR-10 model as a whole, at the recipe's widths and at reduced ones."""

import numpy as np
import pytest

import fastgan
from fastgan import preset
from fastgan.datasets import Dataset
from fastgan.datasets.dataset import Split
from fastgan.errors import BackendError, ConfigError
from fastgan.kernels.common import backends
from fastgan.kernels.common.devices import device
from fastgan.layers import output_shape, parameter_shapes
from fastgan.trainer import Trainer
from tests.kernels.differences import assert_gradient
from tests.plain import PlainTraining

SHAPE = (3, 8, 8)


@pytest.fixture
def backend(backend):
    """Those that have the model's operations."""
    if backend in backends.LACKING:
        pytest.skip(f"{backend} has no {', '.join(backends.LACKING[backend])}")
    return backend


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(5).normal(size=(90, 192)).astype(np.float32)
    split = Split(pixels, 1.0, None)
    return Dataset("made-up", SHAPE, {"train": split, "valid": split, "test": split}, "made up", {}, 10)


def small(**changes):
    """Give the preset for images of 3 x 8 x 8 at small widths, with weights so large that every part of it matters."""
    sizes = {
        "generator.0.num_units": 12, "generator.1.num_units": 45,
        "generator.2.input_channels": 5, "generator.2.kernel_size": 4, "generator.2.stride": 2,
        "discriminator.0.num_channels": 3, "discriminator.0.kernel_size": 4, "discriminator.0.pad": 2,
        "discriminator.0.pool_size": 3,
        "discriminator.1.num_channels": 4, "discriminator.1.kernel_size": 3, "discriminator.1.pad": 1,
        "discriminator.1.pool_size": 2, "discriminator.1.num_pieces": 3,
        "discriminator.2.num_channels": 5, "discriminator.2.kernel_size": 2, "discriminator.2.pad": 1,
        "discriminator.3.num_units": 6, "discriminator.3.num_pieces": 3,
        "noise_dim": 7, "batch_size": 10, "learning_rate": 0.1,
    }  # fmt: skip
    iranges = {
        f"{network}.{i}.irange": 0.3 for network, n in (("generator", 3), ("discriminator", 5)) for i in range(n)
    }
    return preset("cifar10-conv").replace({**sizes, **iranges, **changes})


def test_the_presets_networks_are_the_recipes():
    config = preset("cifar10-conv")
    shape = (config.noise_dim,)
    generator = []
    for layer in config.generator:
        generator.append((parameter_shapes(layer, shape), output_shape(layer, shape)))
        shape = generator[-1][1]
    assert generator == [
        (((100, 8000), (8000,)), (8000,)),
        (((8000, 8000), (8000,)), (8000,)),
        (((80, 3, 5, 5), (3, 32, 32)), (3, 32, 32)),
    ]
    discriminator = []
    for layer in config.discriminator:
        discriminator.append((parameter_shapes(layer, shape), output_shape(layer, shape)))
        shape = discriminator[-1][1]
    assert discriminator == [
        (((3, 8, 8, 64), (64,)), (32, 16, 16)),
        (((32, 8, 8, 64), (64,)), (32, 7, 7)),
        (((32, 5, 5, 384), (384,)), (192, 5, 5)),
        (((4800, 2500), (2500,)), (500,)),
        (((500, 1), (1,)), (1,)),
    ]
    assert [layer.activation for layer in config.generator[:2]] == ["relu", "sigmoid"]
    assert [layer.irange for layer in (*config.generator, *config.discriminator)] == [0.05] * 3 + [0.005] * 5
    assert [layer.dropout_keep for layer in config.discriminator] == [0.8, 0.5, 0.5, 0.5, 0.5]
    assert all(layer.max_col_norm is None for layer in (*config.generator[:2], *config.discriminator))
    assert all(layer.bias == 0 for layer in (*config.generator, *config.discriminator))
    assert (config.dataset, config.noise, config.noise_dim) == ("cifar10", "normal", 100)
    assert (config.batch_size, config.learning_rate, config.update) == (128, 0.004, "simultaneous")
    assert (config.momentum, config.final_momentum, config.momentum_epochs) == (0.5, 0.7, 250)


CONFIGS = {
    "simultaneous": {},
    "alternating, k = 2, minimax": {"update": "alternating", "d_steps": 2, "objective": "minimax"},
    "column norms, no dropout": {
        "discriminator.0.max_col_norm": 0.5, "discriminator.1.max_col_norm": 0.9,
        **{f"discriminator.{i}.dropout_keep": 1.0 for i in range(5)},
    },
    "no pooling, biases": {
        "discriminator.2.pool_size": 1, "discriminator.2.pool_stride": 1, "discriminator.0.bias": 0.3,
        "generator.2.bias": -0.2,
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS.keys())
def test_steps_are_those_of_the_plain_implementation(backend, images, changes):
    if backend in backends.ON_A_GPU:
        pytest.skip(f"{backend} computes in float32: its steps are held against float64's below")
    config = small(**changes)
    num_steps = 90 // (config.batch_size * config.d_steps) + 2
    trainer = Trainer(config, images, device(backend), num_steps, np.float64)
    plain = PlainTraining(
        config, images,
        *[
            [[np.array(getattr(layer, name)) for name in layer.PARAMETERS] for layer in network.layers]
            for network in (trainer.generator, trainer.discriminator)
        ],
    )  # fmt: skip
    for _ in range(num_steps):
        trainer.step()
        plain.step()
    np.testing.assert_allclose(trainer.sums, plain.sums, rtol=1e-4)
    for network, layers in ((trainer.generator, plain.G), (trainer.discriminator, plain.D)):
        for i, (layer, expected) in enumerate(zip(network.layers, layers, strict=True)):
            for name, wanted in zip(layer.PARAMETERS, expected, strict=True):
                found = trainer.device.download(getattr(layer, name))
                assert np.isfinite(found).all()
                # As close as in test_trainer.py: rates and masks' scales are rounded to float32 on one side.
                np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-6, err_msg=f"{i}/{name}")


def test_float32_steps_stay_close_to_float64(backend, images):
    trainers = [
        Trainer(small(learning_rate=0.02), images, device(name), 6, dtype)
        for name, dtype in ((backend, np.float32), ("reference", np.float64))
    ]
    for trainer in trainers:
        for _ in range(6):
            trainer.step()
    single, double = (trainer.arrays() for trainer in trainers)
    for name in single:
        if single[name].dtype == np.float32:
            np.testing.assert_allclose(single[name], double[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("objective", ["non-saturating", "minimax"])
def test_gradients_of_both_players_through_the_whole_networks(images, rng, objective):
    # One simultaneous step at rate 1 without momentum moves each parameter by minus its gradient.
    config = small(objective=objective, momentum=0.0, learning_rate=1.0, batch_size=3)

    def fresh():
        return Trainer(config, images, device("reference"), 2, np.float64)

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


def test_two_trainers_make_the_same_bits(backend, images):
    trainers = [Trainer(small(update="alternating"), images, device(backend), 4) for _ in range(2)]
    for trainer in trainers:
        for _ in range(4):
            trainer.step()
        # Sampling on the way leaves no trace.
        trainer.generator.sample(30)
    one, two = (trainer.arrays() for trainer in trainers)
    assert all((one[name] == two[name]).all() for name in one)


def test_a_run_is_trained_saved_read_and_sampled(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, size=(60, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "colours.npy", pixels)
    config = small(dataset=str(tmp_path / "colours.npy"), steps=4, backend="cpu", threads=1)
    run = fastgan.train(config, runs_dir=tmp_path / "runs")
    again = fastgan.load_run(run.path)
    assert again.config.generator == config.generator
    assert again.config.discriminator == config.discriminator
    samples = again.generator.sample(5)
    assert samples.shape == (5, 192)
    assert (samples == run.generator.sample(5)).all()
    assert again.discriminator.probability(samples).shape == (5,)


def test_a_backend_without_the_operations_refuses_at_once(images, monkeypatch):
    monkeypatch.setitem(backends.LACKING, "reference", ("conv_transpose", "max_pool"))
    backends._implementation.cache_clear()
    with pytest.raises(BackendError, match=r"^The backend reference has no conv_transpose; use --backend cpu$"):
        Trainer(small(), images, device("reference"), 1)
    # Of numba-cuda whether or not it can run here.
    with pytest.raises(BackendError, match=r"^The backend numba-cuda has no conv_maxout; use --backend cupy$"):
        backends.require_operations("numba-cuda", "conv_maxout")
    backends._implementation.cache_clear()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"generator.2.stride": 3},
            "The generator's output layer has 3 x 10 x 10 units and an image of the data 3 x 8",
        ),
        ({"generator.1.num_units": 44}, "of 5 input channels has 44 inputs, which are not so many square images"),
        ({"discriminator.0.kernel_size": 13}, "A convolution does not fit its input: H is 8, with padding 12"),
        ({"discriminator.2.pool_size": 4}, "Windows of 4 x 4 do not fit a convolution: H is 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(images, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Trainer(small(**changes), images, device("reference"), 1)


CONV, LAST = {"layer": "conv-maxout"}, {"layer": "linear", "activation": "sigmoid"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"discriminator.0.pad": 4}, r"^discriminator.0.pad is 4; it must be 0 to 3, less than the kernel"),
        (
            {"discriminator.0.pool_stride": 4},
            r"^discriminator.0.pool_stride is 4; it must be 1 to 3, the window's size",
        ),
        ({"discriminator.0.pool_size": 17}, r"^discriminator.0.pool_size is 17; it must be 1 to 16"),
        ({"discriminator.0.num_pieces": 0}, r"^discriminator.0.num_pieces is 0; it must be 1 to 255"),
        ({"generator.2.stride": 0}, r"^generator.2.stride is 0; it must be 1 or more"),
        ({"generator": [CONV, LAST]}, r"^generator.0 is a convolution of maxout units; only the discriminator"),
        (
            {"generator": [{"layer": "conv-transpose"}, LAST]},
            r"^generator.0 is a transposed convolution; only the last",
        ),
        ({"discriminator": [{"layer": "conv-transpose"}, LAST]}, r"^discriminator.0 is a transposed convolution; only"),
        (
            {"discriminator": [{"layer": "maxout"}, CONV, LAST]},
            r"^discriminator.1 is a convolution and the layer before",
        ),
        ({"discriminator": [CONV]}, r"^The discriminator's last layer must be linear"),
        ({"generator.2.pad": 1}, r"^There is no field 'generator.2.pad'; the nearest is "),
    ],
)
def test_configurations_that_make_no_sense_are_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        small(**changes)
