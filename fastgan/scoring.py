"""The paper's yardstick: a Parzen window's log-likelihood of test data under samples (section 5).

Sigma is chosen on validation data by mean log-likelihood and the score is the mean over the test set, with its standard
error. The estimator has high variance and does poorly in high dimension (the paper says so; Theis et al., 2015, show
how far it can mislead): it compares models by one yardstick, no more. Baselines, real images and k-means centroids
scored in the same way, show how far.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import math
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan import datasets
from fastgan.datasets.user_file import ROUNDING
from fastgan.errors import BackendError, DataError, FastganWarning
from fastgan.kernels import parzen as parzen_kernel
from fastgan.kernels.common.backends import resolve
from fastgan.kernels.common.exchange import to_host
from fastgan.kernels.parzen import MAX_SIGMA, MIN_SIGMA

NUM_SAMPLES = 10_000
# Far more than tell anything; memory grows with sigmas times queries.
_MOST_SIGMAS = 10_000
# A refined sigma is within a thousandth of the best, which moves a score by far less than its standard error; the
# search has not been seen to take more than ten trials.
_REFINED_TO, _MOST_TRIALS = 1e-3, 40
# On MNIST, k-means takes seconds at these; ten rows or more a centroid, so that it is a mean.
_MOST_CENTROIDS, _ROWS_A_CENTROID, _KMEANS_ROWS, _KMEANS_ROUNDS = 1000, 10, 50_000, 5
_CHUNK_ROWS = 1024


def sigma_grid(low: float = 0.1, high: float = 1.0, count: int = 10) -> NDArray[np.float64]:
    """Give sigmas evenly spaced in the logarithm; the default is the paper's grid.

    Parameters
    ----------
    low, high : float
        First and last, 1e-100 <= low <= high <= 1e100.
    count : int
        How many, 1 to 10,000.

    Returns
    -------
    (count,) float64

    Examples
    --------
    >>> [round(float(sigma), 3) for sigma in sigma_grid()]
    [0.1, 0.129, 0.167, 0.215, 0.278, 0.359, 0.464, 0.599, 0.774, 1.0]
    """
    if low == high and count == 1:
        check_sigma(low)
        return np.array([low], np.float64)
    if not MIN_SIGMA <= low < high <= MAX_SIGMA or not 2 <= count <= _MOST_SIGMAS:
        raise ValueError(
            f"low is {low}, high {high} and count {count}; "
            f"{MIN_SIGMA} <= low < high <= {MAX_SIGMA} and 2 <= count <= {_MOST_SIGMAS} are needed, or low = high and "
            "a count of 1"
        )
    return np.geomspace(low, high, count)


def check_sigma(sigma: float) -> None:
    """Refuse with a ``ValueError`` what no window can have for its standard deviation."""
    # As Python's own number: float32 cannot be held against these.
    if not MIN_SIGMA <= float(sigma) <= MAX_SIGMA:
        raise ValueError(f"sigma is {sigma}; it must lie between {MIN_SIGMA} and {MAX_SIGMA}")


@dataclass(frozen=True)
class Baseline:
    """What samples that no model drew would have scored.

    Attributes
    ----------
    name : str
        What the samples are.
    num_samples : int
        Their number.
    sigma : float
        The window's standard deviation, chosen for them alone.
    log_likelihood, standard_error : float
        As of a `ParzenScore`, in nats.
    """

    name: str
    num_samples: int
    sigma: float
    log_likelihood: float
    standard_error: float


@dataclass(frozen=True)
class ParzenScore:
    """A score and how it was made.

    Attributes
    ----------
    dataset : str
        The data set's name.
    split : str
        The split that was scored.
    num_samples : int
        N, the number of samples.
    sigma : float
        The window's standard deviation.
    sigma_grid : tuple of float, optional
        The sigmas that were tried; None where sigma was given.
    validation_log_likelihood : tuple of float, optional
        Mean log-likelihood of validation data under each, in nats.
    log_likelihood : float
        Mean over the split, in nats.
    standard_error : float
        Standard deviation over the split's examples (ddof 0) over the root of their number, in nats.
    backend : str
        What computed it.
    seconds : float
        How long that took, baselines included.
    validation_standard_error : tuple of float, optional
        The standard error of each mean of ``validation_log_likelihood``, in nats.
    refined_sigmas : tuple of float, optional
        With ``refine``: the sigmas that were tried after the grid, in order.
    refined_log_likelihood, refined_standard_error : tuple of float, optional
        Of validation data under each of them, in nats.
    baselines : tuple of Baseline, optional
        With ``baselines``: what real images and centroids score.
    """

    dataset: str
    split: str
    num_samples: int
    sigma: float
    sigma_grid: tuple[float, ...] | None
    validation_log_likelihood: tuple[float, ...] | None
    log_likelihood: float
    standard_error: float
    backend: str
    seconds: float
    validation_standard_error: tuple[float, ...] | None = None
    refined_sigmas: tuple[float, ...] | None = None
    refined_log_likelihood: tuple[float, ...] | None = None
    refined_standard_error: tuple[float, ...] | None = None
    baselines: tuple[Baseline, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the score as JSON's own kinds: what is not finite is None.

        The fields from ``validation_standard_error`` on are there only where they are something.
        """
        fields = asdict(self)
        names = list(fields)
        optional = names[names.index("validation_standard_error") :]
        return {name: _finite(value) for name, value in fields.items() if value is not None or name not in optional}

    def trials(self) -> list[tuple[float, float, float]]:
        """Give every sigma that was tried, in ascending order, with its validation mean and standard error in nats."""
        tried = []
        for sigmas, means, errors in (
            (self.sigma_grid, self.validation_log_likelihood, self.validation_standard_error),
            (self.refined_sigmas, self.refined_log_likelihood, self.refined_standard_error),
        ):
            tried += list(zip(sigmas or (), means or (), errors or (), strict=True))
        return sorted(tried)


def _finite(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_finite(element) for element in value]
    if isinstance(value, dict):
        return {name: _finite(element) for name, element in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parzen(
    samples: Any,
    dataset: str | datasets.Dataset,
    *,
    data_dir: str | None = None,
    sigma: float | None = None,
    sigmas: NDArray[np.float64] | None = None,
    split: str = "test",
    progress: Callable[[int, int], None] | None = None,
    backend: str = "auto",
    refine: bool = False,
    baselines: bool = False,
    any_range: bool = False,
) -> ParzenScore:
    """Score samples as the paper does.

    Parameters
    ----------
    samples : (N, D) or (N, ...) array
        Float pixels in the data's own range; N >= 2. (N, C, H, W) and (N, H, W, C) are told apart by the data's shape;
        other further axes are flattened in C order. NumPy's, or anything that
        speaks DLPack or the CUDA array interface; C-contiguous float32 or float64 of the host is read where it lies.
    dataset : str or Dataset
        What they are scored against.
    data_dir : str, optional
        Where the data set is looked for.
    sigma : float, optional
        The window's standard deviation, 1e-100 to 1e100; without it, it is chosen from ``sigmas`` on validation data.
    sigmas : (S,) float64, optional
        The sigmas to choose from, each in the same range; by default the paper's grid.
    split : str
        The split to score.
    progress : callable, optional
        Called with the number of queries done and their number in all.
    backend : str
        As for the kernels.
    refine : bool
        Whether to search on, between the neighbours of the grid's best sigma, for the best to a thousandth.
    baselines : bool
        Whether to score, with a sigma of their own each, the first N training images, and k-means centroids: 1,000, or
        one for every ten rows where that is fewer, of the first 50,000 training images, after 5 rounds from rows drawn
        with a fixed seed. Theis et al. (2015) show that such centroids can beat real images.
    any_range : bool
        Whether samples may leave [0, 1] although the data do not, which is mostly a mistake of scale.

    Returns
    -------
    ParzenScore

    Raises
    ------
    DataError
        The samples do not fit the data, or hold NaN, infinity or values out of the data's range.
    ValueError
        Both ``sigma`` and ``sigmas`` are given, or one is out of its range, or there is nothing to refine.
    BackendError
        The backend cannot run here, or the samples lie on a device that cannot be read here.

    Warns
    -----
    FastganWarning
        The best sigma is the first or the last of the grid, so that a better one may lie beyond.

    Examples
    --------
    >>> import fastgan
    >>> from fastgan import datasets
    >>> training_images = datasets.load("digits").splits["train"].as_float32()
    >>> score = fastgan.parzen(training_images, "digits")
    >>> print(f"{score.log_likelihood:.1f} ± {score.standard_error:.1f} nats at sigma {score.sigma:.3f}")
    17.7 ± 1.3 nats at sigma 0.129
    """
    if sigma is not None and sigmas is not None:
        raise ValueError("sigma and sigmas are both given; give one of them")
    for value in (sigma,) if sigma is not None else () if sigmas is None else sigmas:
        check_sigma(value)
    grid = sigma_grid() if sigmas is None else np.array(sigmas, np.float64)
    if grid.ndim != 1:
        raise ValueError(f"sigmas has shape {grid.shape}; it must be a row of sigmas")
    if not len(grid):
        raise ValueError("sigmas is empty; it must hold one sigma at least")
    if refine and sigma is not None:
        raise ValueError("sigma and refine are both given; a sigma that is given is not searched for")
    if refine and len(np.unique(grid)) < 2:
        raise ValueError("sigmas holds one sigma; refine searches between neighbours, so it must hold two at least")
    started = time.perf_counter()
    if isinstance(dataset, str):
        dataset = datasets.load(dataset, data_dir=data_dir)
    samples_ND = check_samples(samples, dataset)
    if not any_range:
        _check_range(samples_ND, dataset)
    if split not in dataset.splits:
        raise DataError(f"{dataset.name} has no split {split!r}; it has {', '.join(dataset.splits)}")
    backend = resolve(backend)
    test_MD = dataset.splits[split].as_float32()

    choosing = dataset.num_validation * (1 + (_MOST_TRIALS if refine else 0))
    total = len(test_MD) + (0 if sigma is not None else choosing)
    if baselines:
        total += 2 * (len(test_MD) + choosing)
    count = _Count(progress, total)

    choice = None
    if sigma is None:
        choice = _choose_sigma("", samples_ND, dataset, grid, refine, count, backend)
        sigma = choice.sigma
    mean, error = _test_score(test_MD, samples_ND, sigma, count, backend)
    rows = None
    if baselines:
        rows = tuple(
            _score_baseline(name, images_ND, test_MD, dataset, grid, refine, count, backend)
            for name, images_ND in _baseline_images(dataset, len(samples_ND))
        )
    return ParzenScore(
        dataset=dataset.name,
        split=split,
        num_samples=len(samples_ND),
        sigma=float(sigma),
        sigma_grid=None if choice is None else tuple(map(float, grid)),
        validation_log_likelihood=None if choice is None else choice.means,
        log_likelihood=mean,
        standard_error=error,
        backend=backend,
        seconds=time.perf_counter() - started,
        validation_standard_error=None if choice is None else choice.errors,
        refined_sigmas=tuple(trial[0] for trial in choice.trials) if choice and refine else None,
        refined_log_likelihood=tuple(trial[1] for trial in choice.trials) if choice and refine else None,
        refined_standard_error=tuple(trial[2] for trial in choice.trials) if choice and refine else None,
        baselines=rows,
    )


class _Count:
    """Counts queries, from any thread, and tells of them."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._total = progress, total
        self._done = 0
        self._lock = threading.Lock()

    def __call__(self, num_queries: int) -> None:
        with self._lock:
            self._done += num_queries
            if self._progress is not None:
                self._progress(self._done, self._total)


@dataclass(frozen=True)
class _Choice:
    sigma: float
    means: tuple[float, ...]
    errors: tuple[float, ...]
    trials: tuple[tuple[float, float, float], ...]


def _choose_sigma(
    of: str,
    samples_ND: NDArray[Any],
    dataset: datasets.Dataset,
    grid: NDArray[np.float64],
    refine: bool,
    count: _Count,
    backend: str,
) -> _Choice:
    """Find the sigma with the greatest validation mean: of the grid, and then between the neighbours of its best."""
    means, errors = validation_log_likelihoods(samples_ND, dataset, grid, progress=count, backend=backend)
    best = int(means.argmax())
    ladder = np.unique(grid)
    place = int(np.searchsorted(ladder, grid[best]))
    if len(ladder) > 1 and place in (0, len(ladder) - 1):
        warnings.warn(
            f"The best sigma{of}, {grid[best]:.4g}, is the {'least' if place == 0 else 'greatest'} of the grid, so a "
            "better one may lie beyond: try a wider grid (--sigma-range LOW HIGH COUNT)",
            FastganWarning,
            stacklevel=3,
        )
    trials: list[tuple[float, float, float]] = []
    if refine:
        from scipy.optimize import minimize_scalar

        def loss(log_sigma: float) -> float:
            sigmas = np.array([np.exp(log_sigma)])
            (mean,), (error,) = validation_log_likelihoods(samples_ND, dataset, sigmas, progress=count, backend=backend)
            trials.append((float(sigmas[0]), float(mean), float(error)))
            return -float(mean)

        bounds = np.log(ladder[[max(place - 1, 0), min(place + 1, len(ladder) - 1)]])
        options = {"xatol": _REFINED_TO, "maxiter": _MOST_TRIALS}
        minimize_scalar(loss, bounds=tuple(bounds), method="bounded", options=options)
        # What the search did not need counts as done.
        count(dataset.num_validation * (_MOST_TRIALS - len(trials)))
    # The grid's own best stays where no trial beats it.
    sigma, _ = max([(float(grid[best]), float(means[best])), *((s, mean) for s, mean, _ in trials)], key=lambda t: t[1])
    return _Choice(sigma, tuple(map(float, means)), tuple(map(float, errors)), tuple(trials))


def _test_score(
    test_MD: NDArray[np.float32], samples_ND: NDArray[Any], sigma: float, count: _Count, backend: str
) -> tuple[float, float]:
    log_density_SM = parzen_kernel.log_density(
        test_MD, samples_ND, np.array([sigma], np.float64), progress=count, backend=backend
    )
    mean, error = mean_and_error(log_density_SM)
    return float(mean[0]), float(error[0])


def _score_baseline(
    name: str,
    images_ND: NDArray[np.float32],
    test_MD: NDArray[np.float32],
    dataset: datasets.Dataset,
    grid: NDArray[np.float64],
    refine: bool,
    count: _Count,
    backend: str,
) -> Baseline:
    choice = _choose_sigma(f" of the {name}", images_ND, dataset, grid, refine, count, backend)
    mean, error = _test_score(test_MD, images_ND, choice.sigma, count, backend)
    return Baseline(name, len(images_ND), choice.sigma, mean, error)


def _baseline_images(dataset: datasets.Dataset, num_samples: int) -> Sequence[tuple[str, NDArray[np.float32]]]:
    train = dataset.splits["train"]
    return (
        ("training images", train.as_float32(slice(0, num_samples))),
        ("k-means centroids", _centroids(train.as_float32(slice(0, _KMEANS_ROWS)))),
    )


def _centroids(images_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cluster images by a few rounds of k-means, from rows drawn with a fixed seed."""
    from scipy.cluster.vq import kmeans2

    number = max(1, min(_MOST_CENTROIDS, len(images_ND) // _ROWS_A_CENTROID))
    rows = np.sort(np.random.default_rng(0).choice(len(images_ND), number, replace=False))
    with warnings.catch_warnings():
        # A centroid that has lost all its images stays where it was: an image, or a mean of some, all the same.
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        centroids, _ = kmeans2(images_ND, images_ND[rows], iter=_KMEANS_ROUNDS, minit="matrix", check_finite=False)
    return np.ascontiguousarray(centroids, np.float32)


def validation_log_likelihoods(
    samples_ND: NDArray[Any],
    dataset: datasets.Dataset,
    sigmas_S: NDArray[np.float64],
    *,
    progress: Callable[[int], None] | None = None,
    backend: str = "auto",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the mean log-likelihood of the validation rows under each sigma, and its standard error.

    Parameters
    ----------
    samples_ND : (N, D) float32 or float64
        The samples.
    dataset : Dataset
        Its first ``num_validation`` rows of "valid" are the queries.
    sigmas_S : (S,) float64
        The sigmas.
    progress : callable, optional
        Called with the number of queries done since the last call.
    backend : str
        As for the kernels.

    Returns
    -------
    means, errors : (S,) float64 each
        Nats.
    """
    queries_MD = dataset.splits["valid"].as_float32(slice(0, dataset.num_validation))
    log_density_SM = parzen_kernel.log_density(queries_MD, samples_ND, sigmas_S, progress=progress, backend=backend)
    return mean_and_error(log_density_SM)


def mean_and_error(log_density_SM: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give means over M queries, and their standard errors: the deviation (ddof 0) over the root of M."""
    # The narrowest windows give densities whose squares leave float64's range, but not those of their shares.
    greatest_S = np.maximum(np.abs(log_density_SM).max(axis=1), 1.0)
    with np.errstate(invalid="ignore"):
        deviation_S = (log_density_SM / greatest_S[:, None]).std(axis=1) * greatest_S
    return log_density_SM.mean(axis=1), deviation_S / np.sqrt(log_density_SM.shape[1])


def folds_mean_and_error(fold_scores: Sequence[float] | NDArray[np.floating]) -> tuple[float, float]:
    """Give the mean of the scores of F folds, and its standard error across folds, as for TFD.

    Parameters
    ----------
    fold_scores : (F,) floats
        Each fold's mean log-likelihood in nats, with sigma chosen on that fold's own validation data; F >= 2.

    Returns
    -------
    mean, standard_error : float
        Nats. The error is the folds' standard deviation over √F; the deviation divides by F - 1, since of a handful of
        folds, unlike of thousands of examples, dividing by F would say too little: a tenth for five.

    Raises
    ------
    ValueError
        There are fewer than two folds, or a score is not finite.
    """
    scores_F = np.asarray(fold_scores, np.float64)
    if scores_F.ndim != 1 or len(scores_F) < 2:
        raise ValueError(
            f"fold_scores has shape {scores_F.shape}; it must hold one score a fold, of two folds at least"
        )
    if not np.isfinite(scores_F).all():
        raise ValueError(f"fold_scores is {scores_F.tolist()}; every score must be finite")
    return float(scores_F.mean()), float(scores_F.std(ddof=1) / np.sqrt(len(scores_F)))


def check_size(num_values: int, name: str) -> None:
    """Compare the size of a sample with a registered data set's images, before these are read or downloaded.

    Raises
    ------
    DataError
        They differ.
    """
    if name in datasets.names():
        _check_size(num_values, name, math.prod(datasets.entry(name).image_shape))


def _check_size(num_values: int, name: str, num_pixels: int) -> None:
    if num_values != num_pixels:
        raise DataError(
            f"A sample has {num_values} values and an image of {name} has {num_pixels} pixels; "
            "score them against the data set they imitate"
        )


def read_samples(path: str) -> NDArray[np.float32]:
    """Read samples of any model from a file: .npy, .npz or .h5, as ``datasets.read_images`` describes.

    Parameters
    ----------
    path : str
        The file; uint8 values are divided by 255.

    Returns
    -------
    (N, D) float32

    Raises
    ------
    DataError
        The file is not what its name says.
    """
    pixels, _, _, _ = datasets.read_images(path)
    return np.divide(pixels, np.float32(255 if pixels.dtype == np.uint8 else 1), dtype=np.float32)


def check_samples(samples: Any, dataset: datasets.Dataset) -> NDArray[Any]:
    """Give samples as a contiguous (N, D) array of float32 or float64, or say in a sentence why they cannot be that.

    What is such an array already, by NumPy or by DLPack, is not copied.
    """
    try:
        if isinstance(samples, np.ma.MaskedArray):
            raise DataError("The samples are a masked array; fill in what is masked, or leave those rows out")
        samples = np.asarray(to_host("samples", samples))
    except TypeError as error:
        raise DataError(str(error)) from error
    if samples.dtype.kind not in "f":
        raise DataError(
            f"The samples have dtype {samples.dtype}; they must be floats in the range of the data's pixels"
        )
    if samples.ndim < 2 or len(samples) < 2:
        raise DataError(f"The samples have shape {samples.shape}; at least two rows are needed, one a sample")
    _check_size(samples[0].size, dataset.name, dataset.num_pixels)
    num_channels, height, width = dataset.image_shape
    if samples.shape[1:] == (height, width, num_channels) != dataset.image_shape:
        samples = np.moveaxis(samples, 3, 1)
    dtype = np.float64 if samples.dtype.itemsize >= 8 else np.float32
    samples_ND = np.ascontiguousarray(samples.reshape(len(samples), -1), dtype=dtype)
    for start in range(0, len(samples_ND), _CHUNK_ROWS):
        finite = np.isfinite(samples_ND[start : start + _CHUNK_ROWS]).all(axis=1)
        if not finite.all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise DataError(f"Sample {row} holds a NaN or an infinity; a density under it means nothing")
    return samples_ND


def _check_range(samples_ND: NDArray[Any], dataset: datasets.Dataset) -> None:
    """Refuse samples that leave [0, 1] where the data do not, or that stay there where the data do not."""
    if dataset.contrast is not None:
        if samples_ND.min() >= 0 and samples_ND.max() <= 1:
            raise DataError(
                f"The samples lie in [0, 1] and the images of {dataset.name} are normalised in contrast; normalise the "
                f"samples first, by fastgan.datasets.normalise_contrast(samples, {dataset.contrast})"
            )
        return
    for split in dataset.splits.values():
        if len(split) and not (split.pixels.min() >= 0 and split.pixels.max() <= split.divisor):
            return
    for start in range(0, len(samples_ND), _CHUNK_ROWS):
        chunk = samples_ND[start : start + _CHUNK_ROWS]
        outside = np.argwhere((chunk < -ROUNDING) | (chunk > 1 + ROUNDING))
        if len(outside):
            row, column = outside[0]
            raise DataError(
                f"Sample {start + row} holds {chunk[row, column]:.6g} and the pixels of {dataset.name} lie in [0, 1]; "
                "bring the samples to the data's scale first"
            )


def check_plots() -> None:
    """Raise ``BackendError`` where matplotlib, which draws plots, is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BackendError("A plot needs matplotlib, which is not installed: pip install matplotlib")


def plot_sigmas(score: ParzenScore) -> bytes:
    """Draw the validation log-likelihood over sigma, with a band of one standard error, as a PNG file.

    Parameters
    ----------
    score : ParzenScore
        One whose sigma was chosen.

    Returns
    -------
    bytes
        The file's content.

    Raises
    ------
    BackendError
        matplotlib is not installed.
    ValueError
        No sigma was chosen, so there is no curve.
    """
    check_plots()
    if score.sigma_grid is None:
        raise ValueError("sigma was given, not chosen; there is no curve to plot")
    sigmas, means, errors = np.array(score.trials()).T
    # Named only here, so that types are checked alike with and without the extra.
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(sigmas, means - errors, means + errors, alpha=0.3, linewidth=0, label="± one standard error")
    axes.plot(sigmas, means, linewidth=1.2)
    axes.plot(score.sigma_grid, score.validation_log_likelihood, "o", color="C0", markersize=4, label="grid")
    if score.refined_sigmas:
        axes.plot(score.refined_sigmas, score.refined_log_likelihood, "+", color="C1", label="refined")
    axes.axvline(score.sigma, color="0.4", linestyle="--", linewidth=1, label=f"chosen: {score.sigma:.4g}")
    axes.set_xscale("log")
    ticker = importlib.import_module("matplotlib.ticker")
    shown = np.array(score.sigma_grid)[:: -(-len(score.sigma_grid) // 10)]
    axes.set_xticks(shown, [f"{sigma:.3g}" for sigma in shown])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel("sigma")
    axes.set_ylabel("mean log-likelihood of validation data, nats")
    axes.set_title(
        f"{_printable(score.dataset)} under {score.num_samples} samples: "
        f"{score.split} {score.log_likelihood:.1f} ± {score.standard_error:.1f} nats",
        fontsize="medium",
        # A file's name may hold anything.
        parse_math=False,
    )
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A letter of the name that the font lacks becomes a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")
