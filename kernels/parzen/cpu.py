"""The Parzen log density on a CPU: a product a tile, then every sigma's exponentials from it in one parallel loop.

A tile's squared distances are ‖q‖² + ‖x‖² - 2 q·x in float32, of data from which the samples' mean was subtracted (the
norms, and with them what the sum cancels, are then as small as they get) and which a power of two brings to norms near
1, so that no square leaves float32's range. What is lost all the same, over σ², is the error in nats.

What may be lost is 0.01 nats, and 0.001 from σ = 0.2 on. Sigmas for which an estimate, measured on a block of pairs, is
above that take the product only to find the samples that can matter: those within 80 σ² of the nearest, and twice a
bound of the rounding more. Their distances are found anew, by direct differences in float64. For all other sigmas each
query is checked at the end: the distance of its nearest sample is found directly, too, and where the product was off by
more than half of what may be lost, so is all of the query's density. So the result holds for any data, as far as a
nearest sample tells of the others, and for any sigma; only the time depends on them: a narrow window sees few samples,
unless all are alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, Workspace
from fastgan.kernels.common.loops import inlined_with, loop_with, prange
from fastgan.kernels.common.products import product

# A tile of products is 8 MB: it stays in the last cache until the loop takes it, while a row of it, and the distances
# made from it, stay in the first. Samples are centred again for each tile of queries: seldom, so that it costs little.
_QUERIES_A_TILE = 2048
_SAMPLES_A_TILE = 1024
# A centred tile of very wide rows would be larger than everything else: 64 MB of it are enough.
_NUMBERS_A_TILE = 1 << 24
_EPS = float(np.finfo(np.float32).eps)
# The error of a distance over eps · (greatest ‖q‖² + greatest ‖x‖²) is 1.3 at most on MNIST and on random data of any
# D, but 24 where all rows are plain grey: equal terms round the same way each time. So it is measured too, on a block
# of pairs, the longest rows among them, and the greater of the two is believed, with a little room: on MNIST that is
# twice what any density is off by.
_ERROR_FACTOR = 2.0
_PROBED_ROWS, PROBED_NUMBERS = 128, 1 << 21
_ROWS_IN_FLOAT64 = 32
_ROOM = 1.25
_ROOM_OF_A_QUERY = 2.0
# Terms below e^-40 of the greatest are left out of an exact sum: a million of them are 4e-12 nats.
_LEAST_LOG_TERM = 40.0
LOG2_E = 1.4426950408889634
# The rates of float32's exponentials: beyond these, which are infinite there, a twin's distance times one is NaN.
MAX_RATE = float(np.finfo(np.float32).max)
# Below this exponent a float32 sum that holds a 1 cannot see the term, and 2^x is still a normal number.
_LEAST_EXPONENT = np.float32(-126.0)
# Sums may be taken in any order and fused: but NaN and infinity keep their meaning.
_ANY_ORDER = ("reassoc", "contract", "nsz")


def max_error(sigmas_S: NDArray[np.float64]) -> NDArray[np.float64]:
    """Say how many nats a density under each sigma may be off by."""
    return np.where(sigmas_S < 0.2, 0.01, 0.001)


def log_density(
    queries_MD: Array, samples_ND: Array, sigmas_S: NDArray[np.float64], progress: Callable[[int], None] | None
) -> NDArray[np.float64]:
    """Fill (S, M) tile by tile, in a fixed order, and anew where a query's nearest distance was off."""
    out_SM, unsure_SM = _tile_by_tile(queries_MD, samples_ND, sigmas_S, progress)
    of_some_S, all_unsure = unsure_SM.any(axis=1), np.flatnonzero(unsure_SM.any(axis=0))
    for first in range(0, len(all_unsure), _QUERIES_A_TILE):
        some = all_unsure[first : first + _QUERIES_A_TILE]
        anew, _ = _tile_by_tile(queries_MD[some], samples_ND, sigmas_S[of_some_S], None, directly=True)
        out_SM[np.ix_(of_some_S, some)] = anew
    return out_SM


def _tile_by_tile(
    queries_MD: Array,
    samples_ND: Array,
    sigmas_S: NDArray[np.float64],
    progress: Callable[[int], None] | None,
    *,
    directly: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Give log densities, and which of them may be off; ``directly``: no sum is made of the product's distances."""
    M, D = queries_MD.shape
    N, S = len(samples_ND), len(sigmas_S)
    out_SM = np.empty((S, M))
    tile_rows = max(64, _NUMBERS_A_TILE // D)
    queries, query_norms = _buffers(min(M, _QUERIES_A_TILE, tile_rows), D)
    samples, sample_norms = _buffers(min(N, _SAMPLES_A_TILE, tile_rows), D)
    room = np.empty(len(queries) * len(samples), np.float32)
    workspace = Workspace()

    # Extreme data and sigmas overflow to infinity, or NaN, in these few numbers: which then mean "not fast".
    with np.errstate(all="ignore"):
        mean_D = samples_ND.mean(axis=0, dtype=np.float64)
        norms_M, norms_N = _all_norms(queries_MD, mean_D), _all_norms(samples_ND, mean_D)
        # NumPy's maximum is NaN where one of them is.
        greatest_norm = float(norms_M.max(initial=0.0) + norms_N.max())
        usable = np.isfinite(greatest_norm)
        scale = 2.0 ** -np.round(0.5 * np.log2(greatest_norm)) if usable and greatest_norm > 0 else 1.0
        greatest_norm *= scale * scale
        # In the units of 2^x, which the loop computes, and of the scaled distances.
        rates_S = 0.5 * LOG2_E * (1.0 / (sigmas_S * scale)) ** 2
        distance_error = np.inf
        if usable and M and not directly:
            # Copies that nothing holds on to.
            distance_error = product_error(
                queries_MD[telling_rows(norms_M, D)],
                samples_ND[telling_rows(norms_N, D)],
                mean_D,
                scale,
                greatest_norm,
            )
        # Written so that NaN, of data whose norms overflow, is not fast either.
        fast_S = (distance_error * rates_S / LOG2_E <= max_error(sigmas_S)) & (rates_S <= MAX_RATE)
        exact_S = ~fast_S
        precisions = 0.5 / sigmas_S[exact_S] ** 2
        # The distance beyond which a sample cannot matter, from the least distance on, both as the products give them.
        # A product of D terms is off by at most D eps / 2 · ‖q‖ ‖x‖, the norms, sums and centred numbers by a few eps.
        margin = np.inf
        if usable and len(precisions):
            margin = 2 * _LEAST_LOG_TERM * (sigmas_S[exact_S].max() * scale) ** 2
            margin += 2 * (D / 2 + 8) * _EPS * greatest_norm

    unsure_SM = np.zeros((S, M), bool)
    for m in range(0, M, max(1, len(queries))):
        tile = slice(m, min(m + len(queries), M))
        T = tile.stop - tile.start
        _centre(queries_MD[tile], mean_D, scale, queries, query_norms, size=T * D)
        fast_rates = rates_S[fast_S]
        fast_least_T, fast_sums_TS = np.full(T, np.inf, np.float32), np.zeros((T, len(fast_rates)))
        nearest_T = np.zeros(T, np.int64)
        near_T, least_T = np.full(T, np.inf), np.full(T, np.inf)
        sums_TS = np.zeros((T, len(precisions)))
        for n in range(0, N, len(samples)):
            # Centred a tile at a time, so that no second copy of all the samples is ever held.
            rows_ND = samples_ND[n : n + len(samples)]
            _centre(rows_ND, mean_D, scale, samples, sample_norms, size=rows_ND.size)
            products_TN = room[: T * len(rows_ND)].reshape(T, len(rows_ND))
            product(queries[:T], samples[: len(rows_ND)].T, products_TN, workspace)
            if len(fast_rates):
                _accumulate(
                    products_TN,
                    query_norms,
                    sample_norms,
                    fast_rates,
                    n,
                    fast_least_T,
                    nearest_T,
                    fast_sums_TS,
                    size=products_TN.size * len(fast_rates),
                )
            if len(precisions):
                _accumulate_exactly(
                    products_TN, query_norms, sample_norms, queries_MD[tile], rows_ND, margin, precisions,
                    near_T, least_T, sums_TS, size=products_TN.size * D,
                )  # fmt: skip
        # The logarithm of 0 is right where every distance overflows: no density is left there.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            out_SM[fast_S, tile] = (np.log(fast_sums_TS) - fast_rates / LOG2_E * fast_least_T[:, None]).T
            out_SM[exact_S, tile] = (np.log(sums_TS) - precisions * least_T[:, None]).T
        if len(fast_rates):
            exact_T = np.empty(T)
            _distances(queries_MD[tile], samples_ND, nearest_T, exact_T, size=T * D)
            off_T = np.abs(fast_least_T / scale**2 - exact_T)
            may_be_off_S = 2.0 * sigmas_S[fast_S] ** 2 * max_error(sigmas_S[fast_S]) / _ROOM_OF_A_QUERY
            unsure_SM[fast_S, tile] = off_T > may_be_off_S[:, None]
        if progress is not None:
            progress(T)
    out_SM -= (np.log(N) + D * np.log(sigmas_S * np.sqrt(2.0 * np.pi)))[:, None]
    return out_SM, unsure_SM


def _buffers(num_rows: int, D: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.empty((num_rows, D), np.float32), np.empty(num_rows, np.float32)


def _all_norms(rows_ND: Array, mean_D: NDArray[np.float64]) -> NDArray[np.float64]:
    norms_N = np.empty(len(rows_ND))
    _norms(rows_ND, mean_D, norms_N, size=rows_ND.size)
    return norms_N


def telling_rows(norms_N: NDArray[np.float64], D: int) -> NDArray[np.intp]:
    """Choose rows of ``D`` numbers to measure an error on: the longest, and some from all over.

    Parameters
    ----------
    norms_N : (N,) float64
        The rows' squared norms; N >= 1.
    D : int
        There are fewer where they are very long.

    Returns
    -------
    (any,) intp
        Their places, ascending.
    """
    half = max(4, min(_PROBED_ROWS, PROBED_NUMBERS // D) // 2)
    N = len(norms_N)
    longest = np.argpartition(norms_N, max(0, N - half))[-half:]
    return np.union1d(longest, np.arange(0, N, -(-N // half)))


def product_error(
    queries: Array, samples: Array, mean_D: NDArray[np.float64], scale: float, greatest_norm: float
) -> float:
    """Estimate the error of the distances that a float32 product of centred, scaled data gives.

    Parameters
    ----------
    queries, samples : (any, D)
        Some rows of each, to measure on.
    mean_D, scale
        What is subtracted from them, and what they are then multiplied by.
    greatest_norm : float
        Of all the scaled queries and samples, the greatest squared norms' sum.

    Returns
    -------
    float
    """
    (q, q_norms), (x, x_norms) = (_buffers(*rows.shape) for rows in (queries, samples))
    _centre(queries, mean_D, scale, q, q_norms, size=q.size)
    _centre(samples, mean_D, scale, x, x_norms, size=x.size)
    products = np.empty((len(q), len(x)), np.float32)
    product(q, x.T, products, Workspace())
    distances = q_norms[:, None] + x_norms - np.float32(2.0) * products
    # In float64 the same sum is exact for this purpose, and quicker than direct differences. Some rows at a time:
    # float64 copies of all would be the most memory that anything here takes.
    x64, measured = x.astype(np.float64), 0.0
    x64_norms = np.square(x64).sum(axis=1)
    for first in range(0, len(q), _ROWS_IN_FLOAT64):
        some = slice(first, first + _ROWS_IN_FLOAT64)
        q64 = q[some].astype(np.float64)
        exact = np.empty((len(q64), len(x64)))
        product(q64, x64.T, exact, Workspace())
        exact = np.square(q64).sum(axis=1)[:, None] + x64_norms - 2.0 * exact
        measured = max(measured, float(np.abs(distances[some] - exact).max()))
    return estimated_error(greatest_norm, measured)


def estimated_error(greatest_norm: float, measured: float) -> float:
    """Estimate the error of all distances from the greatest norms' sum, and from what was measured of some."""
    return max(_ERROR_FACTOR * _EPS * greatest_norm, _ROOM * measured)


@loop_with(*_ANY_ORDER)
def _norms(rows_ND: Any, mean_D: Any, out_N: Any) -> None:
    """Find the squared norms of centred rows."""
    for n in prange(rows_ND.shape[0]):
        total = 0.0
        for d in range(rows_ND.shape[1]):
            x = np.float64(rows_ND[n, d]) - mean_D[d]
            total += x * x
        out_N[n] = total


@loop_with(*_ANY_ORDER)
def _centre(rows_TD: Any, mean_D: Any, scale: Any, out_TD: Any, norms_T: Any) -> None:
    """Subtract the mean, scale, and find the squared norms, in one pass."""
    for t in prange(rows_TD.shape[0]):
        total = 0.0
        for d in range(rows_TD.shape[1]):
            x = np.float32((np.float64(rows_TD[t, d]) - mean_D[d]) * scale)
            out_TD[t, d] = x
            total += np.float64(x) * np.float64(x)
        norms_T[t] = total


@loop_with(*_ANY_ORDER)
def _accumulate(
    product: Any, query_norms_T: Any, sample_norms_N: Any, rates_S: Any, first: Any, least_T: Any, nearest_T: Any,
    sums_TS: Any,
) -> None:  # fmt: skip
    """Add a tile's terms, of samples from ``first`` on, to each query's sums, relative to its least distance so far."""
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
        if new_least < least_T[t]:
            for n in range(num_samples):
                if distances[n] == new_least:
                    nearest_T[t] = first + n
                    break
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


@loop_with(*_ANY_ORDER)
def _distances(queries_TD: Any, samples_ND: Any, nearest_T: Any, out_T: Any) -> None:
    """Find each query's squared distance to one sample, directly."""
    for t in prange(queries_TD.shape[0]):
        total = 0.0
        for d in range(queries_TD.shape[1]):
            difference = np.float64(queries_TD[t, d]) - np.float64(samples_ND[nearest_T[t], d])
            total += difference * difference
        out_T[t] = total


@inlined_with(*_ANY_ORDER)
def _exp2(x: Any) -> Any:
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


@loop_with(*_ANY_ORDER)
def _accumulate_exactly(
    product: Any, query_norms_T: Any, sample_norms_N: Any, queries_TD: Any, samples_ND: Any,
    margin: Any, precisions_S: Any, near_T: Any, least_T: Any, sums_TS: Any,
) -> None:  # fmt: skip
    """Add the terms of the samples that can matter, from direct differences in float64.

    ``near_T`` is the least distance so far as the products give it, ``least_T`` the least that was computed exactly.
    """
    num_samples, D = samples_ND.shape
    for t in prange(queries_TD.shape[0]):
        near = near_T[t]
        for n in range(num_samples):
            about = np.float64(query_norms_T[t] + sample_norms_N[n] - np.float32(2.0) * product[t, n])
            if about < near:
                near = about
        near_T[t] = near
        limit = near + margin

        distances = np.empty(num_samples)
        count = 0
        least = least_T[t]
        for n in range(num_samples):
            # Written so that NaN is looked at, and handed on.
            if not (np.float64(query_norms_T[t] + sample_norms_N[n] - np.float32(2.0) * product[t, n]) > limit):
                total = 0.0
                for d in range(D):
                    difference = np.float64(queries_TD[t, d]) - np.float64(samples_ND[n, d])
                    total += difference * difference
                distances[count] = total
                count += 1
                if total < least:
                    least = total

        fall = least_T[t] - least
        for s in range(precisions_S.shape[0]):
            total = sums_TS[t, s]
            # The first fall is infinite, and there is nothing to scale yet.
            if total != 0.0:
                total *= np.exp(-precisions_S[s] * fall)
            for i in range(count):
                # A distance that overflowed has no density, whatever the least is.
                if distances[i] != np.inf:
                    total += np.exp(precisions_S[s] * (least - distances[i]))
            sums_TS[t, s] = total
        least_T[t] = least
