"""The paper's yardstick: a Parzen window's log-likelihood of test data under samples (section 5).

Sigma is chosen on validation data by mean log-likelihood and the score is the mean over the test set, with its standard
error. The estimator has high variance and does poorly in high dimension (the paper says so; Theis et al., 2015, show
how far it can mislead): it compares models by one yardstick, no more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan import datasets
from fastgan.errors import DataError
from fastgan.kernels import parzen as parzen_kernel
from fastgan.kernels.common.backends import resolve

NUM_SAMPLES = 10_000
# Beyond these the square of sigma, or of its inverse, leaves float64's range.
_MIN_SIGMA, _MAX_SIGMA = 1e-100, 1e100


def sigma_grid(low: float = 0.1, high: float = 1.0, count: int = 10) -> NDArray[np.float64]:
    """Give sigmas evenly spaced in the logarithm; the default is the paper's grid.

    Parameters
    ----------
    low, high : float
        First and last, 1e-100 <= low <= high <= 1e100.
    count : int
        How many, 1 or more.

    Returns
    -------
    (count,) float64

    Examples
    --------
    >>> [round(float(sigma), 3) for sigma in sigma_grid()]
    [0.1, 0.129, 0.167, 0.215, 0.278, 0.359, 0.464, 0.599, 0.774, 1.0]
    """
    if not _MIN_SIGMA <= low <= high <= _MAX_SIGMA or count < 1:
        raise ValueError(
            f"low is {low}, high {high} and count {count}; "
            f"{_MIN_SIGMA} <= low <= high <= {_MAX_SIGMA} and count >= 1 are needed"
        )
    return np.geomspace(low, high, count)


def check_sigma(sigma: float) -> None:
    """Refuse with a ``ValueError`` what no window can have for its standard deviation."""
    if not _MIN_SIGMA <= sigma <= _MAX_SIGMA:
        raise ValueError(f"sigma is {sigma}; it must lie between {_MIN_SIGMA} and {_MAX_SIGMA}")


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
        How long that took.
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

    def to_json(self) -> dict[str, Any]:
        """Give the score as JSON's own kinds."""
        return asdict(self)


def parzen(
    samples: NDArray[Any],
    dataset: str | datasets.Dataset,
    *,
    data_dir: str | None = None,
    sigma: float | None = None,
    sigmas: NDArray[np.float64] | None = None,
    split: str = "test",
    progress: Callable[[int, int], None] | None = None,
    backend: str = "auto",
) -> ParzenScore:
    """Score samples as the paper does.

    Parameters
    ----------
    samples : (N, D) or (N, ...) array
        Float pixels in the data's own range; N >= 2. Further axes are flattened in C order.
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

    Returns
    -------
    ParzenScore

    Raises
    ------
    DataError
        The samples do not fit the data, or hold NaN or infinity.
    ValueError
        Both ``sigma`` and ``sigmas`` are given, or one is out of its range.

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
    started = time.perf_counter()
    if isinstance(dataset, str):
        dataset = datasets.load(dataset, data_dir=data_dir)
    samples_ND = check_samples(samples, dataset)
    if split not in dataset.splits:
        raise DataError(f"{dataset.name} has no split {split!r}; it has {', '.join(dataset.splits)}")
    backend = resolve(backend)
    test_MD = dataset.splits[split].as_float32()

    done = 0
    lock = threading.Lock()
    num_validation = dataset.num_validation if sigma is None else 0

    def count(num_queries: int) -> None:
        # Called from the kernel's threads.
        nonlocal done
        with lock:
            done += num_queries
            if progress is not None:
                progress(done, len(test_MD) + num_validation)

    grid = validation = None
    if sigma is None:
        grid = sigma_grid() if sigmas is None else np.asarray(sigmas, np.float64)
        validation, _ = validation_log_likelihoods(samples_ND, dataset, grid, progress=count, backend=backend)
        sigma = float(grid[validation.argmax()])
    log_density_SM = parzen_kernel.log_density(test_MD, samples_ND, np.array([sigma]), progress=count, backend=backend)
    mean, error = mean_and_error(log_density_SM)
    return ParzenScore(
        dataset=dataset.name,
        split=split,
        num_samples=len(samples_ND),
        sigma=sigma,
        sigma_grid=None if grid is None else tuple(map(float, grid)),
        validation_log_likelihood=None if validation is None else tuple(map(float, validation)),
        log_likelihood=float(mean[0]),
        standard_error=float(error[0]),
        backend=backend,
        seconds=time.perf_counter() - started,
    )


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
    return log_density_SM.mean(axis=1), log_density_SM.std(axis=1) / np.sqrt(log_density_SM.shape[1])


def read_samples(path: str, dataset: datasets.Dataset) -> NDArray[np.float32]:
    """Read samples of any model from a file: .npy, .npz or .h5, as ``datasets.read_images`` describes.

    Parameters
    ----------
    path : str
        The file; uint8 values are divided by 255.
    dataset : Dataset
        What they will be scored against.

    Returns
    -------
    (N, D) float32

    Raises
    ------
    DataError
        The file is not what its name says, or its images do not fit the data set.
    """
    pixels, _, _, _ = datasets.read_images(path)
    samples = np.divide(pixels, np.float32(255 if pixels.dtype == np.uint8 else 1), dtype=np.float32)
    return check_samples(samples, dataset)


def check_samples(samples: NDArray[Any], dataset: datasets.Dataset) -> NDArray[Any]:
    """Give samples as a contiguous (N, D) array of float32 or float64, or say in a sentence why they cannot be that."""
    samples = np.asarray(samples)
    if samples.dtype.kind not in "f":
        raise DataError(
            f"The samples have dtype {samples.dtype}; they must be floats in the range of the data's pixels"
        )
    if samples.ndim < 2 or len(samples) < 2:
        raise DataError(f"The samples have shape {samples.shape}; at least two rows are needed, one a sample")
    if samples[0].size != dataset.num_pixels:
        raise DataError(
            f"A sample has {samples[0].size} values and an image of {dataset.name} has {dataset.num_pixels} pixels; "
            "score them against the data set they imitate"
        )
    dtype = np.float64 if samples.dtype == np.float64 else np.float32
    samples_ND = np.ascontiguousarray(samples.reshape(len(samples), -1), dtype=dtype)
    if not np.isfinite(samples_ND).all():
        row = int(np.flatnonzero(~np.isfinite(samples_ND).all(axis=1))[0])
        raise DataError(f"Sample {row} holds a NaN or an infinity; a density under it means nothing")
    return samples_ND
