import json

import numpy as np
import pytest
from scipy.special import logsumexp

import fastgan
from fastgan import datasets
from fastgan.datasets import Dataset, Split
from fastgan.errors import BackendError, DataError
from fastgan.scoring import check_samples, parzen, read_samples, sigma_grid

D = 6


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    splits = {
        "train": Split(rng.integers(0, 256, (80, D), dtype=np.uint8), 255.0, None),
        "valid": Split(rng.integers(0, 256, (70, D), dtype=np.uint8), 255.0, None),
        "test": Split(rng.integers(0, 256, (90, D), dtype=np.uint8), 255.0, None),
    }
    return Dataset("small", (1, 2, 3), splits, "made", {}, num_validation=40)


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(1).random((50, D), dtype=np.float32)


def direct(queries, samples, sigma):
    """The definition, in float64 and by SciPy: one number a query."""
    differences = queries.astype(np.float64)[:, None, :] - samples.astype(np.float64)[None]
    exponents = -0.5 * (differences**2).sum(axis=2) / sigma**2
    return logsumexp(exponents, axis=1, b=1 / len(samples)) - D * np.log(sigma * np.sqrt(2 * np.pi))


def test_the_score_is_that_of_the_definition(small, samples):
    score = parzen(samples, small, sigma=0.3)
    wanted = direct(small.splits["test"].as_float32(), samples, 0.3)
    assert score.log_likelihood == pytest.approx(wanted.mean(), rel=1e-10)
    assert score.standard_error == pytest.approx(wanted.std(ddof=0) / np.sqrt(90), rel=1e-10)
    assert (score.dataset, score.split, score.num_samples, score.sigma) == ("small", "test", 50, 0.3)
    assert score.sigma_grid is None
    assert score.validation_log_likelihood is None


def test_sigma_is_the_best_on_the_leading_validation_rows(small, samples):
    score = parzen(samples, small)
    queries = small.splits["valid"].as_float32()[:40]
    wanted = [direct(queries, samples, sigma).mean() for sigma in sigma_grid()]
    assert score.sigma_grid == tuple(sigma_grid())
    np.testing.assert_allclose(score.validation_log_likelihood, wanted, rtol=1e-10)
    assert score.sigma == sigma_grid()[np.argmax(wanted)]
    assert score.log_likelihood == parzen(samples, small, sigma=score.sigma).log_likelihood
    # The rows after the leading ones would say something else.
    everything = direct(small.splits["valid"].as_float32(), samples, score.sigma).mean()
    assert not np.isclose(everything, max(wanted))


def test_sigma_is_chosen_from_the_grid_that_is_given(small, samples):
    sigmas = np.array([0.7, 0.2, 0.4])
    score = parzen(samples, small, sigmas=sigmas)
    assert score.sigma_grid == (0.7, 0.2, 0.4)
    assert score.sigma == sigmas[np.argmax(score.validation_log_likelihood)]


@pytest.mark.parametrize("sigma", [1e-100, 1e100])
def test_the_narrowest_and_the_widest_window_give_numbers(small, sigma):
    # Rows of the data themselves, so that one distance of each is zero.
    samples = small.splits["test"].as_float32()
    score = parzen(samples, small, sigma=sigma)
    wanted = direct(samples, samples, sigma).mean()
    assert np.isfinite(score.log_likelihood)
    assert score.log_likelihood == pytest.approx(wanted, rel=1e-10)


def test_any_split_can_be_scored(small, samples):
    score = parzen(samples, small, sigma=0.3, split="train")
    wanted = direct(small.splits["train"].as_float32(), samples, 0.3).mean()
    assert score.split == "train"
    assert score.log_likelihood == pytest.approx(wanted, rel=1e-10)
    with pytest.raises(DataError, match="small has no split 'unlabelled'; it has train, valid, test"):
        parzen(samples, small, split="unlabelled")


def test_a_narrow_window_far_away_stays_finite(small):
    score = parzen(np.full((3, D), 100.0, np.float32), small, sigma=0.01)
    wanted = direct(small.splits["test"].as_float32(), np.full((3, D), 100.0, np.float32), 0.01)
    assert np.isfinite(score.log_likelihood)
    assert score.log_likelihood == pytest.approx(wanted.mean(), rel=1e-10)


def test_the_json_object_has_exactly_these_fields(small, samples):
    for score in (parzen(samples, small), parzen(samples, small, sigma=0.2)):
        fields = json.loads(json.dumps(score.to_json()))
        assert list(fields) == [
            "dataset",
            "split",
            "num_samples",
            "sigma",
            "sigma_grid",
            "validation_log_likelihood",
            "log_likelihood",
            "standard_error",
            "backend",
            "seconds",
        ]
        assert fields["backend"] == "cpu"
        assert fields["seconds"] > 0


def test_samples_of_any_float_and_shape_are_scored_alike(small, samples):
    wanted = parzen(samples, small, sigma=0.3).log_likelihood
    assert parzen(samples.astype(np.float64), small, sigma=0.3).log_likelihood == wanted
    assert parzen(samples.reshape(50, 2, 3), small, sigma=0.3).log_likelihood == wanted
    assert parzen(np.asfortranarray(samples), small, sigma=0.3).log_likelihood == wanted
    half = samples.astype(np.float16)
    assert (
        parzen(half, small, sigma=0.3).log_likelihood
        == parzen(half.astype(np.float32), small, sigma=0.3).log_likelihood
    )
    assert parzen(samples, small, sigma=0.3).num_samples == 50


def test_float64_samples_keep_their_digits(small, samples):
    wide = samples.astype(np.float64) + 1e-9
    wanted = direct(small.splits["test"].as_float32(), wide, 0.1).mean()
    assert parzen(wide, small, sigma=0.1).log_likelihood == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (np.zeros((5, 7), np.float32), r"A sample has 7 values and an image of small has 6 pixels"),
        (np.zeros((5, 2, 2), np.float32), r"A sample has 4 values"),
        (np.zeros((1, D), np.float32), r"shape \(1, 6\); at least two rows"),
        (np.zeros(D, np.float32), r"shape \(6,\); at least two rows"),
        (np.float32(1), r"at least two rows"),
        (np.zeros((0, D), np.float32), r"at least two rows"),
        (np.zeros((5, D), np.uint8), r"dtype uint8; they must be floats"),
        (np.zeros((5, D), np.complex64), r"dtype complex64"),
        (np.array([["a"] * D] * 2), r"they must be floats"),
        (np.array([[object()] * D] * 2), r"dtype object"),
    ],
)
def test_samples_that_do_not_fit_are_refused(small, bad, sentence):
    with pytest.raises(DataError, match=sentence):
        parzen(bad, small)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused_by_their_number(small, samples, value):
    bad = samples.copy()
    bad[17, 3] = value
    with pytest.raises(DataError, match="Sample 17 holds a NaN or an infinity"):
        parzen(bad, small, sigma=0.3)


def test_sigma_and_sigmas_exclude_each_other(small, samples):
    with pytest.raises(ValueError, match="sigma and sigmas are both given"):
        parzen(samples, small, sigma=0.2, sigmas=sigma_grid())


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan, np.inf, 1e-200, 1e200])
def test_a_sigma_that_is_none_is_refused(small, samples, sigma):
    with pytest.raises(ValueError, match="sigma"):
        parzen(samples, small, sigma=sigma)
    with pytest.raises(ValueError, match="sigma"):
        parzen(samples, small, sigmas=np.array([0.1, sigma]))


def test_a_backend_that_is_not_here_is_said(small, samples):
    with pytest.raises(BackendError, match="no cupy kernels yet"):
        parzen(samples, small, backend="cupy")


def test_progress_counts_every_query_once_and_in_order(small, samples):
    told = []
    parzen(samples, small, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (130, 130)
    assert told == sorted(told)
    told.clear()
    parzen(samples, small, sigma=0.2, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (90, 90)


def test_the_grid_is_the_papers():
    np.testing.assert_allclose(sigma_grid(), np.logspace(-1, 0, 10), rtol=1e-14)
    np.testing.assert_allclose(sigma_grid(0.2, 0.2, 1), [0.2])
    for wrong in (
        (0.0, 1.0, 3),
        (1e-200, 1.0, 3),
        (-1.0, 1.0, 3),
        (1.0, 0.5, 3),
        (0.1, np.inf, 3),
        (np.nan, 1.0, 3),
        (0.1, 1.0, 0),
    ):
        with pytest.raises(ValueError, match=r"low <= high <= 1e\+100 and count >= 1"):
            sigma_grid(*wrong)


def test_a_data_set_can_be_named(monkeypatch):
    training_images = datasets.load("digits").splits["train"].as_float32()
    score = fastgan.parzen(training_images[:100], "digits", sigma=0.2)
    assert (score.dataset, score.num_samples) == ("digits", 100)
    assert np.isfinite(score.log_likelihood)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_samples_are_read_from_any_file(small, samples, tmp_path, suffix):
    path = tmp_path / f"samples{suffix}"
    if suffix == ".npy":
        np.save(path, samples)
    elif suffix == ".npz":
        np.savez(path, samples=samples)
    else:
        import h5py

        with h5py.File(path, "w") as file:
            file["samples"] = samples.reshape(-1, 2, 3)
    np.testing.assert_array_equal(read_samples(str(path), small), samples)


def test_bytes_are_divided_by_255(small, tmp_path):
    pixels = small.splits["test"].pixels
    np.save(tmp_path / "bytes.npy", pixels)
    np.testing.assert_array_equal(read_samples(str(tmp_path / "bytes.npy"), small), small.splits["test"].as_float32())


def test_colours_are_brought_into_the_order_of_the_data(tmp_path):
    split = Split(np.zeros((20, 12), np.uint8), 255.0, None)
    colour = Dataset("colour", (3, 2, 2), {"valid": split, "test": split}, "made", {}, num_validation=20)
    channels_first = np.random.default_rng(0).random((4, 3, 2, 2), dtype=np.float32)
    np.save(tmp_path / "a.npy", channels_first.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(read_samples(str(tmp_path / "a.npy"), colour), channels_first.reshape(4, 12))


def test_files_of_samples_that_do_not_serve_are_refused(small, tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((5, 7), np.float32))
    with pytest.raises(DataError, match="A sample has 7 values"):
        read_samples(str(tmp_path / "wide.npy"), small)
    np.save(tmp_path / "objects.npy", np.array([[object()] * D] * 3), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects, which are not loaded"):
        read_samples(str(tmp_path / "objects.npy"), small)
    with pytest.raises(DataError, match="does not exist"):
        read_samples(str(tmp_path / "none.npy"), small)


def test_what_is_checked_is_contiguous(samples, small):
    checked = check_samples(samples[::2], small)
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, samples[::2])
