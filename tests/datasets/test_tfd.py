import hashlib
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from fastgan import datasets
from fastgan.datasets import registry
from fastgan.datasets.tfd import FILE, TfdDataset
from fastgan.errors import ConfigError, DataError
from tests.datasets.made_up import write_files

NUM, UNLABELLED = 40, 25
RNG = np.random.default_rng(7)


def arrays(**changes):
    """What the file holds: 25 unlabelled images, and 15 that each fold shares out as 9, 2 and 4."""
    folds = np.zeros((NUM, 5), np.uint8)
    for fold in range(5):
        folds[RNG.permutation(np.arange(0, NUM)[10:25]), fold] = [1] * 9 + [2] * 2 + [3] * 4
    found = {
        "images": RNG.integers(0, 256, (NUM, 48, 48), dtype=np.uint8),
        "folds": folds,
        "labs_ex": np.where(folds[:, :1] > 0, RNG.integers(1, 8, (NUM, 1)), -1),
        "labs_id": np.full((NUM, 1), -1),
    }
    return {name: array for name, array in {**found, **changes}.items() if array is not None}


def mat(content, **options):
    raw = io.BytesIO()
    savemat(raw, content, **options)
    return raw.getvalue()


ARRAYS = arrays()


def made_up(**changes):
    return TfdDataset(num_images=NUM, num_unlabelled=UNLABELLED, **changes)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("as_doubles", [False, True])
@pytest.mark.parametrize("fold", [0, 3])
def test_images_are_split_by_the_folds_codes(tmp_path, compressed, as_doubles, fold):
    images = ARRAYS["images"].astype(np.float64) if as_doubles else ARRAYS["images"]
    content = mat({**ARRAYS, "images": images}, do_compression=compressed)
    write_files(tmp_path / "tfd", {FILE: content})
    loaded = made_up(fold=fold).load(tmp_path)
    assert {name: len(split) for name, split in loaded.splits.items()} == {
        "train": 25, "labelled": 9, "valid": 2, "test": 4,
    }  # fmt: skip
    for code, split in enumerate(loaded.splits.values()):
        rows = ARRAYS["folds"][:, fold] == code
        np.testing.assert_array_equal(split.pixels, ARRAYS["images"][rows].reshape(-1, 2304))
        np.testing.assert_array_equal(split.labels, ARRAYS["labs_ex"][rows, 0])
    assert loaded.num_validation == 2
    assert loaded.digests == {FILE: hashlib.sha256(content).hexdigest()}
    assert all(check.ok for check in made_up().verify(tmp_path))


def test_the_registry_takes_the_fold(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.REGISTRY, "tfd", made_up())
    write_files(tmp_path, {FILE: mat(ARRAYS)})
    third = datasets.load("tfd", data_dir=tmp_path, fold=2)
    np.testing.assert_array_equal(
        third.splits["test"].pixels, ARRAYS["images"][ARRAYS["folds"][:, 2] == 3].reshape(-1, 2304)
    )
    with pytest.raises(ConfigError, match="fold is 5; it must be 0 to 4"):
        datasets.load("tfd", data_dir=tmp_path, fold=5)
    with pytest.raises(ConfigError, match="digits has no folds"):
        datasets.load("digits", fold=0)


def test_a_missing_file_is_said_to_come_from_its_owners(tmp_path):
    for action in (made_up().load, made_up().fetch, made_up().verify):
        with pytest.raises(DataError, match=r"TFD_48x48.mat was not found in .*given out by its owners on request"):
            action(tmp_path)


WRONG = {
    "no images": ({"images": None}, "holds no images"),
    "no folds and no labels": ({"folds": None, "labs_ex": None}, "holds no folds and no labs_ex"),
    "smaller images": ({"images": ARRAYS["images"][:, :32, :32]}, "images of the sizes 40 x 32 x 32 where 40 x 48"),
    "fewer images": ({"images": ARRAYS["images"][1:]}, "holds images of the sizes 39 x 48 x 48"),
    "four folds": ({"folds": ARRAYS["folds"][:, :4]}, "holds folds of the sizes 40 x 4 where 40 x 5 belong"),
    "a code": ({"folds": np.where(ARRAYS["folds"] == 3, 4, ARRAYS["folds"])}, "folds that are not whole numbers"),
    "a pixel": ({"images": ARRAYS["images"] + 0.5}, "images that are not whole numbers from 0 to 255"),
    "NaN": ({"images": np.full((NUM, 48, 48), np.nan)}, "images that are not whole numbers"),
    "a label": ({"labs_ex": ARRAYS["labs_ex"] + 7}, "labs_ex that are not"),
    "another share": ({"folds": np.zeros((NUM, 5))}, "holds 40 unlabelled images where 25 belong"),
    "a ragged share": (
        {"folds": np.roll(ARRAYS["folds"], 1, axis=0) * [1, 0, 1, 1, 1] + ARRAYS["folds"] * [0, 1, 0, 0, 0]},
        "unlabelled in some folds only",
    ),
    "no test images": ({"folds": np.minimum(ARRAYS["folds"], 2)}, "has no test images in fold 0"),
    "cells": ({"images": np.full((NUM, 48, 48), 1.0, object)}, "holds cells in images"),
    "text": ({"labs_ex": np.array(["a" * NUM])}, "holds text in labs_ex"),
    "complex": ({"images": ARRAYS["images"] * 1j}, "holds complex numbers in images"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(tmp_path, changes, message):
    write_files(tmp_path, {FILE: mat({k: v for k, v in {**ARRAYS, **changes}.items() if v is not None})})
    with pytest.raises(DataError, match=message) as raised:
        made_up().load(tmp_path)
    assert "put the TFD_48x48.mat that its owners give out in its place" in str(raised.value)
    (check,) = made_up().verify(tmp_path)
    assert message.split(".*")[0] in check.problem


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 127,
        b"x" * 4000,
        mat({"folds": ARRAYS["folds"]}, format="4"),
        b"\x89HDF\r\n\x1a\n" + b"\0" * 500,
        mat(ARRAYS) + b"abc",
    ],
    ids=["empty", "short", "noise", "version 4", "version 7.3", "bytes after the end"],
)
def test_other_files_are_refused(tmp_path, content):
    write_files(tmp_path, {FILE: content})
    with pytest.raises(DataError, match=f"{FILE} "):
        made_up().load(tmp_path)


def test_a_damaged_file_raises_nothing_but_our_own_error(tmp_path):
    rng = np.random.default_rng(11)
    refused = 0
    for compressed in (False, True):
        whole = mat(ARRAYS, do_compression=compressed)
        for trial in range(150):
            damaged = bytearray(whole)
            # Mostly in the heads of the arrays, where a byte means most.
            for place in rng.integers(0, 400 if trial % 3 else len(damaged), 1 + trial % 4):
                damaged[place] = rng.integers(256)
            if trial % 5 == 0:
                del damaged[rng.integers(len(damaged)) :]
            write_files(tmp_path, {FILE: bytes(damaged)})
            try:
                made_up().load(tmp_path)
            except DataError:
                refused += 1
    assert refused > 100


def test_flags_that_are_cut_short_are_damage(tmp_path):
    # The first array's flags say that they are 2 bytes long, in place of 8.
    whole = bytearray(mat(ARRAYS))
    assert whole[136:144] == b"\x06\x00\x00\x00\x08\x00\x00\x00"
    whole[140] = 2
    write_files(tmp_path, {FILE: bytes(whole)})
    with pytest.raises(DataError, match="an array whose head cannot be read"):
        made_up().load(tmp_path)


def test_a_file_can_hold_more_than_is_needed(tmp_path):
    more = {
        "a": np.full((2, 2), 1.0, object),
        "b": {"c": 1.0},
        "d": "text",
        "e": np.arange(6.0),
        **ARRAYS,
        "f": np.ones(3),
    }
    for compressed in (False, True):
        write_files(tmp_path, {FILE: mat(more, do_compression=compressed)})
        assert len(made_up().load(tmp_path).splits["train"]) == 25


def test_an_array_that_is_there_twice_is_refused(tmp_path):
    again = mat({"folds": ARRAYS["folds"]})[128:]
    write_files(tmp_path, {FILE: mat(ARRAYS) + again})
    with pytest.raises(DataError, match="holds folds twice"):
        made_up().load(tmp_path)


def test_an_array_whose_length_is_not_its_shapes_is_refused(tmp_path):
    content = bytearray(mat(ARRAYS))
    # The tag of the images' numbers: uint8, 40 x 48 x 48 of them.
    place = bytes(content).index(struct.pack("<II", 2, NUM * 48 * 48))
    for length in (NUM * 48 * 48 - 8, NUM * 48 * 48 + 8, 2**32 - 1):
        struct.pack_into("<I", content, place + 4, length)
        write_files(tmp_path, {FILE: bytes(content)})
        with pytest.raises(DataError, match=f"holds {length:,} bytes in images where 92,160 belong"):
            made_up().load(tmp_path)


@pytest.mark.parametrize("name", ["images", "padding"])
def test_a_small_file_cannot_fill_the_memory(tmp_path, name):
    # An array of another variable, and one of the right head, that unpack to 200 MB.
    content = mat({"images": ARRAYS["images"]} if name == "images" else {"padding": np.zeros(9)})
    bomb = zlib.compress(content[128:] + b"\0" * 200_000_000, 9)
    content = content[:128] + struct.pack("<II", 15, len(bomb)) + bomb
    assert len(content) < 1_000_000
    write_files(tmp_path, {FILE: content})
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="ends inside an array" if name == "images" else "holds no images"):
            made_up().load(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
