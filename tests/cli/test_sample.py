import errno
import os
import signal
import sys

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import fastgan
from fastgan import datasets, figures, files
from fastgan.cli import main
from tests.runs_for_tests import TINY, invoke, pixels_of


def test_the_grid_is_that_of_the_library(runs, run, tmp_path):
    out = tmp_path / "a.png"
    result = invoke("sample", "--out", out, "--seed", "5")
    assert (result.stdout, result.stderr) == (f"{out}\n", "")
    wanted = figures.grid(run.generator.sample(24, seed=5), (1, 8, 8), 6)
    np.testing.assert_array_equal(pixels_of(out), np.asarray(wanted).squeeze())


def test_arrays_go_into_any_of_three_files(runs, run, tmp_path):
    wanted = run.generator.sample(7, seed=0).reshape(7, 8, 8)
    for suffix in (".npy", ".npz", ".h5"):
        invoke("sample", "--num", "7", "--out", tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), wanted)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert list(file) == ["images"]
        np.testing.assert_array_equal(file["images"], wanted)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["images"][()], wanted)
    assert wanted.dtype == np.float32
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.h5", "a.npy", "a.npz"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_result_is_written_leaves_nothing(runs, run, tmp_path, monkeypatch, sent):
    out = tmp_path / "out"
    out.mkdir()
    real = os.fsync

    def fsync(descriptor):
        assert len(list(out.iterdir())) == 1
        os.kill(os.getpid(), sent)
        real(descriptor)

    before = signal.getsignal(sent)
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", fsync)
        result = CliRunner().invoke(main, ["sample", "--out", str(out / "a.npy")])
    assert result.exit_code == 128 + sent
    assert not list(out.iterdir())
    assert signal.getsignal(sent) == before
    # Who has other plans for the signal keeps them.
    received = []
    before = signal.signal(sent, lambda number, frame: received.append(number))
    try:
        invoke("sample", "--out", out / "a.npy")
        os.kill(os.getpid(), sent)
    finally:
        signal.signal(sent, before)
    assert received == [sent]


def test_the_same_seed_gives_the_same_bytes(runs, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        invoke("sample", "--seed", seed, "--out", tmp_path / f"{name}.png")
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("name", ["1", "00001-digits-seed3", "path", "option"])
def test_the_run_is_named_by_path_name_or_number(runs_dir, runs, tmp_path, name, monkeypatch):
    arguments = [name]
    if name == "path":
        monkeypatch.delenv("FASTGAN_RUNS")
        arguments = [runs_dir / "00001-digits-seed3"]
    elif name == "option":
        monkeypatch.setenv("FASTGAN_RUNS", "/nowhere")
        arguments = ["1", "--runs", runs_dir]
    invoke("sample", *arguments, "--num", "4", "--out", tmp_path / "a.npy")
    wanted = fastgan.load_run(runs_dir / "00001-digits-seed3").generator.sample(4)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy").reshape(4, 64), wanted)


def test_the_newest_run_is_taken_by_default_from_the_folder_runs(runs_dir, run, tmp_path, monkeypatch):
    monkeypatch.chdir(runs_dir.parent)
    invoke("sample", "--num", "4", "--out", tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy").reshape(4, 64), run.generator.sample(4))


def test_the_best_checkpoint_is_read_when_asked_for(runs, tmp_path):
    assert "--parzen-every" in invoke("sample", "--checkpoint", "best", "--out", tmp_path / "a.png", code=1).stderr


@pytest.fixture
def varied(tmp_path):
    """A run whose samples differ so much that their neighbours do too."""
    config = TINY.replace({"steps": 1, "generator.0.irange": 1.0, "generator.1.irange": 1.0, "generator.2.irange": 1.0})
    return fastgan.train(config, run_dir=tmp_path / "varied")


def nearest_to(samples):
    training = datasets.load("digits").splits["train"].as_float32()
    distances = ((samples[:, None].astype(np.float64) - training[None]) ** 2).sum(axis=2)
    assert len(set(distances.argmin(axis=1))) > 1, "neighbours that are all the same show no order"
    return training[distances.argmin(axis=1)]


def test_the_nearest_training_image_stands_beside_the_last_of_each_row(varied, tmp_path):
    out = tmp_path / "a.png"
    invoke("sample", varied.path, "--rows", "3", "--columns", "4", "--nearest", "--out", out)
    samples = varied.generator.sample(12)
    wanted = figures.grid_with_nearest(samples, nearest_to(samples[3::4]), (1, 8, 8), 4)
    np.testing.assert_array_equal(pixels_of(out), np.asarray(wanted).squeeze())


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_the_nearest_are_an_array_beside_the_samples(varied, tmp_path, suffix):
    out = tmp_path / f"a{suffix}"
    invoke("sample", varied.path, "--num", "5", "--nearest", "--out", out)
    if suffix == ".npz":
        with np.load(out, allow_pickle=False) as file:
            arrays = dict(file)
    else:
        with h5py.File(out) as file:
            arrays = {name: file[name][()] for name in file}
    assert arrays.keys() == {"images", "nearest"}
    np.testing.assert_array_equal(arrays["images"].reshape(5, 64), varied.generator.sample(5))
    np.testing.assert_array_equal(arrays["nearest"].reshape(5, 64), nearest_to(varied.generator.sample(5)))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--out", "a.jpg"), "'a.jpg' must end in .png, .npy, .npz, .h5"),
        (("--out", "a"), "must end in"),
        (("--out", "a.png", "--num", "3", "--rows", "2"), "--num and --rows exclude each other"),
        (("--out", "a.npy", "--nearest"), "--nearest needs room for more than one array"),
        (("--out", "a.png", "--nearest", "--num", "7"), "7 samples do not fill rows of 6"),
        (("--out", "a.png", "--num", "0"), "--num"),
        (("--out", "a.png", "--seed", str(2**64)), "--seed"),
        (("--out", "a.png", "--checkpoint", "first"), "--checkpoint"),
    ],
)
def test_what_the_command_line_alone_shows_to_be_wrong_exits_with_2(runs, arguments, sentence):
    assert sentence in invoke("sample", *arguments, code=2).stderr
    assert not os.listdir()


def test_a_place_that_cannot_be_written_is_said(runs, tmp_path):
    (tmp_path / "a.png").mkdir()
    assert "is a folder; give the name of a file in it" in invoke("sample", "--out", tmp_path / "a.png", code=1).stderr
    assert "does not exist; make it first" in invoke("sample", "--out", tmp_path / "no" / "a.png", code=1).stderr


def test_a_full_disk_is_said_and_leaves_the_old_file(runs, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"old")

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", refuse)
    stderr = invoke("sample", "--out", tmp_path / "a.png", code=1).stderr
    assert stderr == f"Error: Cannot write {tmp_path / 'a.png'}: No space left on device\n"
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a.png": b"old"}


def test_colour_comes_with_the_channels_last(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 4, 2, 3), dtype=np.uint8)
    np.save(tmp_path / "colour.npy", pixels)
    config = TINY.replace({"dataset": str(tmp_path / "colour.npy"), "steps": 1})
    run = fastgan.train(config, run_dir=tmp_path / "run")
    invoke("sample", tmp_path / "run", "--num", "5", "--out", tmp_path / "a.npy")
    images = np.load(tmp_path / "a.npy")
    assert images.shape == (5, 4, 2, 3)
    np.testing.assert_array_equal(images.transpose(0, 3, 1, 2).reshape(5, 24), run.generator.sample(5))
    invoke("sample", tmp_path / "run", "--nearest", "--out", tmp_path / "a.png")
    picture = pixels_of(tmp_path / "a.png")
    assert picture.shape[2:] == (3,)
    assert (picture[..., 0] != picture[..., 1]).any()


def test_neighbours_in_data_that_changed_are_refused(tmp_path):
    file = tmp_path / "mine.npy"
    np.save(file, np.full((300, 4), 100, np.uint8))
    fastgan.train(TINY.replace({"dataset": str(file), "steps": 1}), run_dir=tmp_path / "run")
    np.save(file, np.full((300, 4), 101, np.uint8))
    stderr = invoke("sample", tmp_path / "run", "--nearest", "--out", tmp_path / "a.png", code=1).stderr
    assert "another SHA-256" in stderr
    assert not (tmp_path / "a.png").exists()
