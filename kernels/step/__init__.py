"""The small struct of what changes from step to step, and the operation that ends a step by moving it on.

Every other operation takes the struct's fields as one-element arrays and reads them when it runs, so a whole training
step is a fixed sequence of calls over fixed buffers: on a GPU it can be captured once and replayed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import require_array
from fastgan.kernels.common.backends import implementation

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, eq=False)
class StepState:
    """The struct: eight words of 8 bytes in one buffer, and a view of each field.

    Attributes
    ----------
    words : (8,) int64
        The buffer: update, epoch, start, non_finite, then learning rate and momentum as float32 in word 4; the rest is
        spare.
    update : (1,) int64
        t, the number of updates made.
    epoch : (1,) int64
        The current epoch, from 1.
    start : (1,) int64
        Place in the epoch's order of the next step's first row.
    non_finite : (1,) int64
        1 once a loss or a velocity was NaN or infinite: updates then change nothing. Updates on a GPU leave
        ``sgd.MARK`` here, which the next loss, or ``advance``, turns into 1.
    learning_rate, momentum : (1,) float32
        Of the next update.
    """

    words: NDArray[np.int64] = field(default_factory=lambda: np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int64))

    @property
    def update(self) -> NDArray[np.int64]:
        """Number of updates made, t."""
        return self.words[0:1]

    @property
    def epoch(self) -> NDArray[np.int64]:
        """Current epoch, from 1."""
        return self.words[1:2]

    @property
    def start(self) -> NDArray[np.int64]:
        """Place in the epoch's order of the next step's first row."""
        return self.words[2:3]

    @property
    def non_finite(self) -> NDArray[np.int64]:
        """Set to 1 once a loss or a velocity was NaN or infinite."""
        return self.words[3:4]

    @property
    def learning_rate(self) -> NDArray[np.float32]:
        """Rate of the next update."""
        return self.words[4:5].view(np.float32)[:1]

    @property
    def momentum(self) -> NDArray[np.float32]:
        """Momentum of the next update."""
        return self.words[4:5].view(np.float32)[1:]


def set_rates(
    state: StepState, learning_rates_T: NDArray[np.float32], momenta_E: NDArray[np.float32], *, backend: str = "auto"
) -> None:
    """Read the next update's learning rate and momentum from their tables, as ``advance`` does, without moving on.

    Parameters
    ----------
    state : StepState
        Changed in place.
    learning_rates_T : (T,) float32
        The rate of update t; the last one holds ever after.
    momenta_E : (E,) float32
        The momentum of epoch e at index e - 1; the last one holds ever after.
    backend : str
        As for ``backends.resolve``.
    """
    _check(learning_rates_T, momenta_E)
    implementation(__name__, backend, words=state.words, learning_rates=learning_rates_T, momenta=momenta_E).set_rates(
        state, learning_rates_T, momenta_E
    )


def advance(
    state: StepState,
    learning_rates_T: NDArray[np.float32],
    momenta_E: NDArray[np.float32],
    *,
    rows_per_step: int,
    rows_per_epoch: int,
    backend: str = "auto",
) -> None:
    """End a step: count the update, move on in the epoch or begin the next, read the next rates.

    Where ``state.non_finite`` is set, or marked by an update of this step, it becomes 1 and nothing else is changed: so
    the count tells which update met the fault.

    Parameters
    ----------
    state : StepState
        Changed in place.
    learning_rates_T, momenta_E, backend
        As for ``set_rates``.
    rows_per_step : int
        k·B, the rows of data that a step uses.
    rows_per_epoch : int
        Rows that an epoch uses: a multiple of ``rows_per_step``.
    """
    _check(learning_rates_T, momenta_E)
    if rows_per_step < 1 or rows_per_epoch < rows_per_step or rows_per_epoch % rows_per_step:
        raise ValueError(f"rows_per_epoch is {rows_per_epoch}; it must be a multiple of rows_per_step, {rows_per_step}")
    implementation(__name__, backend, words=state.words, learning_rates=learning_rates_T, momenta=momenta_E).advance(
        state, learning_rates_T, momenta_E, rows_per_step, rows_per_epoch
    )


def _check(learning_rates_T: NDArray[np.float32], momenta_E: NDArray[np.float32]) -> None:
    require_array("learning_rates", learning_rates_T, (None,), (_FLOAT32,))
    require_array("momenta", momenta_E, (None,), (_FLOAT32,))
