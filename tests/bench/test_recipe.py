import importlib.util

import numpy as np
import pytest

from bench import recipe
from bench.plain_numpy import PlainTraining
from bench.training_step import _PEERS
from fastgan.kernels.common.devices import device
from fastgan.presets import preset
from fastgan.trainer import Trainer

UPDATES = ("alternating", "simultaneous")


def small(update):
    """The digits' networks, with D's first weights as ``recipe.configuration`` has them."""
    changes = {f"discriminator.{i}.irange": 0.05 for i in range(3)}
    return preset("digits").replace({"update": update, "batch_size": 20, **changes})


@pytest.fixture(scope="module")
def data():
    return recipe.random_images(100, (1, 8, 8))


@pytest.mark.parametrize(("update", "gflop"), [("alternating", 3.57), ("simultaneous", 2.76)])
def test_the_products_of_a_step(update, gflop):
    products = recipe.gemms(recipe.configuration(update))
    assert sum(2 * gemm.m * gemm.n * gemm.k for gemm in products) / 1e9 == pytest.approx(gflop, abs=0.005)


def test_the_configuration_is_the_mnist_recipe():
    config = recipe.configuration("simultaneous", 64, {"discriminator.0.num_pieces": 3})
    mnist = preset("mnist")
    assert (config.update, config.batch_size, config.discriminator[0].num_pieces) == ("simultaneous", 64, 3)
    assert config.generator == mnist.generator
    assert config.discriminator[0].dropout_keep == mnist.discriminator[0].dropout_keep


def test_pieces_move_out_and_back():
    W = np.arange(24, dtype=np.float32).reshape(2, 12)
    outside = recipe.pieces_outside(W, 3)
    assert outside[0].tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    np.testing.assert_array_equal(recipe.pieces_inside(outside, 3), W)


@pytest.mark.parametrize("update", UPDATES)
def test_every_backend_makes_the_plain_step(update, backend, data):
    recipe.check_fastgan(small(update), data, backend)()


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("peer", _PEERS, ids=lambda peer: peer.name)
def test_every_peer_makes_the_same_step(peer, update, data):
    if importlib.util.find_spec(peer.package) is None:
        pytest.skip(f"{peer.package} is not installed")
    if peer.compiles:
        pytest.skip("compiling takes longer than these tests may; the comparison itself verifies it")
    config = small(update)
    training = peer.make(config, Trainer(config, data, device("reference"), 2))
    found = recipe.outcome_of_peer(config, data, training)
    recipe.check_same(found, recipe.outcome_of_fastgan(config, data, "reference"), peer.tolerance)
    training.step()
    assert all(np.isfinite(W).all() for W in training.weights())


def test_a_mask_that_is_forgotten_does_not_pass(data):
    config = small("alternating")
    expected = recipe.outcome_of_fastgan(config, data, "reference")

    class Forgetful(PlainTraining):
        def step_with(self, draws):
            masks = [[np.ones_like(mask) for mask in draws.masks[0]], draws.masks[1]]
            return super().step_with(draws._replace(masks=masks))

    found = recipe.outcome_of_peer(config, data, Forgetful(config, Trainer(config, data, device("reference"), 2)))
    same_losses = found._replace(losses=expected.losses)
    with pytest.raises(AssertionError, match=r"the change of weights \d .* is off by"):
        recipe.check_same(same_losses, expected, recipe.BFLOAT16)


def test_a_nan_does_not_pass(data):
    expected = recipe.outcome_of_fastgan(small("alternating"), data, "reference")
    changes = [change.copy() for change in expected.changes]
    changes[-1][0] = np.nan
    with pytest.raises(AssertionError, match="off by nan"):
        recipe.check_same(expected._replace(changes=changes), expected, recipe.BFLOAT16)
