"""Section 4 of the paper as functions of two densities: the optimal D, the criterion C(G), and their divergence.

Densities are given at points, or as the probabilities of outcomes; ``weights`` are the widths that make a sum of them
an integral (1 for outcomes). A product with a probability of 0 is 0, whatever its logarithm.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

# The least that C(G) can be, reached where p_g = p_data (Theorem 1).
LEAST_CRITERION = -math.log(4.0)


def optimal_discriminator(p_data: ArrayLike, p_g: ArrayLike) -> NDArray[np.float64]:
    """Give D*(x) = p_data(x) / (p_data(x) + p_g(x)) (Proposition 1), and ½ where neither puts anything.

    Examples
    --------
    >>> optimal_discriminator([0.5, 0.3, 0.0], [0.5, 0.1, 0.4]).round(2).tolist()
    [0.5, 0.75, 0.0]
    """
    data, generated = np.asarray(p_data, np.float64), np.asarray(p_g, np.float64)
    both = data + generated
    optimal: NDArray[np.float64] = np.divide(data, both, out=np.full(both.shape, 0.5), where=both > 0)
    return optimal


def value(p_data: ArrayLike, p_g: ArrayLike, D: ArrayLike, weights: ArrayLike = 1.0) -> float:
    """Give V(D, G) = E_data log D(x) + E_g log(1 - D(x)) (equation 1), in nats."""
    D, weights = np.asarray(D, np.float64), np.asarray(weights, np.float64)
    return float((weights * (xlogy(p_data, D) + xlogy(p_g, 1.0 - D))).sum())


def criterion(p_data: ArrayLike, p_g: ArrayLike, weights: ArrayLike = 1.0) -> float:
    """Give C(G) = max over D of V(D, G), which D* reaches (equation 4), in nats.

    Examples
    --------
    >>> bool(np.isclose(criterion([0.5, 0.5], [0.5, 0.5]), LEAST_CRITERION))
    True
    """
    return value(p_data, p_g, optimal_discriminator(p_data, p_g), weights)


def jensen_shannon(p: ArrayLike, q: ArrayLike, weights: ArrayLike = 1.0) -> float:
    """Give JSD(p ‖ q) = ½ KL(p ‖ ½(p + q)) + ½ KL(q ‖ ½(p + q)), 0 to log 2 nats."""
    p, q, weights = (np.asarray(array, np.float64) for array in (p, q, weights))
    middle = (p + q) / 2.0
    ratios = [np.divide(one, middle, out=np.ones(middle.shape), where=middle > 0) for one in (p, q)]
    return float((weights * (xlogy(p, ratios[0]) + xlogy(q, ratios[1]))).sum() / 2.0)
