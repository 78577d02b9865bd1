import numpy as np
import pytest

from fastgan.kernels import sgd
from fastgan.kernels.gan_loss import OBJECTIVES, gan_loss
from tests.kernels.differences import assert_gradient


def outputs(num_rows, num_real, dtype=np.float32):
    return np.empty(num_rows, dtype), np.empty(num_rows - num_real, dtype)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_values_are_the_papers(backend, rng, objective):
    a = rng.normal(scale=3, size=14)
    d, g = outputs(14, 6, np.float64)
    values = gan_loss(a, 6, objective, out_discriminator=d, out_generator=g, backend=backend)
    D_x, D_G_z = 1 / (1 + np.exp(-a[:6])), 1 / (1 + np.exp(-a[6:]))
    assert values[0] == pytest.approx(-0.5 * (np.log(D_x).mean() + np.log(1 - D_G_z).mean()), rel=1e-12)
    expected = np.log(1 - D_G_z).mean() if objective == "minimax" else -np.log(D_G_z).mean()
    assert values[1] == pytest.approx(expected, rel=1e-12)
    assert values[2:].tolist() == pytest.approx([D_x.mean(), D_G_z.mean()], rel=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_against_central_differences(backend, rng, objective):
    a = rng.normal(scale=3, size=14)
    d, g = outputs(14, 6, np.float64)

    def losses():
        return gan_loss(a, 6, objective, out_discriminator=d.copy(), out_generator=g.copy(), backend=backend)

    losses_now = gan_loss(a, 6, objective, out_discriminator=d, out_generator=g, backend=backend)
    assert np.isfinite(losses_now).all()
    assert_gradient(lambda: float(losses()[0]), [a], [d], rng)
    assert_gradient(lambda: float(losses()[1]), [a[6:]], [g], rng)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_logits_of_any_size_give_finite_and_right_results(backend, objective):
    a = np.array([-1e30, -1e4, -90.0, 0.0, 90.0, 1e4, 1e30] * 2, np.float32)
    d, g = outputs(14, 7)
    values = gan_loss(a, 7, objective, out_discriminator=d, out_generator=g, backend=backend)
    assert np.isfinite(values).all()
    assert np.isfinite(d).all()
    # D is sure and wrong about the first real and the last generated row: the gradient is the whole ½ / B.
    np.testing.assert_allclose([d[0], d[13]], [-0.5 / 7, 0.5 / 7], rtol=1e-6)
    np.testing.assert_allclose([d[6], d[7]], [0, 0], atol=1e-30)
    # Section 3: where D rejects a sample with confidence, minimax gives G nothing and the other objective everything.
    np.testing.assert_allclose(g[0], 0 if objective == "minimax" else -1 / 7, rtol=1e-6, atol=1e-30)


def test_the_generators_loss_alone(backend, rng):
    a = rng.normal(size=5).astype(np.float32)
    _, g = outputs(5, 0)
    values = gan_loss(a, 0, out_generator=g, backend=backend)
    assert values[[0, 2, 3]].tolist() == [0, 0, 0]
    np.testing.assert_allclose(g, -1 / (1 + np.exp(a)) / 5, rtol=1e-6)


def test_sums_add_up_and_the_flag_is_raised_once_and_for_all(backend):
    sums, flag = np.zeros(4), np.zeros(1, np.int64)
    d, g = outputs(4, 2)
    shared = {"out_discriminator": d, "out_generator": g, "sums": sums, "non_finite": flag, "backend": backend}
    zeros = np.zeros(4, np.float32)
    first = gan_loss(zeros, 2, **shared)
    gan_loss(zeros, 2, **shared)
    assert sums.tolist() == (2 * first).tolist()
    assert flag[0] == 0
    gan_loss(np.array([0, np.nan, 0, 0], np.float32), 2, **shared)
    assert flag[0] == 1
    gan_loss(zeros, 2, **shared)
    assert flag[0] == 1
    # An update before it, on a GPU, had met a velocity that is not finite.
    flag[0] = sgd.MARK
    gan_loss(zeros, 2, **shared)
    assert flag[0] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "wasserstein"}, "^objective is 'wasserstein'; it must be one of non-saturating, minimax"),
        ({"num_real": 4}, "^num_real is 4 of 4 logits"),
        ({"num_real": 0}, "^num_real is 0; D's loss needs real rows"),
        ({"out_discriminator": None, "out_generator": None}, "both None"),
        ({"out_generator": np.zeros(3, np.float32)}, r"^out_generator has shape \(3,\); it must be \(2\)"),
        ({"logits": np.zeros((4, 1), np.float32)}, r"^logits has shape \(4, 1\); it must be \(any\)"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    arguments = {"logits": np.zeros(4, np.float32), "num_real": 2, "out_discriminator": np.zeros(4, np.float32)}
    with pytest.raises(ValueError, match=message):
        gan_loss(**{**arguments, **changes})
