import re
from pathlib import Path

import fastgan
from tests.reliability import long_runs
from tests.runs_for_tests import TINY, arrays_of, assert_same_bits

SHORT = TINY.replace({"epochs": 60, "threads": 2})


def test_memory_and_descriptors_stay_and_reports_are_small(processes, tmp_path):
    # Small networks, many reports and many checkpoints: those are what could grow.
    config = TINY.replace({"epochs": 400, "checkpoint_every": 0.01})
    seen = long_runs.run(config, tmp_path / "run")
    assert seen["reports"] > 40
    assert seen["grown_mb"] < 4, seen
    assert seen["descriptors"][0] == seen["descriptors"][1], seen
    assert seen["largest_report_bytes"] <= long_runs.BYTES_A_REPORT, seen


def test_a_scored_report_is_small_too(processes, tmp_path, monkeypatch):
    monkeypatch.setattr("fastgan.training.NUM_SAMPLES", 50)
    seen = long_runs.run(TINY.replace({"epochs": 6, "parzen_every": 1}), tmp_path / "run")
    assert seen["largest_report_bytes"] <= long_runs.BYTES_A_REPORT


def test_the_clock_on_the_wall_decides_nothing(tmp_path):
    whole = fastgan.train(SHORT.replace({"checkpoint_every": 0.05}), run_dir=tmp_path / "whole")
    with long_runs.jumping_clock():
        run = fastgan.train(SHORT.replace({"checkpoint_every": 0.05}), run_dir=tmp_path / "run")
    assert_same_bits(arrays_of(run), arrays_of(whole))
    seconds = [line["seconds"] for line in run.history]
    assert seconds == sorted(seconds)
    assert 0 < seconds[-1] < 600


def test_no_duration_is_measured_by_the_clock_on_the_wall():
    root = Path(fastgan.__file__).parent.parent
    for path in [*(root / "fastgan").glob("*.py"), *(root / "cli").glob("*.py"), *(root / "kernels").rglob("*.py")]:
        source = path.read_text("utf-8")
        assert not re.search(r"\btime\.time(_ns)?\(", source), path
        # One date is told: when the run began.
        assert source.count("datetime.now(") == (path.name == "training.py"), path


def test_a_busy_machine_changes_no_bit(tmp_path):
    quiet = fastgan.train(SHORT, run_dir=tmp_path / "quiet")
    with long_runs.busy_machine(3):
        busy = fastgan.train(SHORT, run_dir=tmp_path / "busy")
    assert_same_bits(arrays_of(busy), arrays_of(quiet))
