"""The Parzen-window log density of queries under samples, for every sigma in one pass.

    ll[s, m] = logmeanexp_n(-‖q_m - x_n‖² / (2 σ_s²)) - D · log(σ_s √(2π))

The distances are found once and serve all sigmas. Axes: M queries, N samples (centres), D data dimension, S sigmas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import home_of, require_array
from fastgan.kernels.common.backends import implementation, resolve
from fastgan.kernels.common.exchange import to_device, to_host

# Beyond these the square of sigma, or of its inverse, leaves float64's range.
MIN_SIGMA, MAX_SIGMA = 1e-100, 1e100


def log_density(
    queries_MD: Any,
    samples_ND: Any,
    sigmas_S: Any,
    *,
    progress: Callable[[int], None] | None = None,
    backend: str = "auto",
) -> NDArray[np.float64]:
    """Compute log densities in nats.

    The arrays are NumPy's, or anything that speaks DLPack or the CUDA array interface, and C-contiguous. They are read
    where they lie, if that is where the backend computes; else they are copied there. NaN passes on: a query that holds
    one has a NaN for its density, and so have all queries where a sample holds one.

    Parameters
    ----------
    queries_MD : (M, D) float32 or float64
        Where the density is asked for; D >= 1.
    samples_ND : (N, D) float32 or float64
        The centres, N >= 1.
    sigmas_S : (S,) float32 or float64
        The windows' standard deviations, 1e-100 to 1e100, S >= 1.
    progress : callable, optional
        Called with the number of queries that have been done since the last call, from any thread.
    backend : str
        As for ``backends.resolve``.

    Returns
    -------
    (S, M) float64
        One row a sigma, on the host. The backends ``cpu`` and ``cupy`` are to be within 0.01 nats of the definition,
        and 0.001 from sigma 0.2 on: they measure what their products are off by, ``cpu`` for each query, and compute
        in float64 what they cannot have to that from float32. ``numba-cuda`` computes all of it in float64.

    Raises
    ------
    TypeError, ValueError
        An argument is not of this kind; the message names it.
    BackendError
        The backend cannot run here, or an array lies on a device that cannot be read here.
    """
    there = resolve(backend)
    take = to_device if there == "cupy" else to_host
    queries_MD, samples_ND = (
        array if home_of(array) == there else take(name, array)
        for name, array in (("queries", queries_MD), ("samples", samples_ND))
    )
    sigmas_S = to_host("sigmas", sigmas_S)
    if isinstance(sigmas_S, np.ndarray) and sigmas_S.dtype == np.float32:
        sigmas_S = sigmas_S.astype(np.float64)
    require_array("queries", queries_MD, (None, None))
    require_array("samples", samples_ND, (None, queries_MD.shape[1]))
    require_array("sigmas", sigmas_S, (None,))
    if not queries_MD.shape[1]:
        raise ValueError("queries has no columns; it needs at least one")
    if not len(samples_ND):
        raise ValueError("samples has no rows; it needs at least one")
    if not len(sigmas_S) or not all(np.isfinite(sigma) and sigma > 0 for sigma in sigmas_S):
        raise ValueError(f"sigmas is {list(map(float, sigmas_S))}; it must hold finite numbers > 0, one at least")
    if sigmas_S.min() < MIN_SIGMA or sigmas_S.max() > MAX_SIGMA:
        raise ValueError(f"sigmas is {list(map(float, sigmas_S))}; each must lie between {MIN_SIGMA} and {MAX_SIGMA}")
    result: NDArray[np.float64] = implementation(__name__, backend).log_density(
        queries_MD, samples_ND, np.asarray(sigmas_S, np.float64), progress
    )
    return result
