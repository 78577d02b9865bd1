import json
import os
import pty
import re
import select
import shutil
import signal
import time

import numpy as np
import pytest

import fastgan
from fastgan import datasets
from fastgan.cli import train
from fastgan.config import Config
from fastgan.kernels.common import loops
from tests.runs_for_tests import (
    STEPS_PER_EPOCH,
    TINY,
    TINY_OPTIONS,
    StopAt,
    arrays_of,
    assert_same_bits,
    invoke,
    process,
)

TRAIN = ("train", *TINY_OPTIONS)


@pytest.fixture
def finished(runs_dir, tmp_path):
    """A copy of a finished run of one epoch, to go on with."""
    return shutil.copytree(runs_dir / "00001-digits-seed3", tmp_path / "finished")


def test_stdout_is_the_runs_folder_and_stderr_a_line_a_report():
    result = invoke(*TRAIN, "--epochs", "6")
    assert result.stdout == "runs/00001-digits-seed3\n"
    first, *reports = result.stderr.splitlines()
    assert first == "runs/00001-digits-seed3: steps 0 to 30 with cpu, 1 thread"
    assert [line.split()[:2] for line in reports] == [["epoch", "1"], ["epoch", "2"], ["epoch", "5"], ["epoch", "6"]]
    assert re.fullmatch(
        r"epoch 6  step 30  D loss 0\.\d{4}  G loss 0\.\d{4}  "
        r"D\(x\) 0\.\d{3}  D\(G\(z\)\) 0\.\d{3}  \d+ images/s  \d+ s",
        reports[-1],
    )


def test_quiet_leaves_the_folder_alone():
    result = invoke(*TRAIN, "--epochs", "1", "--quiet")
    assert (result.stdout, result.stderr) == ("runs/00001-digits-seed3\n", "")


@pytest.mark.parametrize("quiet", [False, True])
def test_compiling_is_said_unless_the_command_is_quiet(monkeypatch, tmp_path, quiet):
    # As on a machine that has compiled nothing yet, for one small loop.
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(loops, "_has_told", False)

    def double(x):
        for i in range(x.shape[0]):
            x[i] *= 2

    monkeypatch.setattr("fastgan.training.versions", lambda *_, **__: loops.loop(double)(np.ones(3)) or {})
    stderr = invoke(*TRAIN, "--epochs", "1", *(["--quiet"] if quiet else [])).stderr
    assert ("Compiling for this processor" in stderr) != quiet


def test_the_time_left_is_judged_by_the_steps_after_the_first_which_may_have_compiled(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = train._Clock()
    now[0] += 60
    assert clock.left(1, 101) is None
    now[0] += 2
    assert clock.left(11, 101) == pytest.approx(18)


def test_the_command_trains_what_the_library_trains(runs_dir):
    invoke(*TRAIN, "--epochs", "2", "--seed", "4", "--run-dir", "mine")
    run = fastgan.load_run("mine")
    assert_same_bits(arrays_of(run), arrays_of(fastgan.load_run(runs_dir / "00002-digits-seed4")))


def test_the_folder_is_where_it_is_asked_for(monkeypatch, tmp_path):
    assert invoke(*TRAIN, "--steps", "1", "--runs", tmp_path / "a").stdout == f"{tmp_path}/a/00001-digits-seed3\n"
    assert invoke(*TRAIN, "--steps", "1", "--runs", tmp_path / "a").stdout == f"{tmp_path}/a/00002-digits-seed3\n"
    monkeypatch.setenv("FASTGAN_RUNS", str(tmp_path / "b"))
    assert invoke(*TRAIN, "--steps", "1").stdout == f"{tmp_path}/b/00001-digits-seed3\n"
    assert invoke(*TRAIN, "--steps", "1", "--run-dir", tmp_path / "c").stdout == f"{tmp_path}/c\n"
    assert "is not empty; give a new folder" in invoke(*TRAIN, "--run-dir", tmp_path / "c", code=1).stderr


OPTIONS = {
    "epochs": ("7", 7),
    "steps": ("9", 9),
    "batch_size": ("50", 50),
    "objective": ("minimax", "minimax"),
    "noise": ("normal", "normal"),
    "learning_rate": ("0.05", 0.05),
    "seed": (str(2**64 - 1), 2**64 - 1),
    "backend": ("reference", "reference"),
    "device": ("0", 0),
    "precision": ("float32", "float32"),
    "threads": ("3", 3),
    "parzen_every": ("2", 2),
    "checkpoint_every": ("1.5", 1.5),
    "data_dir": ("/data", "/data"),
    "on_collapse": ("stop", "stop"),
    "update": ("alternating", "alternating"),
}


def dry(*arguments):
    result = invoke("train", "--dry-run", *arguments)
    assert not os.path.exists("runs")
    return Config.from_json(json.loads(result.stdout))


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_sets_its_field_and_no_other(name):
    text, value = OPTIONS[name]
    config = dry("--" + name.replace("_", "-"), text)
    assert config == fastgan.preset("digits").replace({name: value})


def test_options_that_fit_only_together_are_taken_together():
    config = dry("--d-steps", "2", "--update", "alternating")
    assert (config.d_steps, config.update) == (2, "alternating")
    assert invoke(*TRAIN, "--d-steps=2", "--update=alternating", "--steps=2").stdout == "runs/00001-digits-seed3\n"


def test_without_options_the_digits_are_trained_on():
    config = fastgan.preset("digits")
    assert dry() == config
    num_steps = config.epochs * (1197 // config.batch_size)
    assert invoke("train", "--dry-run").stderr == (
        f"Would make {num_steps} steps on digits (embedded): 1197 training images of 1x8x8.\n"
    )


def test_set_changes_any_field():
    config = dry(
        "--set", "generator.0.num_units=7", "--set", "noise=normal", "--set", "learning_rate=1e-3",
        "--set", "steps=null", "--set", "discriminator.1.max_col_norm=2",
    )  # fmt: skip
    assert config == fastgan.preset("digits").replace(
        {
            "generator.0.num_units": 7,
            "noise": "normal",
            "learning_rate": 1e-3,
            "discriminator.1.max_col_norm": 2.0,
        }
    )


def test_set_of_the_preset_and_the_data_set_is_as_by_their_options(tmp_path):
    np.save("mine.npy", np.zeros((200, 9), np.uint8))
    assert dry("--set", "dataset=mine.npy") == dry("--dataset", "mine.npy")
    assert dry("--set", "preset=mnist", "--set", "dataset=digits") == dry("--preset", "mnist", "--dataset", "digits")
    assert dry("--preset", "mnist", "--dataset", "digits").generator[0].num_units == 1200


def test_a_file_of_ones_own_takes_the_mnist_recipe_with_its_own_sizes():
    np.save("mine.npy", np.zeros((200, 3, 3), np.uint8))
    config = dry("--dataset", "mine.npy")
    assert config == fastgan.preset("mnist").replace({"dataset": os.path.abspath("mine.npy")})
    invoke(*TRAIN, "--dataset", "mine.npy", "--steps", "1", "--batch-size", "20")
    assert fastgan.load_run("runs/00001-mine-seed3").generator.sample(2).shape == (2, 9)


def test_what_dry_run_prints_can_be_trained():
    result = invoke(*TRAIN, "--steps", "3", "--dry-run")
    with open("config.json", "w") as file:
        file.write(result.stdout)
    config = TINY.replace({"steps": 3, "epochs": fastgan.preset("digits").epochs})
    assert dry("--config", "config.json") == config
    invoke("train", "--config", "config.json")
    assert fastgan.load_run("runs/00001-digits-seed3").config == config.replace({"backend": "cpu"})


def test_a_runs_config_json_runs_it_again(finished, runs_dir):
    invoke("train", "--config", finished / "config.json")
    again = fastgan.load_run("runs/00001-digits-seed3")
    assert_same_bits(arrays_of(again), arrays_of(fastgan.load_run(finished)))


def test_options_take_precedence_over_the_file():
    with open("config.json", "w") as file:
        json.dump({"config": TINY.replace({"steps": 3}).to_json()}, file)
    assert dry("--config", "config.json", "--seed", "8").seed == 8
    assert dry("--config", "config.json", "--epochs", "2").steps is None
    assert dry("--config", "config.json", "--set", "generator.0.num_units=9").generator[0].num_units == 9


def test_a_file_may_hold_a_few_fields_only():
    with open("config.json", "w") as file:
        json.dump({"learning_rate": 0.02, "preset": "mnist", "dataset": "digits"}, file)
    assert dry("--config", "config.json") == fastgan.preset("mnist").replace(
        {"learning_rate": 0.02, "dataset": "digits"}
    )
    with open("config.json", "w") as file:
        json.dump({"learning_rate": 0.02}, file)
    assert dry("--config", "config.json") == fastgan.preset("digits").replace({"learning_rate": 0.02})


def test_networks_of_ones_own_need_no_preset():
    fields = TINY.replace({"preset": "custom"}).to_json()
    with open("config.json", "w") as file:
        json.dump(fields, file)
    assert dry("--config", "config.json").to_json() == fields


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "config.json is not JSON"),
        ("[1]", "must hold a JSON object"),
        ('{"seeds": 1}', "There is no field 'seeds'; the nearest is 'seed'"),
        ('{"seed": -1}', "seed is -1"),
        ('{"dataset": 5}', "dataset is 5"),
        ('{"dataset": ["mnist"]}', "dataset is ['mnist']"),
        ('{"preset": "mnits"}', "no preset 'mnits'"),
        ('{"preset": ["mnist"]}', "no preset"),
        ('{"generator": 7}', "generator is 7"),
        ("\xff", "config.json"),
    ],
)
def test_a_faulty_file_is_named_and_exits_with_1(content, sentence):
    with open("config.json", "w", encoding="latin-1") as file:
        file.write(content)
    stderr = invoke("train", "--config", "config.json", code=1).stderr
    assert "config.json" in stderr
    assert sentence in stderr
    assert not os.path.exists("runs")


def test_a_file_that_is_not_there_exits_with_1():
    assert "Cannot read the configuration none.json" in invoke("train", "--config", "none.json", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--set", "learning-rate=1"), "There is no field 'learning-rate'; the nearest is 'learning_rate'"),
        (("--set", "generator.0.units=1"), "the nearest is 'generator.0.num_units'"),
        (("--set", "seed"), "'seed' must be NAME=VALUE"),
        (("--set", "=3"), "must be NAME=VALUE"),
        (("--set", "seed=x"), "seed is 'x'; it must be a whole number"),
        (("--set", "learning_rate=NaN"), "learning_rate is nan"),
        (("--set", "seed=" + "9" * 5000), "seed is"),
        (("--learning-rate", "nan"), "learning_rate is nan"),
        (("--checkpoint-every", "inf"), "checkpoint_every is inf"),
        (("--epochs", "1", "--steps", "1"), "--epochs and --steps exclude each other"),
        (("--epochs", "1", "--set", "steps=1"), "epochs and steps exclude each other"),
        (("--epochs", "0"), "--epochs"),
        (("--batch-size", "0"), "--batch-size"),
        (("--learning-rate", "-1"), "--learning-rate"),
        (("--seed", "-1"), "--seed"),
        (("--threads", "0"), "--threads"),
        (("--noise", "gaussian"), "--noise"),
        (("--d-steps", "2"), "use --update alternating"),
        (("--d-steps", "70000", "--update", "alternating"), "d_steps is 70000"),
        (("--preset", "mnits"), "no preset 'mnits'"),
        (("--dataset", "digitz"), 'did you mean "digits"?'),
        (("--resume", "1", "--init-from", "1"), "--resume and --init-from exclude each other"),
        (("--resume", "1", "--run-dir", "a"), "--resume and --run-dir exclude each other"),
        (("--resume", "1", "--config", "a"), "--config and --resume exclude each other"),
    ],
)
def test_what_the_command_line_alone_shows_to_be_wrong_exits_with_2(arguments, sentence):
    result = invoke("train", *arguments, code=2)
    assert sentence in result.stderr
    assert result.stdout == ""
    assert not os.path.exists("runs")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--backend", "cupy"),
            "The backend cupy cannot run here: CuPy is not installed (pip install 'cupy-cuda12x[ctk]'",
        ),
        (("--precision", "tf32"), "has no tf32; leave --precision out"),
        (("--device", "1"), "has no device 1; leave --device out"),
        (("--batch-size", "2000"), "1197 rows and a step needs 2000"),
        (("--dataset", "none.npy"), "none.npy does not exist"),
        (("--init-from", "7"), "There is no run '7'"),
        (("--resume", "7"), "There is no run '7'"),
        (("--resume", "."), "holds no checkpoint"),
    ],
)
@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["for real", "dry"])
def test_what_a_file_data_or_a_device_shows_to_be_wrong_exits_with_1(no_cupy, arguments, sentence, dry_run):
    result = invoke("train", *arguments, *dry_run, code=1)
    assert sentence in result.stderr
    assert result.stdout == ""
    assert not os.path.exists("runs")


def test_a_run_goes_on_and_equals_one_that_never_stopped(finished, runs_dir):
    result = invoke("train", "--resume", finished, "--epochs", "2")
    assert result.stdout == f"{finished}\n"
    assert result.stderr.splitlines()[0] == f"{finished}: steps 5 to 10 with cpu, 1 thread"
    invoke(*TRAIN, "--epochs", "2", "--run-dir", "whole")
    assert_same_bits(arrays_of(fastgan.load_run(finished)), arrays_of(fastgan.load_run("whole")))


def test_the_run_to_go_on_with_is_named_by_number_too(finished):
    os.mkdir("runs")
    shutil.move(finished, "runs/00012-digits-seed3")
    assert invoke("train", "--resume", "12", "--steps", "6").stdout == "runs/00012-digits-seed3\n"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("--seed", "4"), "seed"),
        (("--batch-size", "100"), "batch_size"),
        (("--set", "momentum=0.6"), "momentum"),
        (("--dataset", "mnist"), "dataset"),
        (("--preset", "mnist"), "preset"),
        (("--precision", "tf32"), "precision"),
        (("--noise", "normal"), "noise"),
        (("--set", "generator.0.num_units=13"), "generator"),
        (("--steps", "4"), "can be made longer, not shorter"),
    ],
)
@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["for real", "dry"])
def test_an_option_that_differs_from_the_run_exits_with_2_and_is_named(finished, arguments, name, dry_run):
    before = (finished / "checkpoint.h5").read_bytes()
    stderr = invoke("train", "--resume", finished, *arguments, *dry_run, code=2).stderr
    assert name in stderr
    assert (finished / "checkpoint.h5").read_bytes() == before


def test_an_option_that_is_as_in_the_run_may_be_given(finished):
    same = ("--seed", "3", "--noise", "uniform", "--batch-size", "239", "--dataset", "digits", "--preset", "digits")
    invoke("train", "--resume", finished, *same, "--steps", "6")
    assert fastgan.load_run(finished).step == 6


def test_a_dry_run_of_going_on_changes_nothing(finished):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    result = invoke("train", "--resume", finished, "--epochs", "9", "--dry-run")
    assert Config.from_json(json.loads(result.stdout)).epochs == 9
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_a_finished_run_says_so(finished):
    result = invoke("train", "--resume", finished)
    assert result.stdout == f"{finished}\n"
    assert "The run has all its 5 steps; to go on, raise --epochs or --steps." in result.stderr
    assert invoke("train", "--resume", finished, "--quiet").stderr == ""


def test_other_threads_are_warned_about_in_a_line(tmp_path):
    run = tmp_path / "run"
    invoke("train", "--dataset", "digits", "--backend", "reference", "--threads", "1", "--steps", "2", "--run-dir", run)
    result = invoke("train", "--resume", run, "--steps", "3", "--threads", "2")
    warning = result.stderr.splitlines()[0]
    assert warning.startswith("Warning: threads changes from 1 to 2")
    assert "equal to rounding only, not bit for bit" in warning


def test_a_damaged_checkpoint_is_a_line_and_the_one_before_serves(finished):
    (finished / "checkpoint.h5").write_bytes(b"")
    result = invoke("train", "--resume", finished)
    assert result.stderr.startswith("Warning: ")
    assert "checkpoint-previous.h5, is used" in result.stderr.splitlines()[0]
    assert fastgan.load_run(finished).step == 5


def test_a_new_run_starts_from_anothers_weights(finished):
    invoke(*TRAIN, "--init-from", finished, "--steps", "1", "--learning-rate", "0", "--set", "min_learning_rate=0")
    new = fastgan.load_run("runs/00001-digits-seed3")
    np.testing.assert_array_equal(new.generator.sample(3), fastgan.load_run(finished).generator.sample(3))
    stderr = invoke("train", "--init-from", finished, "--dry-run", code=1).stderr
    assert "do not fit this configuration" in stderr


def test_scores_are_in_the_reports(monkeypatch):
    monkeypatch.setattr("fastgan.training.NUM_SAMPLES", 50)
    result = invoke(*TRAIN, "--epochs", "2", "--parzen-every", "2")
    assert re.search(r"epoch 2 .* validation -?\d+\.\d ± \d+\.\d nats at sigma 0\.\d{3}", result.stderr)
    assert os.path.exists("runs/00001-digits-seed3/checkpoint-best.h5")
    invoke("sample", "--checkpoint", "best", "--num", "2", "--out", "a.npy")


@pytest.mark.parametrize("rate", ["1e30", "1e38"])
def test_training_that_diverges_is_one_sentence_and_exits_with_1(rate):
    result = invoke(*TRAIN, "--learning-rate", rate, "--epochs", "2", code=1)
    # There is nothing yet to go on from.
    assert result.stderr.splitlines()[-1].endswith("is good; a new run with a lower --learning-rate may do better")
    assert "RuntimeWarning" not in result.stderr
    assert result.stdout == ""
    assert np.isfinite(fastgan.load_run("runs/00001-digits-seed3").generator.sample(2)).all()


def test_a_download_shows_progress_and_can_be_interrupted(monkeypatch):
    real, handlers = datasets.load, [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def load(*arguments, progress, signals=(), **options):
        progress("images.gz", 0, 10)
        for number in signals:
            os.kill(os.getpid(), number)
        progress("images.gz", 5, 10)
        return real("digits")

    monkeypatch.setattr(datasets, "load", load)
    assert "downloading images.gz, 10 bytes" in invoke(*TRAIN, "--steps", "1").stderr
    assert invoke(*TRAIN, "--steps", "1", "--quiet").stderr == ""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        monkeypatch.setattr(datasets, "load", lambda *a, n=number, **o: load(*a, signals=[n], **o))
        invoke(*TRAIN, "--steps", "1", code=code)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert len(os.listdir("runs")) == 2


ENDLESS = (*TRAIN, "--epochs", "1000000", "--run-dir", "a run")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_a_signal_saves_says_how_to_go_on_and_ends_with_its_code(number, code):
    started = process(*ENDLESS)
    for line in started.stderr:
        if line.startswith("epoch 2 "):
            break
    started.send_signal(number)
    stdout, stderr = started.communicate(timeout=60)
    assert started.returncode == code
    assert stdout == "a run\n"
    assert "Traceback" not in stderr
    stopped, command = stderr.splitlines()[-2:]
    step = int(re.fullmatch(r"Stopped and saved at step (\d+) of 5000000\. To go on:", stopped)[1])
    assert command == "  fastgan train --resume 'a run'"
    run = fastgan.load_run("a run")
    assert run.step == step >= 2 * STEPS_PER_EPOCH
    # And it does go on from there, equal to a run that was never stopped.
    invoke("train", "--resume", "a run", "--steps", 5_000_000, "--dry-run")
    stop = StopAt(step)
    fresh = fastgan.train(TINY.replace({"steps": step + 1}), run_dir="fresh", callbacks=[stop], stop=stop.event)
    assert_same_bits(arrays_of(run), arrays_of(fresh))


def test_a_run_whose_stderr_is_gone_goes_on():
    # As behind `| head -1`: the next report meets a closed pipe.
    started = process(*TRAIN, "--epochs", "20", "--run-dir", "a run")
    started.stderr.close()
    with started.stdout as stdout:
        assert stdout.read() == "a run\n"
    assert started.wait(timeout=60) == 0
    assert fastgan.load_run("a run").step == 20 * STEPS_PER_EPOCH


def test_under_nohup_a_closed_terminal_is_ignored():
    prelude = "import os, signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    started = process(*TRAIN, "--epochs", "20", "--run-dir", "a run", prelude=prelude)
    for line in started.stderr:
        if line.startswith("epoch 1 "):
            started.send_signal(signal.SIGHUP)
    started.communicate(timeout=60)
    assert started.returncode == 0
    assert fastgan.load_run("a run").step == 20 * STEPS_PER_EPOCH


def test_a_second_ctrl_c_ends_at_once_and_the_last_checkpoint_stands():
    prelude = (
        "import time\nfrom fastgan import checkpoint\nsave = checkpoint.save\n"
        "def slow(folder, state, *options):\n"
        "    if state.arrays['state'][0]:\n"
        "        print('saving', file=sys.stderr, flush=True)\n"
        "        time.sleep(60)\n"
        "    save(folder, state, *options)\n"
        "checkpoint.save = slow\n"
    )
    started = process(*ENDLESS, prelude=prelude)
    for line in started.stderr:
        if line.startswith("epoch 1 "):
            started.send_signal(signal.SIGINT)
        if line == "saving\n":
            break
    began = time.monotonic()
    started.send_signal(signal.SIGINT)
    stdout, _ = started.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert started.returncode == -signal.SIGINT
    assert stdout == ""
    assert fastgan.load_run("a run").step == 0


def test_a_terminal_has_one_line_that_is_written_over_and_no_escape_codes():
    ours, theirs = pty.openpty()
    started = process(*TRAIN, "--epochs", "60", stderr=theirs)
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            part = os.read(ours, 65536)
        except OSError:
            # What Linux says at the end of a terminal.
            break
        if not part:
            break
        shown += part
    os.close(ours)
    stdout, _ = started.communicate(timeout=60)
    assert (started.returncode, stdout) == (0, "runs/00001-digits-seed3\n")
    assert b"\x1b" not in shown
    text = shown.decode().replace("\r\n", "\n")
    assert re.search(r"\repoch \d+\.\d of 60, step \d+ of 300, \d+ s left", text)
    reports = [line.rpartition("\r")[2] for line in text.splitlines()]
    assert [line.split()[1] for line in reports if re.match(r"epoch \d+  step", line)] == [
        "1", "2", "5", "10", "20", "30", "40", "50", "60",
    ]  # fmt: skip
