import errno
import shutil
import warnings

import pytest

import fastgan
from fastgan import checkpoint, training
from fastgan.checkpoint import LATEST
from fastgan.errors import FastganWarning, RunError
from tests.reliability import disks, faults
from tests.runs_for_tests import TINY, TINY_OPTIONS, arrays_of, assert_same_bits

CONFIG = TINY.replace({"epochs": 2})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fastgan.train(CONFIG, run_dir=tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("which", ["latest", "best"])
def test_a_power_cut_at_any_byte_leaves_the_old_checkpoint_or_the_new_one(tmp_path, which):
    (tmp_path / "run").mkdir()
    recorded = disks.recorded_save(tmp_path / "run", which)
    assert disks.survive_power_cuts(tmp_path, recorded, which) > 50


def test_the_model_finds_what_a_missing_sync_would_lose(tmp_path):
    (tmp_path / "run").mkdir()
    before, events = disks.recorded_save(tmp_path / "run")
    assert ("fsync", ".") in events
    without_folder = [event for event in events if event != ("fsync", ".")]
    with pytest.raises(AssertionError, match="True"):
        disks.survive_power_cuts(tmp_path, (before, without_folder))
    # Without the file's own sync a name can come before the bytes; the one before still serves unless it is made to
    # give way in the same breath.
    without_file = [event for event in events if event[0] != "fsync" or event[1] == "."]
    with pytest.raises((AssertionError, RunError)):
        disks.survive_power_cuts(tmp_path, (before, without_file))


@pytest.mark.parametrize("which", ["latest", "best", "frozen"])
def test_a_save_that_is_refused_at_any_call_leaves_what_was_there(tmp_path, which):
    num_calls, num_cases = disks.survive_refusals(tmp_path, which)
    assert num_calls >= 6
    assert num_cases == num_calls * 2 * len(faults.ERRORS)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_run_that_is_refused_at_any_call_says_so_and_goes_on_when_there_is_room(tmp_path, whole, error):
    fault = faults.install(faults.Fault())
    fastgan.train(CONFIG, run_dir=tmp_path / "counted")
    faults.remove()
    for at in range(2 + error % 4, fault.count, 4):
        path = tmp_path / str(at)
        faults.install(faults.Refuse(at, error, for_good=True))
        with pytest.raises(RunError, match=r"(?s)Cannot .*(make room|mend|another)"):
            fastgan.train(CONFIG, run_dir=path)
        faults.remove()
        if (path / LATEST).exists():
            assert_same_bits(arrays_of(fastgan.resume(path)), arrays_of(whole))
            lines = (path / "metrics.jsonl").read_text().splitlines()
            assert len(lines) == len(whole.history)
        shutil.rmtree(path, ignore_errors=True)


def test_a_limit_of_file_size_is_a_sentence(processes, tmp_path):
    started = processes.start("train", *TINY_OPTIONS, "--run-dir=run", folder=tmp_path, file_bytes=20_000)
    assert started.wait() == 1
    assert "Traceback" not in started.stderr
    assert started.stderr.splitlines()[-1].startswith("Error: Cannot write run/checkpoint.h5: File too large; ")


def test_a_folder_that_is_removed_under_the_run_is_a_sentence(tmp_path):
    class Remove(training.Callback):
        def on_report(self, line):
            shutil.rmtree(tmp_path / "run")

    with pytest.raises(RunError, match=r"The run's folder .* is gone|Cannot write"):
        fastgan.train(CONFIG, run_dir=tmp_path / "run", callbacks=[Remove()])
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_never_read(tmp_path, whole):
    content = (whole.path / LATEST).read_bytes()
    assert disks.survive_damage(tmp_path, content, 200, seed=4) == {"cut": 64, "flip": 200}


def test_metrics_with_a_torn_last_line_are_mended(tmp_path, whole):
    path = shutil.copytree(whole.path, tmp_path / "run")
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 11, "epo')
    fastgan.resume(path)
    assert (path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()


def test_the_older_checkpoint_is_used_and_the_log_says_so(processes, tmp_path, whole):
    path = shutil.copytree(whole.path, tmp_path / "run")
    content = (path / LATEST).read_bytes()
    (path / LATEST).write_bytes(content[:-1])
    started = processes.start("train", "--resume=run", folder=tmp_path)
    assert started.wait() == 0
    assert started.stderr.startswith("Warning: run/checkpoint.h5 is cut short")
    assert "checkpoint-previous.h5, is used" in started.stderr.splitlines()[0]
    assert_same_bits(arrays_of(fastgan.load_run(path)), arrays_of(whole))


def test_a_frozen_state_is_no_checkpoint(tmp_path):
    checkpoint.save(tmp_path, disks.made(1), "frozen")
    assert disks.loaded_number(tmp_path, "frozen") == 1
    with pytest.raises(RunError, match="holds no checkpoint"):
        checkpoint.load(tmp_path)
    shutil.copy(tmp_path / "frozen.h5", tmp_path / LATEST)
    with pytest.raises(RunError, match="is the frozen state of a run that met a NaN or an infinity, and no checkpoint"):
        checkpoint.load(tmp_path)
    shutil.copy(tmp_path / "frozen.h5", tmp_path / "checkpoint-previous.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FastganWarning)
        with pytest.raises(RunError, match="cannot be read either"):
            checkpoint.load(tmp_path)
