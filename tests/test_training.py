import json
import re
import shutil
import threading

import numpy as np
import pytest

import fastgan
from fastgan import checkpoint, datasets, training
from fastgan.checkpoint import BEST, LATEST, PREVIOUS
from fastgan.errors import BackendError, ConfigError, DataError, FastganWarning, NonFiniteError, RunError
from fastgan.kernels.common import loops, products
from fastgan.training import Callback, changed_for_resume, last_step
from tests.runs_for_tests import STEPS_PER_EPOCH, TINY, StopAt, arrays_of, assert_same_bits, watch

ALTERNATING = TINY.replace({"update": "alternating", "d_steps": 2, "batch_size": 119, "noise": "normal"})
CLOCK = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one epoch, to be read or copied, never changed."""
    return fastgan.train(TINY, run_dir=tmp_path_factory.mktemp("finished"))


def copy_of(run, tmp_path):
    return shutil.copytree(run.path, tmp_path / "copy")


def without_clock(lines):
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


def lines_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def grids_of(path):
    return [int(file.stem.removeprefix("step-")) for file in sorted((path / "samples").iterdir())]


class Recorder(Callback):
    def __init__(self):
        self.calls = []

    def on_begin(self, path, trainer, last_step):
        self.calls.append(("begin", path, last_step))

    def on_progress(self, step):
        self.calls.append(("progress", step))

    def on_report(self, line):
        self.calls.append(("report", line["step"]))

    def on_checkpoint(self, path, step):
        self.calls.append(("checkpoint", step))


class Poison(Callback):
    """Puts a NaN into a weight before a step."""

    def __init__(self, step, of="discriminator", value=np.nan):
        self.step, self.of, self.value = step, of, value

    def on_begin(self, path, trainer, last_step):
        def poison():
            if int(trainer.state.update[0]) == self.step:
                getattr(trainer, self.of).layers[0].W[0, 0] = self.value

        watch(trainer, before=poison)


@pytest.mark.parametrize("config", [TINY, ALTERNATING], ids=["simultaneous", "alternating"])
def test_three_epochs_and_three_resumed_are_six(tmp_path, config):
    whole = fastgan.train(config.replace({"epochs": 6}), run_dir=tmp_path / "whole")
    first = fastgan.train(config.replace({"epochs": 3}), run_dir=tmp_path / "parts")
    assert not np.array_equal(arrays_of(whole)["generator/0/W"], arrays_of(first)["generator/0/W"])
    both = fastgan.resume(first.path, {"epochs": 6})
    assert whole.step == both.step == 6 * STEPS_PER_EPOCH
    assert_same_bits(arrays_of(whole), arrays_of(both))
    # The end of the first part has a line of its own; the scheduled ones are those of the whole.
    scheduled = [line for line in both.history if line["epoch"] != 3]
    assert without_clock(scheduled) == without_clock(whole.history)
    assert [line["epoch"] for line in whole.history] == [1, 2, 5, 6]


@pytest.mark.parametrize("config", [TINY, ALTERNATING], ids=["simultaneous", "alternating"])
def test_a_stop_in_the_middle_of_an_epoch_changes_nothing(tmp_path, config):
    config = config.replace({"epochs": 3})
    whole = fastgan.train(config, run_dir=tmp_path / "whole")
    stopped = path = tmp_path / "parts"
    for step, go_on in ((2, None), (7, path), (13, path)):
        stop = StopAt(step)
        if go_on is None:
            stopped = fastgan.train(config, run_dir=path, callbacks=[stop], stop=stop.event)
        else:
            stopped = fastgan.resume(go_on, callbacks=[stop], stop=stop.event)
        assert stopped.step == step
    both = fastgan.resume(path)
    assert_same_bits(arrays_of(whole), arrays_of(both))
    assert without_clock(both.history) == without_clock(whole.history)
    assert without_clock(lines_of(path)) == without_clock(lines_of(whole.path))
    assert grids_of(path) == grids_of(whole.path)
    for step in grids_of(path):
        name = f"samples/step-{step:08d}.png"
        assert (path / name).read_bytes() == (whole.path / name).read_bytes()


def test_the_same_configuration_gives_the_same_bits_and_another_seed_others(tmp_path, finished):
    again = fastgan.train(TINY, run_dir=tmp_path / "again")
    assert_same_bits(arrays_of(again), arrays_of(finished))
    other = fastgan.train(TINY.replace({"seed": 4}), run_dir=tmp_path / "other")
    assert not np.array_equal(arrays_of(other)["generator/1/W"], arrays_of(finished)["generator/1/W"])


def test_reports_come_at_epochs_1_2_5_and_every_tenth(tmp_path):
    run = fastgan.train(TINY.replace({"epochs": 30}), run_dir=tmp_path / "run")
    epochs = [1, 2, 5, 10, 20, 30]
    assert [line["epoch"] for line in run.history] == epochs
    assert [line["step"] for line in run.history] == [epoch * STEPS_PER_EPOCH for epoch in epochs]
    assert lines_of(run.path) == run.history
    # One grid before the first step, one a report.
    assert grids_of(run.path) == [0, *(epoch * STEPS_PER_EPOCH for epoch in epochs)]
    for line in run.history:
        assert {
            "step", "epoch", "discriminator_loss", "generator_loss", "D_x", "D_G_z", "images_per_second",
            "seconds", "sample_spread",
        } == line.keys()  # fmt: skip
        assert 0 < line["D_x"] < 1
        assert 0 < line["D_G_z"] < 1
        assert line["images_per_second"] > 0
    seconds = [line["seconds"] for line in run.history]
    assert seconds == sorted(seconds)


def test_a_line_holds_the_means_since_the_last_report(tmp_path):
    run = fastgan.train(ALTERNATING.replace({"epochs": 2}), run_dir=tmp_path / "run")
    sums = arrays_of(run)["sums"]
    means = {name: np.mean([line[name] for line in run.history]) for name in ("discriminator_loss", "D_x", "D_G_z")}
    for name, total in zip(("discriminator_loss", "generator_loss", "D_x", "D_G_z"), sums, strict=True):
        per_update = 1 if name == "generator_loss" else 2
        wanted = np.mean([line[name] for line in run.history])
        assert total / (10 * per_update) == pytest.approx(wanted, rel=1e-12), name
    assert means["discriminator_loss"] == pytest.approx(np.log(2), abs=0.05)


def test_steps_take_the_place_of_epochs(tmp_path):
    run = fastgan.train(TINY.replace({"steps": 7}), run_dir=tmp_path / "run")
    assert run.step == 7
    assert [line["epoch"] for line in run.history] == [1, 1.4]
    assert grids_of(run.path) == [0, 5, 7]


def test_a_step_run_that_is_made_longer_equals_one_that_was_long_from_the_start(tmp_path):
    whole = fastgan.train(TINY.replace({"steps": 12}), run_dir=tmp_path / "whole")
    fastgan.train(TINY.replace({"steps": 7}), run_dir=tmp_path / "parts")
    both = fastgan.resume(tmp_path / "parts", {"steps": 12})
    assert_same_bits(arrays_of(whole), arrays_of(both))
    scheduled = [line for line in both.history if line["step"] != 7]
    assert without_clock(scheduled) == without_clock(whole.history)


def test_a_run_leaves_what_was_promised(finished):
    names = {file.name for file in finished.path.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "checkpoint.h5", PREVIOUS, "samples", "report.html"}
    page = (finished.path / "report.html").read_text()
    assert "<svg" in page
    assert "data:image/png;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_config_json_says_what_was_run_and_where(finished):
    record = json.loads((finished.path / "config.json").read_text())
    assert record.keys() == {"format", "config", "data", "versions", "machine", "started", "init_from"}
    assert fastgan.Config.from_json(record["config"]) == finished.config
    assert record["config"]["seed"] == 3
    # What was chosen is recorded, not what was left open.
    assert (record["config"]["backend"], record["config"]["threads"]) == ("cpu", 1)
    assert record["data"]["rows"] == {"train": 1197, "valid": 300, "test": 300}
    assert re.fullmatch("[0-9a-f]{64}", next(iter(record["data"]["digests"].values())))
    assert {"fastgan", "python", "numpy", "scipy", "numba", "h5py"} <= record["versions"].keys()
    assert {"system", "processor", "device", "cores"} == record["machine"].keys()
    assert record["init_from"] is None


def test_what_was_left_open_is_recorded_as_it_was_chosen(tmp_path):
    run = fastgan.train(TINY.replace({"threads": None, "steps": 1}), run_dir=tmp_path / "run")
    assert run.config.threads == training.threads.available_cores()


def test_a_resumed_run_remembers_when_it_began(tmp_path, finished):
    path = copy_of(finished, tmp_path)
    record = json.loads((path / "config.json").read_text())
    fastgan.resume(path, {"epochs": 2})
    resumed = json.loads((path / "config.json").read_text())
    assert resumed["started"] == record["started"]
    assert resumed["config"]["epochs"] == 2


def test_callbacks_are_told_in_order(tmp_path):
    recorder = Recorder()
    run = fastgan.train(TINY.replace({"epochs": 2}), run_dir=tmp_path / "run", callbacks=[recorder])
    assert recorder.calls[0] == ("checkpoint", 0)
    assert recorder.calls[1] == ("begin", run.path, 10)
    assert recorder.calls[-1] == ("checkpoint", 10)
    assert [call[1] for call in recorder.calls if call[0] == "report"] == [5, 10]
    progress = [call[1] for call in recorder.calls if call[0] == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == 10


def test_an_exception_of_a_callback_is_the_callers(tmp_path):
    class Fails(Callback):
        def on_report(self, line):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fastgan.train(TINY, run_dir=tmp_path / "run", callbacks=[Fails()])
    assert fastgan.load_run(tmp_path / "run").step == 0


def test_checkpoints_come_as_often_as_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_LOOKS", 0.0)
    for seconds, steps in ((0.0, list(range(6))), (1000.0, [0, 5]), (None, [0, 5])):
        recorder = Recorder()
        config = TINY.replace({"checkpoint_every": seconds})
        fastgan.train(config, run_dir=tmp_path / str(seconds), callbacks=[recorder])
        assert [call[1] for call in recorder.calls if call[0] == "checkpoint"] == steps


def test_by_default_saving_takes_a_twentieth_of_the_time_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_LOOKS", 0.0)
    recorder = Recorder()
    fastgan.train(TINY.replace({"epochs": 4}), run_dir=tmp_path / "run", callbacks=[recorder])
    # Twenty steps of a tiny network pass in less than twenty saves.
    assert len([call for call in recorder.calls if call[0] == "checkpoint"]) < 10


def test_a_save_that_took_very_long_does_not_put_off_the_next_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS_AT_MOST", 0.0)
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_LOOKS", 0.0)
    recorder = Recorder()
    fastgan.train(TINY, run_dir=tmp_path / "run", callbacks=[recorder])
    assert [call[1] for call in recorder.calls if call[0] == "checkpoint"] == list(range(6))


def test_metrics_and_grids_after_the_checkpoint_are_dropped(tmp_path):
    config = TINY.replace({"epochs": 2})
    whole = fastgan.train(config, run_dir=tmp_path / "whole")
    path = tmp_path / "crashed"
    with pytest.raises(KeyError):
        fastgan.train(config, run_dir=path, callbacks=[Crash(10)])
    assert [line["step"] for line in lines_of(path)] == [5, 10]
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "ep')
    resumed = fastgan.resume(path)
    assert without_clock(lines_of(path)) == without_clock(whole.history) == without_clock(resumed.history)
    assert grids_of(path) == [0, 5, 10]
    assert_same_bits(arrays_of(resumed), arrays_of(whole))


def test_a_resumed_run_shows_nothing_that_it_has_not_reached(tmp_path):
    path = tmp_path / "crashed"
    with pytest.raises(KeyError):
        fastgan.train(TINY.replace({"epochs": 2}), run_dir=path, callbacks=[Crash(10)])
    stop = threading.Event()
    stop.set()
    assert fastgan.resume(path, stop=stop).step == 0
    assert (lines_of(path), grids_of(path)) == ([], [0])


class Crash(Callback):
    def __init__(self, step):
        self.step = step

    def on_report(self, line):
        if line["step"] == self.step:
            raise KeyError("crash")


def test_a_run_is_scored_as_often_as_asked_and_keeps_its_best(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "NUM_SAMPLES", 50)
    run = fastgan.train(TINY.replace({"epochs": 7, "parzen_every": 3}), run_dir=tmp_path / "run")
    assert [line["epoch"] for line in run.history] == [1, 2, 3, 5, 6, 7]
    scored = [line for line in run.history if "parzen" in line]
    assert [line["epoch"] for line in scored] == [3, 6]
    for line in scored:
        assert line["parzen"].keys() == {"sigma", "log_likelihood", "standard_error"}
        assert np.isfinite(list(line["parzen"].values())).all()
    best = max(scored, key=lambda line: line["parzen"]["log_likelihood"])
    kept = fastgan.load_run(run.path, "best")
    assert kept.step == best["step"]
    assert kept.history[-1] == best
    # The score is what the library itself says of the same samples.
    data = run.load_dataset()
    means, _ = fastgan.scoring.validation_log_likelihoods(
        kept.generator.sample(50, run.config.seed), data, fastgan.sigma_grid()
    )
    assert means.max() == pytest.approx(best["parzen"]["log_likelihood"], rel=1e-9)


def test_a_worse_score_does_not_replace_the_best(tmp_path, monkeypatch):
    scores = iter([5.0, 7.0, 6.0, 6.5])
    monkeypatch.setattr(
        training._Session,
        "_score",
        lambda self: {"sigma": 0.1, "log_likelihood": next(scores), "standard_error": 1.0},
    )
    config = TINY.replace({"parzen_every": 1, "epochs": 3})
    run = fastgan.train(config, run_dir=tmp_path / "run")
    assert fastgan.load_run(run.path, "best").step == 10
    # The best is known to a resumed run as well.
    fastgan.resume(run.path, {"epochs": 4})
    assert fastgan.load_run(run.path, "best").step == 10


def test_without_scores_there_is_no_best(finished):
    assert not (finished.path / BEST).exists()
    with pytest.raises(RunError, match="--parzen-every"):
        fastgan.load_run(finished.path, "best")


@pytest.mark.parametrize("of", ["discriminator", "generator"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_poisoned_weight_stops_training_and_the_last_good_checkpoint_stands(tmp_path, monkeypatch, of, value):
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_LOOKS", 0.0)
    path = tmp_path / "run"
    with pytest.raises(
        NonFiniteError,
        match=r"checkpoint of step 3 in .* is good; a new run with a lower --learning-rate may go on from",
    ):
        fastgan.train(TINY.replace({"checkpoint_every": 0.0}), run_dir=path, callbacks=[Poison(3, of, value)])
    good = fastgan.load_run(path)
    assert good.step == 3
    assert checkpoint.check_finite(good.loaded.arrays) is None
    assert np.isfinite(good.generator.sample(3)).all()
    # And it goes on from there as if nothing had been.
    whole = fastgan.train(TINY, run_dir=tmp_path / "whole")
    assert_same_bits(arrays_of(fastgan.resume(path)), arrays_of(whole))


def test_a_loss_that_is_nan_stops_training_at_its_update(tmp_path):
    with pytest.raises(
        NonFiniteError,
        match=r"^Update 3 met a NaN or an infinity, first in discriminator/0/W, .*checkpoint of step 0 in",
    ):
        fastgan.train(TINY.replace({"epochs": 10000}), run_dir=tmp_path / "run", callbacks=[Poison(3)])


def test_a_nan_that_no_loss_shows_is_not_saved(tmp_path):
    class Hidden(Callback):
        def on_report(self, line):
            self.trainer.generator.layers[0].vb[0] = np.nan

        def on_begin(self, path, trainer, last_step):
            self.trainer = trainer

    with pytest.raises(NonFiniteError, match="in generator/0/vb, which no loss had shown"):
        fastgan.train(TINY, run_dir=tmp_path / "run", callbacks=[Hidden()])
    assert fastgan.load_run(tmp_path / "run").step == 0


def test_fewer_rows_than_a_batch_are_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(DataError, match="1197 rows and a step needs 2000: use a smaller --batch-size or --d-steps"):
        fastgan.train(TINY.replace({"batch_size": 2000}), runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"backend": "cupy"}, BackendError, "CuPy is not installed .*; use --backend auto"),
        ({"precision": "tf32"}, BackendError, "has no tf32; leave --precision out"),
        ({"device": 1}, BackendError, "has no device 1; leave --device out"),
        ({"dataset": "mnits"}, ConfigError, "mnist"),
        ({"dataset": "nowhere/mine.npy"}, DataError, "mine.npy does not exist"),
        ({"generator.2.num_units": 63}, ConfigError, "63 units and an image of the data 64 pixels"),
    ],
)
def test_what_cannot_be_had_is_refused_before_a_folder_is_made(tmp_path, no_cupy, changes, error, sentence):
    with pytest.raises(error, match=sentence):
        fastgan.train(TINY.replace(changes), runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="is not empty"):
        fastgan.train(TINY, run_dir=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_init_from_takes_the_weights_and_not_the_velocities(tmp_path, finished):
    stop = threading.Event()
    stop.set()
    started = fastgan.train(TINY.replace({"seed": 9}), run_dir=tmp_path / "run", init_from=finished.path, stop=stop)
    assert started.step == 0
    old, new = arrays_of(finished), arrays_of(started)
    for name in new:
        if name.endswith(("/W", "/b")):
            np.testing.assert_array_equal(new[name], old[name])
        elif name.endswith(("/vW", "/vb")):
            assert not new[name].any()
            assert old[name].any() or name == "discriminator/2/vb"
    assert new["state"][0] == 0
    assert not new["sums"].any()
    assert json.loads((started.path / "config.json").read_text())["init_from"] == str(finished.path)
    fastgan.resume(started.path)
    assert json.loads((started.path / "config.json").read_text())["init_from"] == str(finished.path)


def test_init_from_another_shape_is_refused_before_a_folder_is_made(tmp_path, finished):
    with pytest.raises(RunError, match=r"do not fit this configuration \(generator/1/W is float32 \(12, 10\)"):
        fastgan.train(TINY.replace({"generator.1.num_units": 11}), runs_dir=tmp_path / "runs", init_from=finished.path)
    with pytest.raises(RunError, match="There is no run at"):
        fastgan.train(TINY, runs_dir=tmp_path / "runs", init_from=tmp_path / "none")
    assert not (tmp_path / "runs").exists()


RESUME_CHANGES = [
    ({"epochs": 2}, True),
    ({"steps": 6}, True),
    ({"parzen_every": 7}, True),
    ({"checkpoint_every": 5.0}, True),
    ({"on_collapse": "stop"}, True),
    ({"data_dir": "/elsewhere"}, True),
    ({"device": 1}, True),
    ({"threads": 2}, True),
    ({"seed": 3}, True),
    ({"seed": 4}, False),
    ({"batch_size": 100}, False),
    ({"learning_rate": 0.2}, False),
    ({"noise": "normal"}, False),
    ({"objective": "minimax"}, False),
    ({"update": "alternating"}, False),
    ({"dataset": "mnist"}, False),
    ({"preset": "mnist"}, False),
    ({"backend": "cpu"}, False),
    ({"precision": "tf32"}, False),
    ({"generator.0.num_units": 13}, False),
]


@pytest.mark.parametrize(("changes", "allowed"), RESUME_CHANGES, ids=lambda value: str(value))
def test_only_what_changes_no_bit_may_change_on_resuming(changes, allowed):
    if allowed:
        changed = changed_for_resume(TINY, changes, 1197)
        assert all(getattr(changed, name) == value for name, value in changes.items())
    else:
        with pytest.raises(ConfigError, match=rf"^{next(iter(changes)).split('.')[0]} of the run is"):
            changed_for_resume(TINY, changes, 1197)


def test_a_run_can_become_longer_and_not_shorter():
    ten = TINY.replace({"epochs": 10})
    with pytest.raises(
        ConfigError,
        match=r"to make 10 epochs \(50 steps\) and the options ask for 9 epochs \(45 steps\); .*longer, not shorter",
    ):
        changed_for_resume(ten, {"epochs": 9}, 1197)
    with pytest.raises(ConfigError, match="longer, not shorter"):
        changed_for_resume(ten, {"steps": 49}, 1197)
    assert changed_for_resume(ten, {"steps": 51}, 1197).steps == 51
    by_steps = ten.replace({"steps": 51})
    assert changed_for_resume(by_steps, {"epochs": 11}, 1197).steps is None
    with pytest.raises(ConfigError, match="longer, not shorter"):
        changed_for_resume(by_steps, {"epochs": 10}, 1197)


def test_the_number_of_steps_is_that_of_whole_batches():
    assert last_step(TINY.replace({"epochs": 4}), 1197) == 4 * 5
    assert last_step(ALTERNATING.replace({"epochs": 4}), 1197) == 4 * (1197 // (2 * 119))
    assert last_step(TINY.replace({"steps": 7}), 1197) == 7


def test_other_threads_are_warned_about_where_they_make_a_difference(tmp_path):
    path = fastgan.train(TINY.replace({"backend": "reference"}), run_dir=tmp_path / "run").path
    with pytest.warns(FastganWarning, match="threads changes from 1 to 2: .* equal to rounding only"):
        run = fastgan.resume(path, {"epochs": 2, "threads": 2})
    assert run.config.threads == 2


@pytest.mark.parametrize("config", [TINY, ALTERNATING], ids=["simultaneous", "alternating"])
def test_other_threads_change_no_bit_on_cpu(tmp_path, config, monkeypatch):
    # Small loops and products are shared too.
    monkeypatch.setattr(loops, "PARALLEL_SIZE", 1 << 10)
    products._plan.cache_clear()
    try:
        whole = fastgan.train(config.replace({"epochs": 2}), run_dir=tmp_path / "whole")
        path = fastgan.train(config.replace({"epochs": 1}), run_dir=tmp_path / "run").path
        assert_same_bits(arrays_of(fastgan.resume(path, {"epochs": 2, "threads": 3})), arrays_of(whole))
    finally:
        products._plan.cache_clear()


def test_changed_data_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    file = tmp_path / "mine.npy"
    np.save(file, rng.random((400, 9), dtype=np.float32))
    config = TINY.replace({"dataset": str(file), "steps": 2, "batch_size": 50})
    run = fastgan.train(config, run_dir=tmp_path / "run")
    assert fastgan.resume(run.path, {"steps": 3}).step == 3
    np.save(file, rng.random((400, 9), dtype=np.float32))
    with pytest.raises(DataError, match=r"not those that .* was trained on: mine.npy has another SHA-256"):
        fastgan.resume(run.path, {"steps": 4})


def test_a_run_on_ones_own_file_can_be_gone_on_with_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).integers(0, 256, (400, 3, 3), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    config = TINY.replace({"dataset": "mine.npy", "steps": 2, "batch_size": 50})
    run = fastgan.train(config, run_dir=tmp_path / "run")
    assert run.config.dataset == str(tmp_path / "mine.npy")
    assert fastgan.resume(run.path, {"steps": 3, "dataset": "mine.npy"}).step == 3
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert fastgan.resume(run.path, {"steps": 4}).step == 4


def test_data_that_are_loaded_already_are_taken(tmp_path):
    digits = datasets.load("digits")
    run = fastgan.train(TINY, dataset=digits, run_dir=tmp_path / "run")
    assert fastgan.resume(run.path, {"epochs": 2}, dataset=digits).step == 10


def test_a_finished_run_resumed_stays_as_it_is(tmp_path, finished):
    path = copy_of(finished, tmp_path)
    before = (path / LATEST).read_bytes()
    run = fastgan.resume(path)
    assert run.step == 5
    assert (path / LATEST).read_bytes() == before
    assert lines_of(path) == finished.history


def test_a_damaged_checkpoint_is_gone_on_from_by_the_one_before(tmp_path):
    config = TINY.replace({"epochs": 2})
    whole = fastgan.train(config, run_dir=tmp_path / "whole")
    path = copy_of(whole, tmp_path)
    (path / LATEST).write_bytes(b"")
    with pytest.warns(FastganWarning, match="is used"):
        resumed = fastgan.resume(path)
    assert_same_bits(arrays_of(resumed), arrays_of(whole))
    assert without_clock(lines_of(path)) == without_clock(whole.history)


def test_a_run_that_was_stopped_before_its_first_step_can_be_gone_on_with(tmp_path, finished):
    stop = threading.Event()
    stop.set()
    run = fastgan.train(TINY, run_dir=tmp_path / "run", stop=stop)
    assert (run.step, run.history, grids_of(run.path)) == (0, [], [0])
    assert_same_bits(arrays_of(fastgan.resume(run.path)), arrays_of(finished))


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "write_atomically", refuse)
    with pytest.raises(RunError, match=r"Cannot write to the run's folder .*: No space left on device"):
        fastgan.train(TINY, run_dir=tmp_path / "run")


def test_training_prints_nothing(tmp_path, capfd):
    fastgan.train(TINY, run_dir=tmp_path / "run")
    assert capfd.readouterr() == ("", "")


def test_a_preset_s_name_is_no_configuration():
    with pytest.raises(TypeError, match=r"config is a str; it must be a Config, as fastgan\.preset\('digits'\) gives"):
        fastgan.train("digits")
