import json

import numpy as np
import pytest
from scipy.special import logsumexp

import fastgan
from fastgan import datasets
from fastgan.datasets import Dataset, Split
from fastgan.errors import BackendError, DataError, FastganWarning
from fastgan.kernels.common import backends
from fastgan.scoring import (
    check_samples,
    folds_mean_and_error,
    parzen,
    plot_sigmas,
    read_samples,
    sigma_grid,
    validation_log_likelihoods,
)

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
    score = parzen(samples, small, sigma=0.3, backend="reference")
    wanted = direct(small.splits["test"].as_float32(), samples, 0.3)
    assert score.log_likelihood == pytest.approx(wanted.mean(), rel=1e-10)
    assert score.standard_error == pytest.approx(wanted.std(ddof=0) / np.sqrt(90), rel=1e-10)
    assert (score.dataset, score.split, score.num_samples, score.sigma) == ("small", "test", 50, 0.3)
    assert score.sigma_grid is None
    assert score.validation_log_likelihood is None


def test_sigma_is_the_best_on_the_leading_validation_rows(small, samples):
    score = parzen(samples, small, backend="reference")
    queries = small.splits["valid"].as_float32()[:40]
    wanted = [direct(queries, samples, sigma).mean() for sigma in sigma_grid()]
    assert score.sigma_grid == tuple(sigma_grid())
    np.testing.assert_allclose(score.validation_log_likelihood, wanted, rtol=1e-10)
    assert score.sigma == sigma_grid()[np.argmax(wanted)]
    assert score.log_likelihood == parzen(samples, small, sigma=score.sigma, backend="reference").log_likelihood
    # The rows after the leading ones would say something else.
    everything = direct(small.splits["valid"].as_float32(), samples, score.sigma).mean()
    assert not np.isclose(everything, max(wanted))


def test_sigma_is_chosen_from_the_grid_that_is_given(small, samples):
    sigmas = np.array([0.7, 0.2, 0.05, 0.4])
    score = parzen(samples, small, sigmas=sigmas)
    assert score.sigma_grid == (0.7, 0.2, 0.05, 0.4)
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
    score = parzen(samples, small, sigma=0.3, split="train", backend="reference")
    wanted = direct(small.splits["train"].as_float32(), samples, 0.3).mean()
    assert score.split == "train"
    assert score.log_likelihood == pytest.approx(wanted, rel=1e-10)
    with pytest.raises(DataError, match="small has no split 'unlabelled'; it has train, valid, test"):
        parzen(samples, small, split="unlabelled")


def test_a_narrow_window_far_away_stays_finite(small):
    score = parzen(np.full((3, D), 100.0, np.float32), small, sigma=0.01, any_range=True)
    wanted = direct(small.splits["test"].as_float32(), np.full((3, D), 100.0, np.float32), 0.01)
    assert np.isfinite(score.log_likelihood)
    assert score.log_likelihood == pytest.approx(wanted.mean(), rel=1e-10)


def test_the_json_object_has_exactly_these_fields(small, samples):
    for options, more in (
        ({}, ["validation_standard_error"]),
        ({"sigma": 0.2}, []),
        (
            {"refine": True},
            ["validation_standard_error", "refined_sigmas", "refined_log_likelihood", "refined_standard_error"],
        ),
        ({"sigma": 0.2, "baselines": True}, ["baselines"]),
    ):
        fields = json.loads(json.dumps(parzen(samples, small, **options).to_json()))
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
            *more,
        ]
        assert fields["backend"] == backends.resolve()
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
    assert parzen(wide, small, sigma=0.1, backend="reference").log_likelihood == pytest.approx(wanted, rel=1e-12)


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
    with pytest.raises(ValueError, match="sigma and refine are both given"):
        parzen(samples, small, sigma=0.2, refine=True)
    with pytest.raises(ValueError, match="refine searches between neighbours, so it must hold two at least"):
        parzen(samples, small, sigmas=np.array([0.2, 0.2]), refine=True)
    with pytest.raises(ValueError, match="sigmas is empty"):
        parzen(samples, small, sigmas=np.array([]))


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan, np.inf, 1e-200, 1e200])
def test_a_sigma_that_is_none_is_refused(small, samples, sigma):
    with pytest.raises(ValueError, match="sigma"):
        parzen(samples, small, sigma=sigma)
    with pytest.raises(ValueError, match="sigma"):
        parzen(samples, small, sigmas=np.array([0.1, sigma]))


def test_a_backend_that_is_not_here_is_said(small, samples, no_cupy):
    with pytest.raises(BackendError, match="CuPy is not installed"):
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
        # A high that no sigma would have, and ten sigmas that are one.
        (0.1, 1.0, 1),
        (0.3, 0.3, 10),
    ):
        with pytest.raises(ValueError, match=r"low < high <= 1e\+100 and 2 <= count <= 10000"):
            sigma_grid(*wrong)


def test_a_sigma_may_be_any_number(small):
    samples = np.random.default_rng(0).random((20, 6), dtype=np.float32)
    scores = [fastgan.parzen(samples, small, sigma=sigma) for sigma in (1, 1.0, np.float32(1), np.array(1.0))]
    assert len({score.log_likelihood for score in scores}) == 1
    for score in scores:
        assert json.loads(json.dumps(score.to_json()))["sigma"] == 1.0


def test_the_narrowest_window_has_an_error_bar_and_what_has_none_is_null_in_json(small):
    samples = np.random.default_rng(0).random((20, 6), dtype=np.float32)
    score = fastgan.parzen(samples, small, sigma=1e-100)
    assert score.log_likelihood < -1e190
    assert 0 < score.standard_error < np.inf
    far = fastgan.parzen(np.full((5, 6), 1e300), small, sigma=1.0, any_range=True)
    assert far.log_likelihood == -np.inf
    assert json.loads(json.dumps(far.to_json(), allow_nan=False))["log_likelihood"] is None


def test_a_search_ends_at_the_best_sigma_however_coarse_the_grid(small):
    samples = np.random.default_rng(0).random((200, 6), dtype=np.float32)
    fine = fastgan.parzen(samples, small, sigmas=sigma_grid(0.05, 2, 60), refine=True)
    for decades in (1, 9, 90):
        grid = 0.3 * np.array([10.0**-decades, 1.0, 10.0**decades])
        found = fastgan.parzen(samples, small, sigmas=grid, refine=True)
        assert abs(np.log(found.sigma / fine.sigma)) < 0.003, decades


def test_samples_on_another_scale_than_normalised_images_are_refused(small):
    images = small.splits["test"].as_float32()
    splits = {name: Split(split.pixels, 255.0, None, contrast=55.0) for name, split in small.splits.items()}
    data = Dataset("cifar10", small.image_shape, splits, "made up", {}, small.num_validation)
    with pytest.raises(DataError, match=r"lie in \[0, 1\] and the images of cifar10 are normalised .*, 55.0\)"):
        fastgan.parzen(images, data, sigma=20.0)
    assert np.isfinite(fastgan.parzen(datasets.normalise_contrast(images, 55.0), data, sigma=20.0).log_likelihood)


@pytest.mark.parametrize("dtype", [">f8", np.longdouble])
def test_wide_floats_of_any_kind_stay_wide(small, dtype):
    samples = np.random.default_rng(0).random((20, 6))
    np.testing.assert_array_equal(check_samples(samples.astype(dtype), small), samples)


def test_masked_samples_are_refused(small):
    with pytest.raises(DataError, match="masked"):
        fastgan.parzen(np.ma.masked_greater(np.full((20, 6), 0.5), 0.7), small)


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
    np.testing.assert_array_equal(read_samples(str(path)), samples)


def test_channels_may_come_last_in_an_array():
    rng = np.random.default_rng(0)
    splits = {"test": Split(rng.random((12, 3 * 4 * 5), np.float32), 1.0, None)}
    colour = Dataset("colour", (3, 4, 5), splits, "made up", {}, 12)
    rows = rng.random((6, 60), np.float32)
    first = rows.reshape(6, 3, 4, 5)
    for samples in (first, np.ascontiguousarray(first.transpose(0, 2, 3, 1)), first.reshape(6, 12, 5)):
        np.testing.assert_array_equal(check_samples(samples, colour), rows)
    # Where both readings fit, the data's own order is meant.
    few = np.ascontiguousarray(rows[:, :27])
    cube = Dataset("cube", (3, 3, 3), {"test": Split(few, 1.0, None)}, "made up", {}, 0)
    np.testing.assert_array_equal(check_samples(few.reshape(6, 3, 3, 3), cube), few)


def test_bytes_are_divided_by_255(small, tmp_path):
    pixels = small.splits["test"].pixels
    np.save(tmp_path / "bytes.npy", pixels)
    np.testing.assert_array_equal(read_samples(str(tmp_path / "bytes.npy")), small.splits["test"].as_float32())


def test_colours_are_brought_into_the_order_of_the_data(tmp_path):
    channels_first = np.random.default_rng(0).random((4, 3, 2, 2), dtype=np.float32)
    np.save(tmp_path / "a.npy", channels_first.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(read_samples(str(tmp_path / "a.npy")), channels_first.reshape(4, 12))


def test_files_of_samples_that_do_not_serve_are_refused(tmp_path):
    with pytest.raises(DataError, match="A sample has 7 values and an image of mnist has 784"):
        fastgan.scoring.check_size(7, "mnist")
    fastgan.scoring.check_size(784, "mnist")
    # A file's own size shows when it is read.
    fastgan.scoring.check_size(7, "mine.npy")
    np.save(tmp_path / "objects.npy", np.array([[object()] * D] * 3), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects, which are not loaded"):
        read_samples(str(tmp_path / "objects.npy"))
    with pytest.raises(DataError, match="does not exist"):
        read_samples(str(tmp_path / "none.npy"))


def test_what_is_checked_is_contiguous(samples, small):
    checked = check_samples(samples[::2], small)
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, samples[::2])


def validation_mean(samples, dataset, sigma):
    return validation_log_likelihoods(samples, dataset, np.array([sigma]))[0][0]


def test_a_refined_sigma_is_the_best_between_the_grids_neighbours(small, samples):
    coarse = np.array([1.0, 0.1, 0.4])
    score = parzen(samples, small, sigmas=coarse, refine=True)
    assert score.sigma_grid == (1.0, 0.1, 0.4)
    fine = np.geomspace(0.1, 1.0, 400)
    means, _ = validation_log_likelihoods(samples, small, fine)
    assert score.sigma == pytest.approx(fine[means.argmax()], rel=0.01)
    assert score.sigma not in coarse
    assert all(0.1 < sigma < 1 for sigma in score.refined_sigmas)
    assert score.log_likelihood == parzen(samples, small, sigma=score.sigma).log_likelihood
    # What was chosen is the best of all that was tried, and each trial is what it says.
    tried = score.trials()
    assert [trial[0] for trial in tried] == sorted([*score.sigma_grid, *score.refined_sigmas])
    assert max(tried, key=lambda trial: trial[1])[0] == score.sigma
    for sigma, mean, error in tried:
        (wanted,), (wanted_error,) = validation_log_likelihoods(samples, small, np.array([sigma]))
        assert (mean, error) == pytest.approx((wanted, wanted_error), rel=1e-12)
    # Nothing is drawn anew: twice is the same.
    assert parzen(samples, small, sigmas=coarse, refine=True).sigma == score.sigma


def test_a_search_that_finds_nothing_better_keeps_the_grids_best(small, samples):
    best = parzen(samples, small, refine=True).sigma
    score = parzen(samples, small, sigmas=np.array([best / 3, best, best * 3]), refine=True)
    tried = [validation_mean(samples, small, sigma) for sigma in (score.sigma, *score.sigma_grid)]
    assert tried[0] >= max(tried[1:])


@pytest.mark.parametrize(
    ("sigmas", "word"), [([0.9, 0.5, 0.7], "0.5, is the least"), ([0.01, 0.02], "0.02, is the greatest")]
)
@pytest.mark.parametrize("refine", [False, True])
def test_a_best_at_the_grids_edge_is_warned_of(small, samples, sigmas, word, refine):
    with pytest.warns(FastganWarning, match=f"The best sigma, {word} of the grid.*--sigma-range") as caught:
        score = parzen(samples, small, sigmas=np.array(sigmas), refine=refine)
    assert len(caught) == 1
    assert min(sigmas) <= score.sigma <= max(sigmas)


def test_a_grid_of_one_has_no_edge(small, samples):
    assert parzen(samples, small, sigmas=np.array([0.01])).sigma == 0.01


def test_baselines_are_scored_as_samples_are(small, samples):
    score = parzen(samples, small, baselines=True, refine=True)
    images, centroids = score.baselines
    assert (images.name, images.num_samples) == ("training images", 50)
    alone = parzen(small.splits["train"].as_float32(slice(0, 50)), small, refine=True)
    assert (images.sigma, images.log_likelihood, images.standard_error) == (
        alone.sigma,
        alone.log_likelihood,
        alone.standard_error,
    )
    # One for each ten of the 80 rows.
    assert (centroids.name, centroids.num_samples) == ("k-means centroids", 8)
    assert np.isfinite(centroids.log_likelihood)
    assert centroids == parzen(samples[:20], small, baselines=True, refine=True).baselines[1]
    assert score.log_likelihood == parzen(samples, small, refine=True).log_likelihood
    # A sigma that is given is the samples' own: the baselines choose theirs.
    given = parzen(samples, small, sigma=0.7, baselines=True)
    assert given.sigma == 0.7
    assert given.baselines[0].sigma == parzen(small.splits["train"].as_float32(slice(0, 50)), small).sigma


def test_centroids_are_means_of_training_images(small, samples, monkeypatch):
    seen = []

    def spy(images, initial, **options):
        seen.append((images, initial))
        return kmeans2(images, initial, **options)

    from scipy.cluster.vq import kmeans2

    monkeypatch.setattr("scipy.cluster.vq.kmeans2", spy)
    parzen(samples, small, sigma=0.3, baselines=True)
    ((images, initial),) = seen
    np.testing.assert_array_equal(images, small.splits["train"].as_float32())
    assert all((row == images).all(axis=1).any() for row in initial)


@pytest.mark.parametrize("options", [{"refine": True}, {"baselines": True}, {"baselines": True, "refine": True}])
def test_progress_comes_to_its_end_whatever_is_asked(small, samples, options):
    told = []
    parzen(samples, small, progress=lambda done, total: told.append((done, total)), **options)
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0])
def test_samples_of_another_scale_are_refused_where_the_data_have_theirs(small, samples, value):
    bad = samples.copy()
    bad[17, 3] = value
    with pytest.raises(DataError, match=rf"Sample 17 holds {value:g} and the pixels of small lie in \[0, 1\]"):
        parzen(bad, small, sigma=0.3)
    assert np.isfinite(parzen(bad, small, sigma=0.3, any_range=True).log_likelihood)


def test_rounding_beyond_the_range_is_no_fault(small, samples):
    rounded = samples.copy()
    rounded[0, :2] = -1e-7, 1 + 1e-7
    assert np.isfinite(parzen(rounded, small, sigma=0.3).log_likelihood)


def test_samples_that_serve_as_they_are_are_not_copied(small, samples):
    assert np.shares_memory(check_samples(samples, small), samples)
    assert np.shares_memory(check_samples(samples.reshape(50, 2, 3), small), samples)

    class Exporter:
        def __dlpack_device__(self):
            return 1, 0

        def __dlpack__(self, **options):
            return samples.__dlpack__(**options)

    assert np.shares_memory(check_samples(Exporter(), small), samples)
    assert parzen(Exporter(), small, sigma=0.3).log_likelihood == parzen(samples, small, sigma=0.3).log_likelihood


def test_tensors_of_pytorch_are_scored(small, samples):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(samples)
    assert np.shares_memory(check_samples(tensor, small), samples)
    assert parzen(tensor, small, sigma=0.3).log_likelihood == parzen(samples, small, sigma=0.3).log_likelihood
    with pytest.raises(DataError, match=r"samples is a Tensor that NumPy cannot share: .*gradient"):
        parzen(torch.zeros((3, D), requires_grad=True), small)


def test_folds_have_a_mean_and_an_error_of_their_own():
    mean, error = folds_mean_and_error([2050.0, 2100.0, 2000.0, 2075.0, 2025.0])
    assert mean == pytest.approx(2050)
    # The squares are 0, 2500, 2500, 625 and 625: over 4, then over 5, under the root.
    assert error == pytest.approx((6250 / 4 / 5) ** 0.5)
    assert folds_mean_and_error(np.array([3.0, 3.0])) == (3.0, 0.0)
    for wrong, sentence in (([1.0], "two folds at least"), ([], "two folds"), ([1.0, np.nan], "must be finite")):
        with pytest.raises(ValueError, match=sentence):
            folds_mean_and_error(wrong)


def test_a_curve_needs_a_choice(small, samples):
    pytest.importorskip("matplotlib")
    assert plot_sigmas(parzen(samples, small, refine=True)).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="there is no curve"):
        plot_sigmas(parzen(samples, small, sigma=0.3))


@pytest.mark.real_data
def test_ten_thousand_training_images_score_what_is_known_of_them(real_mnist_folder):
    mnist = datasets.load("mnist", data_dir=real_mnist_folder)
    score = parzen(mnist.splits["train"].as_float32(slice(0, 10_000)), mnist, backend="cpu")
    assert f"{score.log_likelihood:.2f} ± {score.standard_error:.2f}" == "241.19 ± 2.13"
    assert f"{score.sigma:.4f}" == "0.1668"
