"""What the paper proves of the game, held against the project's own losses, layers and updates."""

import numpy as np
import pytest
from scipy.stats import norm

from fastgan import theory
from fastgan.config import LinearConfig, MaxoutConfig
from fastgan.kernels.common.devices import device
from fastgan.kernels.gan_loss import gan_loss
from fastgan.layers import Update, make
from fastgan.networks import Discriminator

# Outcomes by how many rows of a batch have them: some that both make, some that one makes alone.
DATA_COUNTS = np.array([8, 6, 4, 2, 0, 0])
GENERATED_COUNTS = np.array([2, 4, 4, 4, 6, 0])


def discriminator(num_inputs, *configs, irange=0.0, rng=None):
    compute = device("cpu")
    workspace, layers, sizes = compute.workspace(), [], num_inputs
    for config in (*configs, LinearConfig(num_units=1)):
        columns = config.num_units * getattr(config, "num_pieces", 1)
        W = np.zeros((sizes, columns)) if rng is None else rng.uniform(-irange, irange, (sizes, columns))
        b = np.zeros(columns) if rng is None else rng.uniform(-irange, irange, columns)
        layers.append(make(config, (1, 1, sizes), W, b, compute, workspace))
        sizes = config.num_units
    return Discriminator(layers, compute, np.float64)


def train_to_optimum(network, x, num_real, *, steps, rate, momentum=0.0):
    """Descend D's loss over one fixed batch, which is its expectation; give V = -2 · loss."""
    joined, ones, scale = network.new_pass(x), np.ones((len(x), 1)), np.empty(len(x))
    for _ in range(steps):
        sums = np.zeros(4)
        gan_loss(joined.forward()[:, 0], num_real, "non-saturating", out_discriminator=scale, sums=sums, backend="cpu")
        joined.backward(ones, update=Update(rate, momentum), row_scale=scale)
    return -2 * sums[0]


def test_divergence_and_criterion():
    rng = np.random.default_rng(1)
    for _ in range(20):
        p, q = rng.dirichlet(np.full(7, 0.5), 2)
        jsd = theory.jensen_shannon(p, q)
        assert 0 < jsd < np.log(2)
        assert theory.criterion(p, q) == pytest.approx(theory.LEAST_CRITERION + 2 * jsd, abs=1e-12)
        # No other D reaches as much.
        D = theory.optimal_discriminator(p, q)
        assert all(theory.value(p, q, np.clip(D + step, 0, 1)) < theory.criterion(p, q) for step in (-0.01, 0.01))
    assert theory.criterion(p, p) == pytest.approx(-np.log(4))
    assert theory.criterion([1, 0], [0, 1]) == 0
    assert theory.jensen_shannon([1, 0], [0, 1]) == pytest.approx(np.log(2))


def test_D_trained_on_outcomes_meets_D_star_and_the_criterion():
    # Both of 20 rows, one-hot: a unit a logit is all that D can be.
    rows = np.concatenate([np.repeat(np.eye(6), counts, axis=0) for counts in (DATA_COUNTS, GENERATED_COUNTS)])
    network = discriminator(6)
    V = train_to_optimum(network, rows, 20, steps=3000, rate=5.0, momentum=0.9)
    p_data, p_g = DATA_COUNTS / 20, GENERATED_COUNTS / 20
    optimal = theory.optimal_discriminator(p_data, p_g)
    np.testing.assert_allclose(network.probability(np.eye(6))[:5], optimal[:5], atol=2e-3)
    assert pytest.approx(theory.LEAST_CRITERION + 2 * theory.jensen_shannon(p_data, p_g), abs=2e-3) == V
    # From below, as D* is the best there is.
    assert theory.criterion(p_data, p_g) > V


def test_D_trained_on_the_line_meets_D_star_and_the_criterion():
    # Quantiles in place of draws: an expectation over them is the distribution's.
    quantiles = (np.arange(400) + 0.5) / 400
    data, generated = norm(0.5, 0.8), norm(-0.3, 0.6)
    rows = np.concatenate([data.ppf(quantiles), generated.ppf(quantiles)])[:, None]
    network = discriminator(
        1, MaxoutConfig(num_units=24, num_pieces=3), irange=0.7, rng=np.random.default_rng(2)
    )  # fmt: skip
    V = train_to_optimum(network, rows, 400, steps=4000, rate=0.05, momentum=0.9)
    x = np.linspace(-6, 6, 6001)
    weights = x[1] - x[0]
    wanted = theory.LEAST_CRITERION + 2 * theory.jensen_shannon(data.pdf(x), generated.pdf(x), weights)
    assert pytest.approx(wanted, abs=0.01) == V
    likely = (data.pdf(x) > 0.1) | (generated.pdf(x) > 0.1)
    optimal = theory.optimal_discriminator(data.pdf(x), generated.pdf(x))
    assert np.abs(network.probability(x[:, None]) - optimal)[likely].max() < 0.05


def test_proposition_2_small_steps_on_p_g_under_the_optimal_D_converge_to_p_data():
    p_data = np.array([0.45, 0.3, 0.15, 0.1, 0.0])
    logits = np.array([-2.0, 0.0, 1.0, 2.0, 1.0])
    criteria = []
    for _ in range(4000):
        p_g = np.exp(logits) / np.exp(logits).sum()
        D = theory.optimal_discriminator(p_data, p_g)
        criteria.append(theory.criterion(p_data, p_g))
        # Of E_g log(1 - D(x)), D as it is, by way of the softmax that keeps p_g a distribution.
        with np.errstate(divide="ignore"):
            of_p = np.log(1 - D)
        of_logits = p_g * (of_p - (p_g * of_p).sum())
        logits -= 0.5 * of_logits
    assert np.abs(p_g - p_data).max() < 2e-3
    assert criteria[-1] == pytest.approx(theory.LEAST_CRITERION, abs=2e-3)
    # Convex in p_g, and the steps are small: it never rises.
    assert (np.diff(criteria) < 1e-9).all()
    assert criteria[0] > -0.9


@pytest.mark.parametrize("logit", [-2.0, -6.0, -12.0, -30.0])
def test_minimax_saturates_where_D_rejects_samples_and_the_other_objective_does_not(backend, logit):
    gradients = {}
    for objective in ("minimax", "non-saturating"):
        scale = np.empty(1)
        gan_loss(np.array([logit]), 0, objective, out_generator=scale, sums=np.zeros(4), backend=backend)
        gradients[objective] = scale[0]
    D = 1 / (1 + np.exp(-logit))
    # d/da log(1 - D) = -D and d/da -log D = -(1 - D), of the logit a: the same direction, and so the same fixed point.
    assert gradients["minimax"] == pytest.approx(-D, rel=1e-6)
    assert gradients["non-saturating"] == pytest.approx(-(1 - D), rel=1e-6)
    assert abs(gradients["minimax"]) < 1.01 * np.exp(logit)
    assert abs(gradients["non-saturating"]) > 0.85
