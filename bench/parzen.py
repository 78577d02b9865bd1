"""The Parzen log density of M queries under N samples for S sigmas, against the bare product and against its peers.

The data are made up, of MNIST's size, share of black pixels and spread. Every case is held against float64 direct
differences on some of the queries before it is timed, and none may be off by more than 0.01 nats, except where the row
says by how much it is. A peer too slow to be given all the work gets a part of the queries, and the row says which: its
time is that of the part. Full, a round takes a minute or more of one core, so `--min-repeats 5` will do.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from bench.blas import Gemm, GemmSequence
from bench.harness import Case, comparison, rested
from fastgan.kernels.parzen import reference
from fastgan.scoring import sigma_grid

_MAX_ERROR = 0.01
_CHECKED = 64
# Queries for the peers that need seconds for a hundred, and for those that need seconds for five.
_FEW, _FEWER = 100, 5

Array = NDArray[np.float32]
Density = NDArray[np.float64]


@comparison("parzen", "The Parzen log density, ten sigmas, against the bare product and its peers.")
def parzen(full: bool) -> Iterator[Case]:
    """Yield the product, fastgan and the peers at the issue's size (a fifth of it when quick), then a sweep."""
    M = N = 10_000 if full else 2_000
    work = _Work(M, N, 784, 10)
    yield from _own(work)
    yield from _peers(work)
    size = 5_000 if full else 1_000
    # One of N, D and S at a time; S = 1 beside S = 10 says what a sigma costs.
    for n, D, S in (
        (size, 784, 10), (2 * size, 784, 10), (size, 196, 10), (size, 3072, 10), (size, 784, 1), (size, 784, 100),
    ):  # fmt: skip
        yield from _own(_Work(1_000, n, D, S))


class _Work:
    """Queries, samples and sigmas of a size, and the right answers for some of the queries."""

    def __init__(self, M: int, N: int, D: int, S: int) -> None:
        random = np.random.default_rng(0)
        self.queries, self.samples = _images(random, M, D), _images(random, N, D)
        # One sigma is the one that MNIST's training images choose.
        self.sigmas = sigma_grid(count=S) if S > 1 else np.array([0.1668])
        self.params = {"M": M, "N": N, "D": D, "S": S}
        self.expected = reference.log_density(self.queries[:_CHECKED], self.samples, self.sigmas, None)

    def case(
        self,
        name: str,
        compute: Callable[[Array], Density],
        num_queries: int | None = None,
        error: float | None = None,
        **options: Any,
    ) -> Case:
        """Make a case of a function from queries to (S, M) log densities; ``error`` is one that is stated, in nats."""
        few = "" if num_queries is None else f", {num_queries} of the queries"
        off = "" if error is None else f" (off by up to {error:.0f} nats)"
        queries = self.queries if num_queries is None else self.queries[:num_queries]
        M, N, D = len(queries), self.params["N"], self.params["D"]
        return Case(
            f"{name}{few}{off}",
            params=self.params,
            run=lambda: compute(queries),
            verify=lambda: self.check(compute, error),
            setup=rested,
            flop=2.0 * M * N * D,
            bound="bare sgemm" if num_queries is None else None,
            **options,
        )

    def worst_error(self, compute: Callable[[Array], Density]) -> float:
        """Give the greatest error in nats over the queries that are checked."""
        # As many queries as a peer that takes few is given at least.
        found = compute(self.queries[:_FEWER])
        return float(np.abs(found - self.expected[:, : len(found[0])]).max())

    def check(self, compute: Callable[[Array], Density], error: float | None) -> None:
        """Raise ``AssertionError`` where the result is off by more than is allowed, or stated."""
        found = compute(self.queries[:_CHECKED])
        assert np.isfinite(found).all(), "a log density is not finite"
        worst = float(np.abs(found - self.expected).max())
        allowed = _MAX_ERROR if error is None else 1.5 * error
        assert worst <= allowed, f"the worst error is {worst:.3g} nats; at most {allowed:.3g} are allowed"


def _images(random: np.random.Generator, num_rows: int, D: int) -> Array:
    """Make rows of which four fifths are black, as of digits: one of 100 random shapes each, blurred by noise."""
    shapes = np.where(random.random((100, D)) < 0.2, random.random((100, D)), 0)
    noisy = shapes[random.integers(0, 100, num_rows)] * (1 + 0.2 * random.standard_normal((num_rows, D)))
    return np.clip(noisy, 0, 1).astype(np.float32)


def _own(work: _Work) -> Iterator[Case]:
    M, N, D = (work.params[key] for key in "MND")
    shape = [Gemm(M, N, D, trans_b=True)]
    # The faster library of the two is the bound.
    sequence = min((GemmSequence(shape, library) for library in ("numpy", "scipy")), key=_time_once)
    yield Case(
        "bare sgemm",
        params=work.params,
        run=sequence.run,
        setup=rested,
        verify=sequence.verify,
        flop=sequence.flop,
    )
    cpu = importlib.import_module("fastgan.kernels.parzen.cpu")
    yield work.case("fastgan cpu", lambda queries: cpu.log_density(queries, work.samples, work.sigmas, None))


def _peers(work: _Work) -> Iterator[Case]:
    samples, sigmas = work.samples, work.sigmas
    yield work.case(
        "fastgan reference", lambda queries: reference.log_density(queries, samples, sigmas, None), _FEW,
        precision="float64",
    )  # fmt: skip
    yield work.case("SciPy cdist + logsumexp", lambda queries: _scipy(queries, samples, sigmas), _FEW)
    yield work.case("NumPy broadcast", lambda queries: _broadcast(queries, samples, sigmas), _FEWER)
    if importlib.util.find_spec("torch") is None:
        yield Case("torch cdist + logsumexp", params=work.params, missing="not installed: pip install torch")
    else:
        import torch

        x, s = torch.from_numpy(samples), torch.from_numpy(sigmas)
        yield work.case(
            "torch cdist + logsumexp", lambda queries: _torch(torch.from_numpy(queries), x, s),
            packages=("torch",), threads=f"torch {torch.get_num_threads()}",
        )  # fmt: skip
    if importlib.util.find_spec("sklearn") is None:
        missing = "not installed: pip install scikit-learn"
        yield Case("scikit-learn KernelDensity", params=work.params, missing=missing)
        yield Case("scikit-learn KernelDensity, leaf_size = N", params=work.params, missing=missing)
    else:
        packages = {"packages": ("scikit-learn",), "precision": "float64"}
        # With its default tree of small leaves the bounds' rounding adds up, in 784 dimensions, to this much.
        default = _kernel_density(samples, sigmas, 40)
        error = work.worst_error(default)
        yield work.case(
            "scikit-learn KernelDensity", default, _FEWER, error=error if error > _MAX_ERROR else None, **packages
        )
        brute = _kernel_density(samples, sigmas, len(samples))
        yield work.case("scikit-learn KernelDensity, leaf_size = N", brute, _FEWER, **packages)
    # Compiles for minutes at its first use, which is no part of a quick look.
    yield Case("KeOps", params=work.params, missing="not run here: pip install pykeops, and a C++ compiler")


def _scipy(queries: Array, samples: Array, sigmas: Density) -> Density:
    distances = cdist(queries, samples, "sqeuclidean")
    return np.stack([logsumexp(distances * (-0.5 / s**2), axis=1) for s in sigmas]) - _constant(samples, sigmas)


def _broadcast(queries: Array, samples: Array, sigmas: Density) -> Density:
    """Compute as the script that was published with the paper: a pass for every sigma, all differences at once."""
    rows = []
    for sigma in sigmas:
        exponents = -0.5 * (((queries[:, None, :] - samples[None]) / sigma) ** 2).sum(axis=2, dtype=np.float64)
        greatest = exponents.max(axis=1, keepdims=True)
        rows.append(np.log(np.exp(exponents - greatest).sum(axis=1)) + greatest[:, 0])
    return np.stack(rows) - _constant(samples, sigmas)


def _torch(queries: Any, samples: Any, sigmas: Any) -> Density:
    import torch

    rows = []
    for sigma in sigmas:
        squares = torch.cdist(queries, samples).square_()
        rows.append(torch.logsumexp(squares.mul_(-0.5 / float(sigma) ** 2), dim=1))
    return torch.stack(rows).numpy().astype(np.float64) - _constant(samples.numpy(), sigmas.numpy())


def _kernel_density(samples: Array, sigmas: Density, leaf_size: int) -> Callable[[Array], Density]:
    from sklearn.neighbors import KernelDensity

    models = [KernelDensity(bandwidth=float(s), leaf_size=leaf_size).fit(samples) for s in sigmas]
    return lambda queries: np.stack([model.score_samples(queries) for model in models])


def _constant(samples: Array, sigmas: Density) -> Density:
    constant: Density = (np.log(len(samples)) + samples.shape[1] * np.log(sigmas * np.sqrt(2 * np.pi)))[:, None]
    return constant


def _time_once(sequence: GemmSequence) -> float:
    import time

    sequence.run()
    started = time.perf_counter()
    sequence.run()
    return time.perf_counter() - started
