import numpy as np
import pytest
from scipy.special import logsumexp

from fastgan.kernels import parzen


def written_out(queries, samples, sigmas):
    queries, samples = queries.astype(np.float64), samples.astype(np.float64)
    distances = ((queries[:, None] - samples[None]) ** 2).sum(-1)
    D = queries.shape[1]
    return np.array(
        [
            logsumexp(-distances / (2 * s**2), axis=1) - np.log(len(samples)) - D * np.log(s * np.sqrt(2 * np.pi))
            for s in sigmas
        ]
    )


# A tile of queries has 64 rows and one of samples 4096: one less, as many and one more.
@pytest.mark.parametrize(
    ("M", "N", "D"), [(1, 1, 1), (63, 10, 5), (64, 300, 3), (65, 4095, 2), (3, 4097, 7), (2, 9000, 1)]
)
def test_the_formula(backend, rng, M, N, D):
    queries, samples = rng.random((M, D)).astype(np.float32), rng.random((N, D)).astype(np.float32)
    sigmas = np.geomspace(0.05, 2, 4)
    found = parzen.log_density(queries, samples, sigmas, backend=backend)
    assert found.shape == (4, M)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, written_out(queries, samples, sigmas), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1e3])
def test_values_of_any_size_stay_finite_and_right(backend, rng, scale, sigma):
    queries, samples = rng.random((5, 4)) * scale, rng.random((6, 4)) * scale
    samples[2] = queries[1]
    found = parzen.log_density(queries, samples, np.array([sigma]), backend=backend)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, written_out(queries, samples, [sigma]), rtol=1e-10)


def test_identical_samples_are_one(backend):
    queries = np.array([[0.2, 0.4]])
    one = parzen.log_density(queries, np.ones((1, 2)), np.array([0.3]), backend=backend)
    many = parzen.log_density(queries, np.ones((5000, 2)), np.array([0.3]), backend=backend)
    np.testing.assert_allclose(many, one, rtol=1e-12)


def test_each_sigma_is_what_it_is_alone(backend, rng):
    queries, samples, sigmas = rng.random((9, 3)), rng.random((20, 3)), np.array([0.1, 0.5, 1.0])
    together = parzen.log_density(queries, samples, sigmas, backend=backend)
    for s, sigma in enumerate(sigmas):
        alone = parzen.log_density(queries, samples, np.array([sigma]), backend=backend)
        np.testing.assert_allclose(together[s], alone[0], rtol=1e-12)


def test_a_density_integrates_to_one(backend, rng):
    grid = np.linspace(-5, 6, 2001)[:, None]
    density = np.exp(parzen.log_density(grid, rng.random((7, 1)), np.array([0.4]), backend=backend)[0])
    assert np.trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=1e-6)


def test_progress_counts_every_query(backend, rng):
    counted = []
    parzen.log_density(
        rng.random((200, 2)), rng.random((5, 2)), np.array([1.0]), progress=counted.append, backend=backend
    )
    assert sum(counted) == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples_ND": np.zeros((0, 2))}, "^samples has no rows"),
        ({"samples_ND": np.zeros((4, 3))}, r"^samples has shape \(4, 3\); it must be \(any, 2\)"),
        ({"sigmas_S": np.zeros(1)}, r"^sigmas is \[0.0\]; it must hold finite numbers > 0"),
        ({"sigmas_S": np.array([1.0, np.nan])}, "^sigmas is"),
        ({"sigmas_S": np.zeros(0)}, "^sigmas is"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    arguments = {"queries_MD": np.zeros((3, 2)), "samples_ND": np.zeros((4, 2)), "sigmas_S": np.ones(1)}
    with pytest.raises(ValueError, match=message):
        parzen.log_density(**{**arguments, **changes})
