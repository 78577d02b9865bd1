"""The nearest neighbour in a compiled loop: direct differences in float64, as the definition takes them.

Not by a product and norms, which would be faster and could name another of two neighbours that are nearly as near.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.loops import Loop, prange


def indices(queries_MD: Array, samples_ND: Array) -> NDArray[np.int64]:
    """Compare each query with every sample; an equal distance later on does not win."""
    found_M = np.zeros(len(queries_MD), np.int64)
    _nearest(queries_MD, samples_ND, found_M, size=len(queries_MD) * samples_ND.size)
    return found_M


def _nearest_of_each(queries: Any, samples: Any, found: Any) -> None:
    for m in prange(queries.shape[0]):
        query_D = queries[m]
        best = np.inf
        for n in range(samples.shape[0]):
            sample_D = samples[n]
            distance = 0.0
            for d in range(queries.shape[1]):
                difference = np.float64(query_D[d]) - np.float64(sample_D[d])
                distance += difference * difference
            if distance < best:
                best = distance
                found[m] = n


# The terms of a distance may be added in any order, the same one for every sample: so that several are added at once.
_nearest = Loop(_nearest_of_each, fastmath=frozenset({"reassoc", "contract"}))
