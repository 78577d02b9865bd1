"""Dropout masks as a function of (seed, stream, step, row, column), drawn where they are used and never stored.

    y[b, i] = x[b, i] / keep   where (word(b, i) >> 8) < ceil(keep · 2^24),   else 0

The layout of the words is in ``fastgan.kernels.common.philox``. A dropped element is 0 whatever it was, NaN included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, Counter, require_array, require_out
from fastgan.kernels.common.backends import implementation


@dataclass(frozen=True, eq=False)
class Dropout:
    """What decides a layer's input mask.

    Parameters
    ----------
    keep : float
        Probability of keeping an element, in (0, 1]; kept ones are scaled by float32(1 / keep).
    seed : int
        The run's seed, 0 to 2^64 - 1.
    stream : int
        The stream's number (``philox.stream_id``).
    step : int or (1,) int64
        The training step; an array is read when the operation runs.
    row_offset : int
        Number of the first row in the joined batch.
    bits : (B, ceil(I / 8)) uint8, optional
        Scratch in which a forward pass leaves its packed mask, so that the backward passes of the same step need not
        draw it again. Its content means nothing beyond the step. Without it every pass draws the same mask anew.
    drawn : bool
        Whether ``bits`` are there before the forward pass: a device that draws masks ahead (``devices.py``) leaves them
        there at the start of a step.
    """

    keep: float
    seed: int
    stream: int
    step: Counter = 0
    row_offset: int = 0
    bits: NDArray[np.uint8] | None = None
    drawn: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep is {self.keep}; it must be in (0, 1]")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}; it must be 0 to 2^64 - 1")

    @property
    def scale(self) -> float:
        """What kept elements are multiplied by, rounded to float32 once."""
        return float(np.float32(1.0 / self.keep))


def mask(num_rows: int, num_columns: int, dropout: Dropout, *, backend: str = "auto") -> NDArray[np.bool_]:
    """Draw a mask, True where an element is kept.

    Parameters
    ----------
    num_rows, num_columns : int
        Its shape (B, I).
    dropout : Dropout
        What decides it.
    backend : str
        The same bits on every one.

    Returns
    -------
    (B, I) bool
    """
    result: NDArray[np.bool_] = implementation(__name__, backend).mask(num_rows, num_columns, dropout)
    return result


def apply(x_BI: Array, dropout: Dropout, *, out: Array | None = None, backend: str = "auto") -> Array:
    """Drop and scale: ``x / keep`` where the mask keeps, 0 elsewhere.

    Parameters
    ----------
    x_BI : (B, I) float32 or float64
        The input.
    dropout : Dropout
        What decides the mask.
    out : (B, I), optional
        Where the result goes; may be ``x_BI`` itself.

    Returns
    -------
    (B, I) array
    """
    require_array("x", x_BI, (None, None))
    out = require_out("out", out, x_BI.shape, x_BI.dtype, x_BI)
    implementation(__name__, backend, x=x_BI, out=out).apply(x_BI, dropout, out)
    return out
