"""The definition of the nearest neighbour: direct differences in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from fastgan.kernels.common.arrays import Array

_SAMPLES_A_TILE = 4096


def indices(queries_MD: Array, samples_ND: Array) -> NDArray[np.int64]:
    """Keep the best of each tile of samples; an equal distance in a later tile does not win."""
    best_M = np.full(len(queries_MD), np.inf)
    found_M = np.zeros(len(queries_MD), np.int64)
    for start in range(0, len(samples_ND), _SAMPLES_A_TILE):
        distances_MN = cdist(queries_MD, samples_ND[start : start + _SAMPLES_A_TILE], "sqeuclidean")
        nearest_M = distances_MN.argmin(axis=1)
        distance_M = distances_MN[np.arange(len(queries_MD)), nearest_M]
        closer_M = distance_M < best_M
        found_M[closer_M] = start + nearest_M[closer_M]
        best_M[closer_M] = distance_M[closer_M]
    return found_M
