"""The Parzen log density on a CPU: a BLAS product a tile, then every sigma's exponentials from it in one parallel loop.

A tile's squared distances are ‖q‖² + ‖x‖² - 2 q·x in float32, of data from which the samples' mean was subtracted:
the norms, and with them what the sum cancels, are then as small as they get. What is lost all the same, over σ², is the
error in nats; sigmas for which its estimate is above 0.01 take direct differences in float64 instead, some ten times
slower. So the result is right for any data and any sigma: only the time depends on them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.blas import gemm

# A tile of products is 8 MB: it stays in the last cache between BLAS and the loop, while a row of it, and the distances
# made from it, stay in the first. Samples are centred again for each tile of queries: seldom, so that it costs little.
_QUERIES_A_TILE = 2048
_SAMPLES_A_TILE = 1024
_MAX_ERROR = 0.01
# The error of a distance over eps · (greatest ‖q‖² + greatest ‖x‖²): measured as 1.3 on MNIST, D = 784.
_ERROR_FACTOR = 3.0
_LOG2_E = 1.4426950408889634
# Below this exponent a float32 sum that holds a 1 cannot see the term, and 2^x is still a normal number.
_LEAST_EXPONENT = np.float32(-126.0)
# Sums of float32 terms may be taken in any order and fused: but NaN and infinity keep their meaning.
_ANY_ORDER = {"reassoc", "contract", "nsz"}


def log_density(
    queries_MD: Array, samples_ND: Array, sigmas_S: NDArray[np.float64], progress: Callable[[int], None] | None
) -> NDArray[np.float64]:
    """Fill (S, M) tile by tile, in a fixed order."""
    M, D = queries_MD.shape
    N = len(samples_ND)
    # Any shift does, as long as queries and samples have the same.
    mean_D = samples_ND.mean(axis=0, dtype=np.float64).astype(samples_ND.dtype)
    queries, query_norms = _buffers(min(M, _QUERIES_A_TILE), D)
    samples, sample_norms = _buffers(min(N, _SAMPLES_A_TILE), D)
    products = np.empty(len(queries) * len(samples), np.float32)

    greatest_norm = sum(_greatest_norm(rows, mean_D) for rows in (queries_MD, samples_ND))
    errors_S = _ERROR_FACTOR * np.finfo(np.float32).eps * greatest_norm * 0.5 / sigmas_S**2
    # Written so that NaN, of data whose norms overflow, takes the direct way too.
    fast_S = errors_S <= _MAX_ERROR
    # In the units of 2^x, which the loop computes.
    rates_S = 0.5 * _LOG2_E / sigmas_S**2

    out_SM = np.empty((len(sigmas_S), M))
    for m in range(0, M, _QUERIES_A_TILE):
        tile = slice(m, min(m + _QUERIES_A_TILE, M))
        T = tile.stop - tile.start
        if fast_S.any():
            _centre(queries_MD[tile], mean_D, queries, query_norms)
            rates = rates_S[fast_S]
            least_T = np.full(T, np.inf, np.float32)
            sums_TS = np.zeros((T, len(rates)))
            for n in range(0, N, _SAMPLES_A_TILE):
                # Centred a tile at a time, so that no second copy of all the samples is ever held.
                rows_ND = samples_ND[n : n + _SAMPLES_A_TILE]
                _centre(rows_ND, mean_D, samples, sample_norms)
                product = products[: T * len(rows_ND)].reshape(T, len(rows_ND))
                gemm(queries[:T], samples[: len(rows_ND)].T, product)
                _accumulate(product, query_norms, sample_norms, rates, least_T, sums_TS)
            out_SM[fast_S, tile] = (np.log(sums_TS) - rates / _LOG2_E * least_T[:, None]).T
        if not fast_S.all():
            out_TS = np.empty((T, int((~fast_S).sum())))
            _log_sums_directly(queries_MD[tile], samples_ND, 0.5 / sigmas_S[~fast_S] ** 2, out_TS)
            out_SM[~fast_S, tile] = out_TS.T
        if progress is not None:
            progress(T)
    out_SM -= (np.log(N) + D * np.log(sigmas_S * np.sqrt(2.0 * np.pi)))[:, None]
    return out_SM


def _buffers(num_rows: int, D: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.empty((num_rows, D), np.float32), np.empty(num_rows, np.float32)


def _greatest_norm(rows_ND: Array, mean_D: Array) -> float:
    if not len(rows_ND):
        return 0.0
    norms_N = np.empty(len(rows_ND))
    _norms(rows_ND, mean_D, norms_N)
    return float(norms_N.max())


@njit(parallel=True, cache=True, nogil=True, error_model="numpy", fastmath=_ANY_ORDER)
def _norms(rows_ND, mean_D, out_N):  # type: ignore[no-untyped-def]
    """Find the squared norms of centred rows."""
    for n in prange(rows_ND.shape[0]):
        total = 0.0
        for d in range(rows_ND.shape[1]):
            x = np.float64(rows_ND[n, d]) - np.float64(mean_D[d])
            total += x * x
        out_N[n] = total


@njit(parallel=True, cache=True, nogil=True, error_model="numpy", fastmath=_ANY_ORDER)
def _centre(rows_TD, mean_D, out_TD, norms_T):  # type: ignore[no-untyped-def]
    """Subtract the mean and find the squared norms, in one pass."""
    for t in prange(rows_TD.shape[0]):
        total = 0.0
        for d in range(rows_TD.shape[1]):
            x = np.float32(rows_TD[t, d] - mean_D[d])
            out_TD[t, d] = x
            total += np.float64(x) * np.float64(x)
        norms_T[t] = total


@njit(parallel=True, cache=True, nogil=True, error_model="numpy", fastmath=_ANY_ORDER)
def _accumulate(product, query_norms_T, sample_norms_N, rates_S, least_T, sums_TS):  # type: ignore[no-untyped-def]
    """Add a tile's terms to each query's sums, relative to its least distance so far."""
    num_samples = product.shape[1]
    for t in prange(product.shape[0]):
        distances = np.empty(num_samples, np.float32)
        least = np.float32(np.inf)
        for n in range(num_samples):
            # Rounding may take the distance of a twin a little below 0.
            d = max(query_norms_T[t] + sample_norms_N[n] - np.float32(2.0) * product[t, n], np.float32(0.0))
            distances[n] = d
            least = min(least, d)
        new_least = min(least_T[t], least)
        fall = np.float64(least_T[t]) - np.float64(new_least)
        for s in range(rates_S.shape[0]):
            rate = np.float32(rates_S[s])
            total = np.float32(0.0)
            for n in range(num_samples):
                total += _exp2((new_least - distances[n]) * rate)
            # The first tile's fall is infinite, and there is nothing to scale yet.
            if sums_TS[t, s] != 0.0:
                sums_TS[t, s] *= np.exp2(-rates_S[s] * fall)
            sums_TS[t, s] += np.float64(total)
        least_T[t] = new_least


@njit(inline="always")
def _exp2(x):  # type: ignore[no-untyped-def]
    """Compute 2^x of float32 x <= 0 to 2 units in the last place: a polynomial, as no library's exp vectorises here."""
    x = max(x, _LEAST_EXPONENT)
    whole = np.floor(x)
    f = x - whole
    # 2^f = 1 + f·q(f) on [0, 1): exact at 0, elsewhere within 8.3e-8 before rounding.
    q = np.float32(1.8671301659196615e-3)
    q = q * f + np.float32(9.017029777169228e-3)
    q = q * f + np.float32(5.579991266131401e-2)
    q = q * f + np.float32(2.4016444385051727e-1)
    q = q * f + np.float32(6.931512951850891e-1)
    # 2^whole by its bits: (whole + 127) · 2^23 is a whole number that float32 holds exactly.
    scale = np.int32((whole + np.float32(127.0)) * np.float32(8388608.0)).view(np.float32)
    return (np.float32(1.0) + f * q) * scale


@njit(parallel=True, cache=True, nogil=True, error_model="numpy", fastmath=_ANY_ORDER)
def _log_sums_directly(queries_TD, samples_ND, precisions_S, out_TS):  # type: ignore[no-untyped-def]
    """Find log Σ_n exp(-precision · ‖q - x_n‖²) by direct differences in float64."""
    num_samples, D = samples_ND.shape
    for t in prange(queries_TD.shape[0]):
        distances = np.empty(num_samples)
        least = np.inf
        for n in range(num_samples):
            total = 0.0
            for d in range(D):
                difference = np.float64(queries_TD[t, d]) - np.float64(samples_ND[n, d])
                total += difference * difference
            distances[n] = total
            least = min(least, total)
        for s in range(precisions_S.shape[0]):
            total = 0.0
            for n in range(num_samples):
                total += np.exp(precisions_S[s] * (least - distances[n]))
            out_TS[t, s] = np.log(total) - precisions_S[s] * least
