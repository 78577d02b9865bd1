"""Does the generator still learn? Judged from a run's reports alone, so it costs a step nothing on any device.

Two ways to lose are looked for. D wins for good: it says 1 to data and 0 to samples, and G's gradient has nothing left
to say. And the Helvetica scenario of the paper's section 6: G sends all noise to the same image. The bounds are between
what was seen of runs that went well and of runs that did not; docs/reliability.md has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.datasets import Split

SENTENCES = {
    "discriminator": "the discriminator has won: D(x) is above 0.99 and D(G(z)) below 0.01 since the report before",
    "samples": "all samples are alike: for several reports they have varied less than a twentieth as much as the data",
}
REMEDY = "another --seed is another game, and a lower --learning-rate a calmer one"

# Means over all updates since the report before, in so many reports in a row. The worst that was seen of a run that
# went well is 0.967 and 0.033, in one report.
_WON, _WON_REPORTS = 0.01, 2
# The share of the data's variance that samples have. It is near 0 before the game begins too, while D says ½ to all,
# and for a while after D has begun to tell: up to 4 reports were seen (the minimax objective), so that a start is given
# twice as many, more than a fall from what once was there.
_ALIKE, _ALIKE_REPORTS, _START_REPORTS = 0.05, 3, 8
_BEGUN, _TOLD_APART = 0.25, 0.1
_ROWS = 1000


def collapse(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Say which way a run is lost, by its reports so far.

    Parameters
    ----------
    history : sequence of mappings
        The lines of ``metrics.jsonl``.

    Returns
    -------
    {"discriminator", "samples"} or None
        A key of ``SENTENCES``.
    """
    last = history[-_WON_REPORTS:]
    if len(last) == _WON_REPORTS and all(line["D_x"] > 1 - _WON and line["D_G_z"] < _WON for line in last):
        return "discriminator"
    # A run of an earlier version has no spread in its first lines.
    last = [line for line in history if "sample_spread" in line]
    has_begun = any(line["sample_spread"] > _BEGUN for line in last)
    num_reports = _ALIKE_REPORTS if has_begun else _START_REPORTS
    last = last[-num_reports:]
    if len(last) == num_reports and all(
        line["sample_spread"] < _ALIKE and (has_begun or line["D_x"] - line["D_G_z"] > _TOLD_APART) for line in last
    ):
        return "samples"
    return None


def variance(pixels_ND: NDArray[np.float32]) -> float:
    """Sum the variances of all pixels over the rows."""
    return float(pixels_ND.var(axis=0, dtype=np.float64).sum())


def data_variance(split: Split) -> float:
    """Sum the variances of all pixels over the data, or over 1,000 of its rows, evenly spaced, where it has more."""
    return variance(split.as_float32(slice(None, None, -(-len(split) // _ROWS))))
