"""The Parzen-window log density of queries under samples, for every sigma in one pass.

    ll[s, m] = logmeanexp_n(-‖q_m - x_n‖² / (2 σ_s²)) - D · log(σ_s √(2π))

The distances are found once and serve all sigmas. Axes: M queries, N samples (centres), D data dimension, S sigmas.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, require_array
from fastgan.kernels.common.backends import implementation


def log_density(
    queries_MD: Array,
    samples_ND: Array,
    sigmas_S: Array,
    *,
    progress: Callable[[int], None] | None = None,
    backend: str = "auto",
) -> NDArray[np.float64]:
    """Compute log densities in nats.

    Parameters
    ----------
    queries_MD : (M, D) float32 or float64
        Where the density is asked for.
    samples_ND : (N, D) float32 or float64
        The centres, N >= 1.
    sigmas_S : (S,) float32 or float64
        The windows' standard deviations, finite and > 0.
    progress : callable, optional
        Called with the number of queries that have been done since the last call, from any thread.
    backend : str
        As for ``backends.resolve``.

    Returns
    -------
    (S, M) float64
        One row a sigma.

    Raises
    ------
    TypeError, ValueError
        An argument is not of this kind; the message names it.
    """
    require_array("queries", queries_MD, (None, None))
    require_array("samples", samples_ND, (None, queries_MD.shape[1]))
    require_array("sigmas", sigmas_S, (None,))
    if not len(samples_ND):
        raise ValueError("samples has no rows; it needs at least one")
    # Sigmas are the host's own few numbers, so reading them waits for nothing.
    if not len(sigmas_S) or not all(np.isfinite(sigma) and sigma > 0 for sigma in sigmas_S):
        raise ValueError(f"sigmas is {list(map(float, sigmas_S))}; it must hold finite numbers > 0, one at least")
    result: NDArray[np.float64] = implementation(__name__, backend).log_density(
        queries_MD, samples_ND, np.asarray(sigmas_S, np.float64), progress
    )
    return result
