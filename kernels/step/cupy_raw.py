"""Launches of ``step.cu``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch
from fastgan.kernels.step import StepState

_SET_RATES: Final = Kernel("step/step.cu", "set_rates", threads=1)
_ADVANCE: Final = Kernel("step/step.cu", "advance", threads=1)


def set_rates(state: StepState, learning_rates_T: NDArray[np.float32], momenta_E: NDArray[np.float32]) -> None:
    """Look the rates up."""
    launch(_SET_RATES, (1, 1, 1), **_tables(state, learning_rates_T, momenta_E))


def advance(
    state: StepState,
    learning_rates_T: NDArray[np.float32],
    momenta_E: NDArray[np.float32],
    rows_per_step: int,
    rows_per_epoch: int,
) -> None:
    """Count on."""
    launch(
        _ADVANCE, (1, 1, 1),
        **_tables(state, learning_rates_T, momenta_E),
        rows_per_step=np.int64(rows_per_step), rows_per_epoch=np.int64(rows_per_epoch),
    )  # fmt: skip


def _tables(state: StepState, learning_rates_T: NDArray[np.float32], momenta_E: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "words": state.words, "learning_rates": learning_rates_T, "T": np.int32(len(learning_rates_T)),
        "momenta": momenta_E, "E": np.int32(len(momenta_E)),
    }  # fmt: skip
