"""The definition of the Parzen log density: direct differences in float64, tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.threads import num_threads

_QUERIES_A_TILE = 64
_SAMPLES_A_TILE = 4096


def log_density(
    queries_MD: Array, samples_ND: Array, sigmas_S: NDArray[np.float64], progress: Callable[[int], None] | None
) -> NDArray[np.float64]:
    """Fill (S, M), a tile of queries at a time; tiles are independent, so any number of threads gives the same bits."""
    M, D = queries_MD.shape
    N, S = len(samples_ND), len(sigmas_S)
    out_SM = np.empty((S, M))
    precisions_S = 0.5 / sigmas_S**2

    def fill(start: int) -> None:
        tile = slice(start, min(start + _QUERIES_A_TILE, M))
        queries_TD = queries_MD[tile].astype(np.float64)
        # A streaming log-sum-exp: the least distance so far serves every sigma, the sums are relative to it.
        least_T = np.full(len(queries_TD), np.inf)
        sums_ST = np.zeros((S, len(queries_TD)))
        for n in range(0, N, _SAMPLES_A_TILE):
            distances_TN = cdist(queries_TD, samples_ND[n : n + _SAMPLES_A_TILE], "sqeuclidean")
            new_least_T = np.minimum(least_T, distances_TN.min(axis=1))
            # A distance that overflowed has no density; where all so far did, nothing is there to be relative to.
            shift_T = np.where(new_least_T == np.inf, 0.0, new_least_T)
            fall_T = np.where(least_T == np.inf, 0.0, least_T - shift_T)
            distances_TN -= shift_T[:, None]
            # Narrow windows take exponents out of float64's range, where the term is 0.
            with np.errstate(over="ignore"):
                for s in range(S):
                    sums_ST[s] *= np.exp(-precisions_S[s] * fall_T)
                    sums_ST[s] += np.exp(-precisions_S[s] * distances_TN).sum(axis=1)
            least_T = new_least_T
        with np.errstate(over="ignore", divide="ignore"):
            out_SM[:, tile] = np.log(sums_ST) - precisions_S[:, None] * least_T - np.log(N)
        if progress is not None:
            progress(len(queries_TD))

    with ThreadPoolExecutor(num_threads()) as executor:
        # list() so that an exception of a tile is raised here.
        list(executor.map(fill, range(0, M, _QUERIES_A_TILE)))
    out_SM -= D * np.log(sigmas_S * np.sqrt(2.0 * np.pi))[:, None]
    return out_SM
