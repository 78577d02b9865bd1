import json
import os
import pickle
import re
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastgan
from fastgan import datasets
from fastgan.cli.train import _parse, _read_config
from fastgan.config import Config
from fastgan.errors import ConfigError, DataError, FastganError
from fastgan.presets import preset
from tests.reliability import commands, fuzz
from tests.runs_for_tests import TINY, invoke

# The same cases on every machine, and none kept on the disk.
CASES = settings(
    max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
ROOT = Path(fastgan.__file__).parent.parent


@pytest.mark.parametrize(
    "names", [("idx", "gzip", "npy", "config", "mat"), ("npz", "hdf5", "checkpoint", "checkpoint with its digest")]
)
def test_every_parser_refuses_or_reads_what_is_mutated(processes, names):
    for name, counted in fuzz.in_a_process(60, 1, names).items():
        assert sum(counted.values()) == 60, name
        # Mutations that are never refused, or never read, test little.
        assert counted["refused"] > 5, name


def test_the_fuzzer_finds_what_it_looks_for(processes, tmp_path):
    def parser(parse):
        return fuzz.Parser("made", ".bin", [b"seed"], parse, len)

    def refuse(path):
        raise DataError("this is a sentence of our own, as it should be")

    def traceback(path):
        raise KeyError("images")

    def hog(path):
        np.ones(200 << 20, np.uint8).sum()

    def litter(path):
        path.with_name("more").touch()

    assert fuzz.try_one(parser(refuse), b"x", tmp_path) == "refused"
    with pytest.raises(KeyError):
        fuzz.try_one(parser(traceback), b"x", tmp_path)
    with pytest.raises(AssertionError, match="MB where 64 may be"):
        fuzz.try_one(parser(hog), b"x", tmp_path)
    with pytest.raises(AssertionError, match="it wrote something"):
        fuzz.try_one(parser(litter), b"x", tmp_path)


def test_the_fuzzer_finds_a_hang(processes, tmp_path, monkeypatch):
    def hang(path):
        while True:
            pass

    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    with pytest.raises(AssertionError, match="a hang"):
        fuzz.try_one(fuzz.Parser("made", "", [b""], hang, len), b"", tmp_path)


def assert_sentence(refused):
    assert len(str(refused)) > 20, repr(refused)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
names_of_fields = st.sampled_from(sorted(preset("mnist").to_json()))


@CASES
@given(json_values)
def test_any_json_is_a_configuration_or_a_sentence(value):
    try:
        Config.from_json(value)
    except ConfigError as refused:
        assert_sentence(refused)


@CASES
@given(st.dictionaries(names_of_fields, json_values, max_size=4))
def test_any_value_of_a_field_is_a_configuration_or_a_sentence(changes):
    try:
        changed = preset("mnist").replace(changes)
    except ConfigError as refused:
        assert_sentence(refused)
    else:
        assert Config.from_json(json.loads(json.dumps(changed.to_json()))) == changed


@CASES
@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_config_file_or_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "config.json"
    path.write_bytes(content)
    try:
        fields = _read_config(path)
        preset("digits").replace(fields)
    except FastganError as refused:
        assert_sentence(refused)


@CASES
@given(st.floats() | st.integers(), st.floats() | st.integers(), st.integers())
def test_any_sigma_grid_is_a_grid_or_a_sentence(low, high, count):
    try:
        grid = fastgan.sigma_grid(low, high, count)
    except ValueError as refused:
        assert_sentence(refused)
    else:
        assert len(grid) == count
        assert np.isfinite(grid).all()
        # NumPy's own spacing rounds.
        assert (grid[1:] >= grid[:-1] * (1 - 1e-14)).all()


@CASES
@given(st.text(string.printable, max_size=60))
def test_any_assignment_is_a_field_or_a_sentence(text):
    import click

    try:
        changes = _parse((text,))
        preset("digits").replace(changes)
    except (ConfigError, click.BadParameter) as refused:
        assert_sentence(refused)


@pytest.fixture
def network_off(monkeypatch, tmp_path):
    for name in ("FASTGAN_DATA", "FASTGAN_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    put_back = commands.no_network()
    yield
    put_back()


def test_any_command_line_ends_in_a_sentence(network_off, monkeypatch):
    monkeypatch.setattr("fastgan.scoring.NUM_SAMPLES", 50)
    fastgan.train(TINY, run_dir="runs/00001-digits-seed3")
    counted = commands.many(250, 1)
    assert min(counted.values()) >= 5, counted


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", "--num", "1" + "0" * 15, "--out", "a.npy"),
        ("sample", "--rows", "1" + "0" * 15, "--out", "a.png"),
        ("interpolate", "--rows", "1" + "0" * 12, "--out", "a.npy"),
        ("interpolate", "--columns", "1" + "0" * 15, "--out", "a.npy"),
        ("parzen", "--num-samples", "1" + "0" * 15),
        ("train", "--dry-run", "--set", "generator.0.num_units=100000000000"),
        ("train", "--dry-run", "--set", "momentum_epochs=1000000000000"),
        ("train", "--dry-run", "--set", "min_learning_rate=0", "--steps", "1" + "0" * 15),
    ],
)
def test_what_no_memory_holds_is_refused_before_it_is_tried(network_off, arguments):
    fastgan.train(TINY, run_dir="runs/00001-digits-seed3")
    assert re.search(r"take [\d,]+ GB and this machine has [\d,]+; ask for fewer", invoke(*arguments, code=1).stderr)


def test_a_sigma_grid_of_a_billion_is_refused():
    result = invoke("parzen", "--sigma-range", "0.1", "1", "1000000000", code=2)
    assert "2 <= count <= 10000 are needed" in result.stderr


SOURCES = [*(ROOT / "fastgan").glob("*.py"), *(ROOT / "fastgan" / "datasets").glob("*.py"),
           *(ROOT / "cli").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]  # fmt: skip


def test_nothing_is_ever_unpickled_by_what_the_source_says():
    assert len(SOURCES) > 60
    for path in SOURCES:
        source = path.read_text("utf-8")
        for word in (
            "import pickle",
            "from pickle",
            "marshal",
            "shelve",
            "joblib",
            "dill",
            "allow_pickle=True",
            "eval(",
            "exec(",
        ):
            assert not re.search(rf"(?<!\w){re.escape(word)}", source), (path, word)
        # NumPy's default is not to unpickle; it is said all the same wherever NumPy reads.
        for call in re.findall(r"np\.load\([^)]*\)", source):
            # But for the example in the help of `fastgan export`, which is the user's code.
            assert "allow_pickle=False" in call or "G.npz" in call, (path, call)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ""])
def test_nothing_is_ever_unpickled_by_trying(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    content = {
        ".npy": fuzz._pickled(),
        ".npz": fuzz._zip_file({"images.npy": fuzz._pickled()}),
        ".h5": pickle.dumps(Evil()),
        "": pickle.dumps(Evil()),
    }[suffix]
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(content)
    # It would: so the test can fail.
    if suffix == ".npy":
        np.load(path, allow_pickle=True)
        assert Path("unpickled").is_dir()
        Path("unpickled").rmdir()
    with pytest.raises(DataError):
        datasets.load_user_file(path)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("declared", ["images", "labels"])
def test_an_hdf5_array_that_was_never_written_is_refused(tmp_path, declared):
    # A file of a few hundred bytes that HDF5 reads as hundreds of GB of zeros.
    fill = fuzz._hdf5_never_written if declared == "images" else fuzz._hdf5_labels_never_written
    path = tmp_path / "sparse.h5"
    path.write_bytes(fuzz._hdf5_file(fill))
    with pytest.raises(
        DataError, match=r"tells of an array of shape .* and holds 0 bytes of it; write all of the images"
    ):
        datasets.load_user_file(path)


@pytest.mark.parametrize("shape", [(-1, 20), (2**62, 2**62), (-(2**40), 784)])
def test_a_shape_that_overflows_is_refused(tmp_path, shape):
    path = tmp_path / "a.npy"
    path.write_bytes(fuzz._npy_header(shape, data=bytes(1000)))
    with pytest.raises(DataError, match=r"cannot be read as a \.npy file"):
        datasets.load_user_file(path)


def test_brackets_deeper_than_python_reads_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("deep.json").write_text("[" * 100_000)
    assert "deep.json is not JSON" in invoke("train", "--config", "deep.json", "--dry-run", code=1).stderr
    assert "seed is '[[" in invoke("train", "--set", "seed=" + "[" * 5000, "--dry-run", code=2).stderr
