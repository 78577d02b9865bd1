"""The definition of a step's end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.step import StepState


def set_rates(state: StepState, learning_rates_T: NDArray[np.float32], momenta_E: NDArray[np.float32]) -> None:
    """Look the rates up."""
    state.learning_rate[0] = learning_rates_T[min(int(state.update[0]), len(learning_rates_T) - 1)]
    state.momentum[0] = momenta_E[min(int(state.epoch[0]) - 1, len(momenta_E) - 1)]


def advance(
    state: StepState,
    learning_rates_T: NDArray[np.float32],
    momenta_E: NDArray[np.float32],
    rows_per_step: int,
    rows_per_epoch: int,
) -> None:
    """Count on."""
    if state.non_finite[0]:
        # The mark of an update on a GPU becomes the flag.
        state.non_finite[0] = 1
        return
    state.update[0] += 1
    state.start[0] += rows_per_step
    if state.start[0] == rows_per_epoch:
        state.start[0] = 0
        state.epoch[0] += 1
    set_rates(state, learning_rates_T, momenta_E)
