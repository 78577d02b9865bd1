import errno
import io
import os
import random

import h5py
import numpy as np
import pytest

from fastgan import checkpoint, files
from fastgan.checkpoint import BEST, LATEST, PREVIOUS, Checkpoint, check_finite, decode, encode, load, save
from fastgan.errors import FastganWarning, RunError
from tests.runs_for_tests import assert_same_bits


def made(number=0):
    rng = np.random.default_rng(number)
    arrays = {
        "generator/0/W": rng.standard_normal((5, 7)).astype(np.float32),
        "generator/0/b": np.array([0.0, -0.0, np.float32(1e-45), 3.4e38], np.float32),
        "state": np.arange(8, dtype=np.int64) + number,
        "sums": rng.standard_normal(4),
        "bits": np.arange(9, dtype=np.uint8),
    }
    return Checkpoint(arrays, {"config": {"seed": number}, "history": [{"a": 0.1}], "text": "±"})


def number_in(loaded):
    return loaded.record["config"]["seed"]


def in_one_file(path, content):
    path.write_bytes(content)
    return path.parent


def test_what_is_read_is_what_was_written_bit_for_bit(tmp_path):
    saved = made()
    save(tmp_path, saved)
    loaded = load(tmp_path)
    assert_same_bits(loaded.arrays, saved.arrays)
    assert loaded.record == saved.record
    assert [file.name for file in tmp_path.iterdir()] == [LATEST]


def test_a_record_longer_than_an_attribute_may_be_is_kept(tmp_path):
    save(tmp_path, Checkpoint(made().arrays, {"history": ["x" * 1000] * 1000}))
    assert len(load(tmp_path).record["history"]) == 1000


def test_hdf5_itself_can_read_the_file(tmp_path):
    save(tmp_path, made())
    with h5py.File(tmp_path / LATEST) as file:
        assert file.userblock_size == 512
        assert file["arrays/generator/0/W"].shape == (5, 7)
    assert (tmp_path / LATEST).read_bytes().startswith(b"fastgan checkpoint\nformat 1\nlength ")


def test_every_cut_is_refused(tmp_path):
    content = encode(made())
    for length in (1, 10, 19, 30, 200, 511, 512, 513, 600, len(content) // 2, len(content) - 1):
        with pytest.raises(RunError, match=str(tmp_path)):
            load(in_one_file(tmp_path / LATEST, content[:length]))
    with pytest.raises(RunError, match="cut short, or longer"):
        load(in_one_file(tmp_path / LATEST, content + b"x"))
    with pytest.raises(RunError, match="cut short, or longer than it was: 1000 bytes of"):
        load(in_one_file(tmp_path / LATEST, content[:1512]))


def test_every_flipped_byte_is_refused():
    content = encode(made())
    places = [*range(0, 140), 300, 511, 512, len(content) - 1]
    places += random.Random(7).sample(range(512, len(content)), 200)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(RunError):
            decode(bytes(damaged), "file")


def test_a_flipped_byte_of_the_content_is_told_by_the_digest(tmp_path):
    content = bytearray(encode(made()))
    content[-100] ^= 4
    with pytest.raises(RunError, match="does not match its own SHA-256"):
        load(in_one_file(tmp_path / LATEST, bytes(content)))


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"\x89HDF\r\n\x1a\n" + b"\0" * 1000, b"PK\x03\x04"])
def test_a_file_that_is_not_ours_is_refused(tmp_path, content):
    with pytest.raises(RunError, match="is not a fastgan checkpoint"):
        load(in_one_file(tmp_path / LATEST, content))


def test_another_format_is_refused_by_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    content = encode(made())
    monkeypatch.undo()
    with pytest.raises(RunError, match="of format 2 and this fastgan reads format 1"):
        load(in_one_file(tmp_path / LATEST, content))


def test_another_format_does_not_fall_back_to_an_older_file(tmp_path, monkeypatch):
    save(tmp_path, made(1))
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    save(tmp_path, made(2))
    monkeypatch.undo()
    with pytest.raises(RunError, match="format 2"):
        load(tmp_path)


def with_hdf5(fill):
    """Make a file of our kind, digest and all, around any HDF5 content."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        fill(file)
    body = memoryview(buffer.getvalue())[512:]
    return checkpoint._block(body) + body


def test_objects_and_texts_are_refused_though_the_digest_is_right(tmp_path):
    def objects(file):
        file["record"] = np.frombuffer(b"{}", np.uint8)
        file.create_dataset("arrays/a", data=["text"], dtype=h5py.string_dtype())

    def opaque(file):
        file["record"] = np.frombuffer(b"{}", np.uint8)
        file["arrays/a"] = np.void(b"\x80\x04N.")

    for fill in (objects, opaque):
        with pytest.raises(RunError, match="a holds no numbers"):
            load(in_one_file(tmp_path / LATEST, with_hdf5(fill)))


def test_an_hdf5_file_without_our_content_is_refused(tmp_path):
    def not_json(file):
        file["record"] = np.frombuffer(b"{", np.uint8)
        file.create_group("arrays")

    for fill in (lambda file: None, not_json):
        with pytest.raises(RunError, match="does not hold what a checkpoint holds"):
            load(in_one_file(tmp_path / LATEST, with_hdf5(fill)))


def test_nothing_in_the_package_unpickles():
    root = os.path.dirname(checkpoint.__file__)
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            if name.endswith(".py"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    source = file.read()
                assert "import pickle" not in source, name
                assert "allow_pickle=True" not in source, name


def test_previous_is_the_one_before(tmp_path):
    for number in (1, 2, 3):
        save(tmp_path, made(number))
    assert number_in(load(tmp_path)) == 3
    assert number_in(decode((tmp_path / PREVIOUS).read_bytes(), tmp_path / PREVIOUS)) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == [PREVIOUS, LATEST]


@pytest.mark.parametrize("damage", [b"", b"\0" * 9000, b"fastgan checkpoint\nform", "cut", "flip"])
def test_a_damaged_latest_gives_way_to_the_one_before_with_a_warning(tmp_path, damage):
    save(tmp_path, made(1))
    save(tmp_path, made(2))
    content = (tmp_path / LATEST).read_bytes()
    if damage == "cut":
        damage = content[:-9]
    elif damage == "flip":
        damage = content[:700] + bytes([content[700] ^ 1]) + content[701:]
    (tmp_path / LATEST).write_bytes(damage)
    with pytest.warns(FastganWarning, match=r"checkpoint\.h5.*checkpoint-previous\.h5, is used"):
        assert number_in(load(tmp_path)) == 1


def test_a_missing_latest_gives_way_to_the_one_before_with_a_warning(tmp_path):
    save(tmp_path, made(1))
    save(tmp_path, made(2))
    (tmp_path / LATEST).unlink()
    with pytest.warns(FastganWarning, match=r"checkpoint\.h5 is missing; the one before it"):
        assert number_in(load(tmp_path)) == 1


def test_two_damaged_files_are_an_error_that_names_both(tmp_path):
    save(tmp_path, made(1))
    save(tmp_path, made(2))
    for name in (LATEST, PREVIOUS):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    with pytest.raises(RunError, match=r"checkpoint\.h5 is cut short.*checkpoint-previous\.h5 is cut short"):
        load(tmp_path)


def test_a_damaged_file_never_pushes_out_the_good_one_before_it(tmp_path, monkeypatch):
    save(tmp_path, made(1))
    save(tmp_path, made(2))
    (tmp_path / LATEST).write_bytes(b"")
    with pytest.warns(FastganWarning, match="is used"):
        loaded = checkpoint.load_to_go_on(tmp_path)
    assert number_in(loaded) == 1
    # The save that follows fails at any point: a good file is there all the same.
    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, function, refuse)
            with pytest.raises(RunError):
                save(tmp_path, made(3))
        assert number_in(load(tmp_path)) == 1
    save(tmp_path, made(3))
    assert number_in(load(tmp_path)) == 3
    assert number_in(decode((tmp_path / PREVIOUS).read_bytes(), tmp_path)) == 1


def test_reading_changes_no_file(tmp_path):
    save(tmp_path, made(1))
    save(tmp_path, made(2))
    (tmp_path / LATEST).write_bytes(b"")
    with pytest.warns(FastganWarning, match="is used"):
        load(tmp_path)
    assert (tmp_path / LATEST).read_bytes() == b""
    assert (tmp_path / PREVIOUS).exists()


def refuse(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("function", ["open", "fsync", "replace"])
@pytest.mark.parametrize("which", ["latest", "best"])
def test_a_save_that_fails_leaves_both_old_files_whole_and_nothing_else(tmp_path, monkeypatch, function, which):
    save(tmp_path, made(1))
    save(tmp_path, made(2))
    save(tmp_path, made(5), "best")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(before) == 3
    monkeypatch.setattr(files.os, function, refuse)
    with pytest.raises(RunError, match="No space left on device; what was saved before is untouched"):
        save(tmp_path, made(3), which)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_disk_that_fills_up_during_the_write_leaves_the_old_file(tmp_path, monkeypatch):
    save(tmp_path, made(1))
    real = os.write

    def full(handle, content):
        real(handle, content[: len(content) // 2])
        refuse()

    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(RunError, match="No space left"):
        save(tmp_path, made(2))
    monkeypatch.undo()
    assert number_in(load(tmp_path)) == 1
    assert [file.name for file in tmp_path.iterdir()] == [LATEST]


def test_the_best_is_a_file_of_its_own(tmp_path):
    save(tmp_path, made(1))
    save(tmp_path, made(7), "best")
    save(tmp_path, made(2))
    assert number_in(load(tmp_path, "best")) == 7
    assert number_in(load(tmp_path)) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == [BEST, PREVIOUS, LATEST]


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(RunError, match=r"no checkpoint-best.h5; only a run trained with --parzen-every"):
        load(tmp_path, "best")
    with pytest.raises(RunError, match="holds no checkpoint"):
        load(tmp_path)
    for which in ("latest", "best"):
        with pytest.raises(RunError, match="There is no run at"):
            load(tmp_path / "no", which)
    (tmp_path / LATEST).mkdir()
    with pytest.raises(RunError, match="Cannot read"):
        load(tmp_path)


def test_the_first_array_that_is_not_finite_is_named():
    arrays = made().arrays
    assert check_finite(arrays) is None
    for bad in (np.nan, np.inf, -np.inf):
        changed = {**arrays, "sums": np.array([0, bad])}
        assert check_finite(changed) == "sums"
