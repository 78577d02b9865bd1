import numpy as np
import pytest

from fastgan import datasets, preset
from fastgan.kernels import noise
from fastgan.kernels.common.devices import device
from fastgan.kernels.common.philox import Purpose, stream_id
from fastgan.networks import build_discriminator, build_generator


@pytest.fixture
def networks():
    config = preset("mnist")
    means = np.linspace(0, 1, 784)
    return build_generator(config, 784, means, device()), build_discriminator(config, (1, 28, 28), device())


def test_the_mnist_presets_networks_are_the_recipes(networks):
    generator, discriminator = networks
    assert [layer.W.shape for layer in generator.layers] == [(100, 1200), (1200, 1200), (1200, 784)]
    assert [layer.W.shape for layer in discriminator.layers] == [(784, 1200), (240, 1200), (240, 1)]
    config = preset("mnist")
    assert [layer.activation for layer in config.generator] == ["relu", "relu", "sigmoid"]
    assert [layer.dropout_keep for layer in config.discriminator] == [0.8, 0.5, 0.5]
    assert (config.batch_size, config.learning_rate, config.momentum, config.final_momentum) == (100, 0.1, 0.5, 0.7)
    assert (config.learning_rate_decay, config.min_learning_rate, config.momentum_epochs) == (1.000004, 1e-6, 250)
    assert (config.noise, config.update, config.epochs) == ("uniform", "simultaneous", 100)


def test_first_weights_fill_their_range_and_velocities_are_zero(networks):
    for network, irange, purpose in (
        (networks[0], 0.05, Purpose.GENERATOR_WEIGHTS),
        (networks[1], 0.005, Purpose.DISCRIMINATOR_WEIGHTS),
    ):
        for i, layer in enumerate(network.layers):
            assert np.abs(layer.W).max() <= np.float32(irange)
            if layer.W.size > 1000:
                assert np.abs(layer.W).max() > 0.99 * irange
                assert layer.W.std() == pytest.approx(irange / 3**0.5, rel=0.02)
            drawn = noise.uniform(
                np.empty_like(layer.W), low=-irange, high=irange, seed=0, stream=stream_id(purpose, i)
            )
            assert (drawn == layer.W).all()
            assert not layer.vW.any()
            assert not layer.vb.any()


def test_biases_are_zero_but_the_outputs_are_the_marginals_logits(networks):
    generator, discriminator = networks
    for layer in (*generator.layers[:-1], *discriminator.layers):
        assert not layer.b.any()
    means = np.clip(np.linspace(0, 1, 784), 1e-7, 1 - 1e-7)
    np.testing.assert_allclose(generator.layers[-1].b, np.log(means / (1 - means)), rtol=1e-6)


def test_a_fixed_bias():
    config = preset("digits").replace({"generator.1.bias": -2.0, "generator.1.activation": "sigmoid"})
    assert (build_generator(config, 64, np.full(64, 0.5), device()).layers[1].b == -2).all()


def test_samples_are_a_function_of_the_seed(networks):
    generator, _ = networks
    one, same, other = generator.sample(5, seed=1), generator.sample(5, seed=1), generator.sample(5, seed=2)
    assert one.dtype == np.float32
    assert one.shape == (5, 784)
    assert (one == same).all()
    assert (one != other).any()


def test_more_samples_begin_with_the_same_ones(networks):
    generator, _ = networks
    # Over a batch's end at 1,000 rows; the products may round differently with another number of rows.
    np.testing.assert_allclose(generator.sample(1003, seed=1)[:7], generator.sample(7, seed=1), rtol=1e-5, atol=1e-6)
    assert (generator.sample_noise(1003, 1)[1000:] == generator.sample_noise(3, 1, row_offset=1000)).all()


def test_samples_are_what_their_noise_generates(networks):
    generator, _ = networks
    assert (generator.generate(generator.sample_noise(9, 3)) == generator.sample(9, 3)).all()


@pytest.mark.parametrize("num", [0, -1])
def test_no_samples_at_all_are_refused(networks, num):
    with pytest.raises(ValueError, match=r"^num is"):
        networks[0].sample(num)


def test_a_new_generator_draws_the_mean_image_and_a_new_discriminator_does_not_know():
    digits = datasets.load("digits")
    config = preset("digits")
    means = digits.pixel_means()
    generator = build_generator(config, 64, means, device())
    np.testing.assert_allclose(generator.sample(500).mean(0), means, atol=0.05)
    discriminator = build_discriminator(config, (1, 8, 8), device())
    probabilities = discriminator.probability(digits.splits["train"].as_float32(slice(0, 50)))
    assert probabilities.shape == (50,)
    np.testing.assert_allclose(probabilities, 0.5, atol=0.1)
