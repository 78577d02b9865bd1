"""Sums over a batch for the backend ``cpu``: the gradients of biases.

Threads share rows, as they do in the products before and after, so that a core finds what it wrote; and every
``ROWS_A_SUM`` rows have a sum of their own, however many threads there are, so that the result has the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgan.kernels.common.arrays import Array, Workspace
from fastgan.kernels.common.loops import inlined

# Few, as these sums are in float32.
ROWS_A_SUM = 16


def room_for_sums(dz_BO: Array, workspace: Workspace) -> Array:
    """Give the room for sums of ``ROWS_A_SUM`` rows each."""
    B, O = dz_BO.shape
    return workspace.array("sums of rows", (-(-B // ROWS_A_SUM), O), dz_BO.dtype)


@inlined
def add_up(sums: Any, db: Any) -> None:
    """Add up the sums of rows; in float64, as a long column in float32 is several times as wrong as NumPy's sum."""
    total = np.zeros(db.shape[0], np.float64)
    for part in range(sums.shape[0]):
        sums_O = sums[part]
        for o in range(db.shape[0]):
            total[o] += np.float64(sums_O[o])
    for o in range(db.shape[0]):
        db[o] = total[o]
