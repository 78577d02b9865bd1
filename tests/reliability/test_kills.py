import pytest

from tests.reliability import kills


def test_thirty_kills_of_training_end_in_the_same_bits(processes, tmp_path):
    counted = kills.of_training(processes, 30, 1, tmp_path)
    assert counted["kills"] == 30
    assert min(counted[name.name] for name in kills.SIGNALS) >= 3
    assert counted["resumed"] >= 15


def test_three_kills_on_the_reference(processes, tmp_path):
    assert kills.of_training(processes, 3, 2, tmp_path, backend="reference")["kills"] == 3


def test_three_kills_on_the_emulated_gpu(processes, emulated, tmp_path):
    counted = kills.of_training(
        processes, 3, 5, tmp_path, backend="cupy", patiences=(0.1, 0.5), steps=20, batch_size=20
    )
    assert counted["kills"] == 3
    assert counted["resumed"] >= 3


def test_kills_of_sampling_and_scoring_leave_the_run_alone(processes, tmp_path):
    counted = kills.of_reading(processes, 8, 3, tmp_path)
    assert min(counted.values()) >= 1


def test_kills_of_reproducing_end_in_the_same_page(processes, tmp_path):
    pytest.importorskip("matplotlib")
    counted = kills.of_reproducing(processes, 6, 4, tmp_path)
    assert counted["kills"] == 6
    assert counted["gone on with"] >= 3


def test_a_kill_at_any_call_to_the_system(processes, tmp_path):
    # Every third here; `python -m tests.reliability` does them all.
    assert kills.at_every_call(processes, tmp_path, range(1, 1000, 3)) > 60
