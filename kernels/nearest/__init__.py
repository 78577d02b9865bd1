"""The nearest neighbour by squared Euclidean distance: index[m] = the lowest n that minimises ‖q_m - s_n‖².

Axes: M queries, N samples, D data dimension.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, require_array
from fastgan.kernels.common.backends import implementation


def indices(queries_MD: Array, samples_ND: Array, *, backend: str = "auto") -> NDArray[np.int64]:
    """Find each query's nearest sample.

    Parameters
    ----------
    queries_MD : (M, D) float32 or float64
        The queries.
    samples_ND : (N, D) float32 or float64
        Where neighbours are looked for, N >= 1.
    backend : str
        As for ``backends.resolve``.

    Returns
    -------
    (M,) int64
        Rows of ``samples_ND``; of equally near ones the lowest.
    """
    require_array("queries", queries_MD, (None, None))
    require_array("samples", samples_ND, (None, queries_MD.shape[1]))
    if not len(samples_ND):
        raise ValueError("samples has no rows; it needs at least one")
    found: NDArray[np.int64] = implementation(__name__, backend).indices(queries_MD, samples_ND)
    return found
