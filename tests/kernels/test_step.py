import numpy as np
import pytest

from fastgan.kernels import sgd, step

RATES = np.array([0.4, 0.3, 0.2], np.float32)
MOMENTA = np.array([0.5, 0.6], np.float32)


def test_a_new_state():
    state = step.StepState()
    assert (state.update[0], state.epoch[0], state.start[0], state.non_finite[0]) == (0, 1, 0, 0)
    assert state.words.dtype == np.int64


def test_steps_epochs_and_rates_advance(backend):
    state = step.StepState()
    step.set_rates(state, RATES, MOMENTA, backend=backend)
    seen = []
    for _ in range(5):
        seen.append((state.update[0], state.epoch[0], state.start[0], state.learning_rate[0], state.momentum[0]))
        step.advance(state, RATES, MOMENTA, rows_per_step=10, rows_per_epoch=20, backend=backend)
    # After the tables' ends their last values hold.
    assert seen == [
        (0, 1, 0, RATES[0], MOMENTA[0]),
        (1, 1, 10, RATES[1], MOMENTA[0]),
        (2, 2, 0, RATES[2], MOMENTA[1]),
        (3, 2, 10, RATES[2], MOMENTA[1]),
        (4, 3, 0, RATES[2], MOMENTA[1]),
    ]


# Of a loss, or of an update on a GPU, or of both.
@pytest.mark.parametrize("fault", [1, sgd.MARK, sgd.MARK + 1])
def test_a_fault_stops_the_count(backend, fault):
    state = step.StepState()
    state.non_finite[0] = fault
    before = state.words.copy()
    step.advance(state, RATES, MOMENTA, rows_per_step=10, rows_per_epoch=20, backend=backend)
    before[3] = 1
    assert state.words.tolist() == before.tolist()


def test_a_broken_epoch_is_refused():
    with pytest.raises(ValueError, match=r"^rows_per_epoch is 25; it must be a multiple of rows_per_step, 10"):
        step.advance(step.StepState(), RATES, MOMENTA, rows_per_step=10, rows_per_epoch=25)
