"""A step's end as a Numba CUDA kernel of one thread: four integers and two look-ups, on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.numba_runtime import kernel
from fastgan.kernels.step import StepState


def set_rates(state: StepState, learning_rates_T: NDArray[np.float32], momenta_E: NDArray[np.float32]) -> None:
    """Look the rates up."""
    _launch(state, learning_rates_T, momenta_E, 0, 0)


def advance(
    state: StepState,
    learning_rates_T: NDArray[np.float32],
    momenta_E: NDArray[np.float32],
    rows_per_step: int,
    rows_per_epoch: int,
) -> None:
    """Count on."""
    _launch(state, learning_rates_T, momenta_E, rows_per_step, rows_per_epoch)


def _launch(
    state: StepState, learning_rates_T: Array, momenta_E: Array, rows_per_step: int, rows_per_epoch: int
) -> None:
    runtime.launch(
        _advance, (1,), (1,),
        state.words, state.learning_rate, state.momentum, learning_rates_T, momenta_E,
        np.int64(rows_per_step), np.int64(rows_per_epoch),
    )  # fmt: skip


@kernel
def _advance(
    words: Any, rate: Any, momentum: Any, rates: Any, momenta: Any, rows_per_step: Any, rows_per_epoch: Any
) -> None:
    """Move on by ``rows_per_step``, where it is not 0, and look the rates up."""
    # The words in the order that StepState has them: update, epoch, start, non_finite with the updates' mark.
    if rows_per_step > 0:
        if words[3] != 0:
            words[3] = 1
            return
        words[0] += 1
        words[2] += rows_per_step
        if words[2] == rows_per_epoch:
            words[2] = 0
            words[1] += 1
    # The last of each table holds ever after.
    rate[0] = rates[words[0] if words[0] < rates.shape[0] else rates.shape[0] - 1]
    momentum[0] = momenta[words[1] - 1 if words[1] <= momenta.shape[0] else momenta.shape[0] - 1]
