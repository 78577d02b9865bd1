import gzip
import tracemalloc

import numpy as np
import pytest

from fastgan import datasets
from fastgan.datasets import registry
from fastgan.datasets.dataset import DamagedFileError, TruncatedFileError
from fastgan.datasets.idx import read_idx
from fastgan.errors import DataError
from tests.datasets.made_up import (
    ARRAYS,
    CONTENT,
    GZ,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    idx_bytes,
    made_up,
    write_files,
)

SHAPE = ARRAYS[TRAIN_IMAGES].shape
RAW = CONTENT[TRAIN_IMAGES]


@pytest.fixture(autouse=True)
def _made_up_mnist(monkeypatch):
    # Without mirrors: no test of this file may reach for the network.
    monkeypatch.setitem(registry.REGISTRY, "mnist", made_up())
    monkeypatch.setitem(registry.REGISTRY, "fashion-mnist", made_up(name="fashion-mnist"))


# Reading one file


@pytest.mark.parametrize("content", [RAW, gzip.compress(RAW), gzip.compress(RAW[:100]) + gzip.compress(RAW[100:])])
def test_raw_and_gzip_are_told_by_their_content(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    array, digest = read_idx(tmp_path / "file", SHAPE)
    np.testing.assert_array_equal(array, ARRAYS[TRAIN_IMAGES])
    assert digest == made_up().train_images.sha256


@pytest.mark.parametrize("num_bytes", [0, 1, 2, 3, 5, 15, 16, 17, len(RAW) - 1])
@pytest.mark.parametrize("compress", [False, True])
def test_a_file_that_ends_too_early(tmp_path, num_bytes, compress):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(RAW[:num_bytes]) if compress else RAW[:num_bytes])
    with pytest.raises(TruncatedFileError, match=rf"^{path} .*; delete it and fetch it again"):
        read_idx(path, SHAPE)


def test_a_gzip_file_cut_anywhere(tmp_path):
    path = tmp_path / "file"
    packed = gzip.compress(CONTENT[TRAIN_LABELS])
    for num_bytes in range(len(packed)):
        path.write_bytes(packed[:num_bytes])
        with pytest.raises(TruncatedFileError):
            read_idx(path, (60,))


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            CONTENT[TRAIN_LABELS],
            "starts with the number 2049 where 2051 stands in an IDX file of images; put the right",
        ),
        (idx_bytes(ARRAYS[TEST_IMAGES]), "holds 20 x 5 x 4 images where 60 x 5 x 4 belong; put the right file"),
        (RAW + b"x", "takes 1,216 bytes, but is 1,217 bytes long; delete it"),
        (gzip.compress(RAW + b"x"), "60 x 5 x 4 images but goes on after them; delete it"),
        (gzip.compress(idx_bytes(ARRAYS[TEST_IMAGES])), "20 x 5 x 4 images where"),
        (gzip.compress(RAW) + b"garbage", "is a damaged gzip file"),
        (flipped(gzip.compress(RAW), -5), "is a damaged gzip file"),
        (b"\x1f\x8b\x07" + b"x" * 50, "is a damaged gzip file"),
        (gzip.compress(RAW, mtime=0)[:10] + b"\xff" * 100, "is a damaged gzip file"),
    ],
)
def test_a_file_that_is_wrong(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DamagedFileError, match=message) as caught:
        read_idx(tmp_path / "file", SHAPE)
    assert not isinstance(caught.value, TruncatedFileError)


def test_a_gzip_bomb_is_refused_before_it_fills_the_memory(tmp_path):
    (tmp_path / "bomb").write_bytes(gzip.compress(RAW + bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(DamagedFileError, match="goes on after them"):
        read_idx(tmp_path / "bomb", SHAPE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_folder_and_a_missing_file_cannot_be_read(tmp_path):
    with pytest.raises(DamagedFileError, match="cannot be read"):
        read_idx(tmp_path, SHAPE)
    with pytest.raises(DamagedFileError, match="cannot be read"):
        read_idx(tmp_path / "none", SHAPE)


# Loading


def assert_is_made_up(loaded):
    train, test = ARRAYS[TRAIN_IMAGES].reshape(60, 20), ARRAYS[TEST_IMAGES].reshape(20, 20)
    np.testing.assert_array_equal(loaded.splits["train"].pixels, train[:50])
    np.testing.assert_array_equal(loaded.splits["valid"].pixels, train[50:])
    np.testing.assert_array_equal(loaded.splits["test"].pixels, test)
    np.testing.assert_array_equal(loaded.splits["train"].labels, ARRAYS[TRAIN_LABELS][:50])
    np.testing.assert_array_equal(loaded.splits["valid"].labels, ARRAYS[TRAIN_LABELS][50:])
    np.testing.assert_array_equal(loaded.splits["test"].labels, ARRAYS[TEST_LABELS])
    assert all(split.divisor == 255.0 for split in loaded.splits.values())
    assert (loaded.name, loaded.image_shape, loaded.num_validation) == ("mnist", (1, 5, 4), 5)
    assert loaded.digests == {file.name: file.sha256 for file in made_up().files}


@pytest.mark.parametrize("below", ["", "mnist"])
@pytest.mark.parametrize("ending", ["", ".gz", "dotted", "dotted.gz"])
def test_files_are_found_under_all_their_names(tmp_path, below, ending):
    files = GZ if ending.endswith(".gz") else CONTENT
    if ending.startswith("dotted"):
        files = {name.replace("-idx", ".idx"): content for name, content in files.items()}
    folder = write_files(tmp_path / "data" / below, files)
    loaded = datasets.load("mnist", data_dir=tmp_path / "data")
    assert_is_made_up(loaded)
    assert loaded.source == str(folder)
    assert datasets.find("mnist", tmp_path / "data") == folder


def test_places_are_searched_in_order(tmp_path, monkeypatch):
    cache = write_files(tmp_path / "cache" / "fastgan" / "mnist")
    assert datasets.load("mnist").source == str(cache)
    monkeypatch.setenv("FASTGAN_DATA", str(tmp_path / "environment"))
    (tmp_path / "environment").mkdir()
    assert datasets.find("mnist") == cache
    environment = write_files(tmp_path / "environment" / "mnist")
    assert datasets.load("mnist").source == str(environment)
    explicit = write_files(tmp_path / "explicit")
    assert datasets.load("mnist", data_dir=str(explicit)).source == str(explicit)


def test_an_explicit_folder_without_files_is_the_only_one_looked_into(tmp_path):
    write_files(tmp_path / "cache" / "fastgan" / "mnist")
    empty = tmp_path / "empty"
    empty.mkdir()
    message = rf"train-images.* is in {empty}/mnist, {empty}; run `fastgan data fetch mnist --data-dir {empty}`"
    with pytest.raises(DataError, match=message):
        datasets.load("mnist", data_dir=empty)
    assert datasets.find("mnist", empty) is None
    assert list(empty.iterdir()) == []


def test_a_mistyped_environment_variable_is_said(tmp_path, monkeypatch):
    write_files(tmp_path / "cache" / "fastgan" / "mnist")
    monkeypatch.setenv("FASTGAN_DATA", str(tmp_path / "typo"))
    with pytest.raises(DataError, match=r"FASTGAN_DATA names .*typo, which is not a folder"):
        datasets.load("mnist")


def test_without_download_nothing_is_fetched():
    with pytest.raises(DataError, match=r"mnist was not found: .*; run `fastgan data fetch mnist` to download it"):
        datasets.load("mnist", download=False)


@pytest.mark.parametrize("where", ["data_dir", "environment", "cache"])
def test_images_without_labels(tmp_path, monkeypatch, where):
    folder = tmp_path / {"cache": "cache/fastgan/mnist"}.get(where, "place")
    write_files(folder, {name: content for name, content in CONTENT.items() if name != TRAIN_LABELS})
    if where == "environment":
        monkeypatch.setenv("FASTGAN_DATA", str(folder))
        # A whole set further down the list is no excuse to pass over the user's own.
        write_files(tmp_path / "cache" / "fastgan" / "mnist")
    data_dir = folder if where == "data_dir" else None
    with pytest.raises(DataError, match=rf"but lacks {TRAIN_LABELS} .*fetch mnist --data-dir {folder}` to complete it"):
        datasets.load("mnist", data_dir=data_dir, download=where == "environment")
    with pytest.raises(DataError, match="but lacks"):
        datasets.find("mnist", data_dir)


def test_counts_of_images_and_labels_that_disagree(tmp_path):
    write_files(tmp_path, CONTENT | {TRAIN_LABELS: idx_bytes(ARRAYS[TRAIN_LABELS][:59])})
    with pytest.raises(DataError, match=f"{TRAIN_LABELS} says that it holds 59 labels where 60 belong"):
        datasets.load("mnist", data_dir=tmp_path)


def test_a_wrong_digest_in_the_users_folder_is_no_reason_to_look_elsewhere(tmp_path, monkeypatch):
    write_files(tmp_path / "cache" / "fastgan" / "mnist")
    write_files(tmp_path / "own", CONTENT | {TEST_IMAGES: flipped(CONTENT[TEST_IMAGES], 100)})
    monkeypatch.setenv("FASTGAN_DATA", str(tmp_path / "own"))
    expected = made_up().test_images.sha256
    message = rf"own/{TEST_IMAGES} has the wrong content: its SHA-256 is [0-9a-f]{{64}} where {expected} is expected; "
    with pytest.raises(DataError, match=message + ".*delete it or move it away, and fetch it again"):
        datasets.load("mnist")


def test_a_folder_in_the_place_of_a_file(tmp_path):
    write_files(tmp_path, {name: content for name, content in CONTENT.items() if name != TRAIN_IMAGES})
    (tmp_path / TRAIN_IMAGES).mkdir()
    with pytest.raises(DataError, match=f"{TRAIN_IMAGES} is a folder where a file of mnist is expected"):
        datasets.load("mnist", data_dir=tmp_path)
    # A file under another of its names will do.
    write_files(tmp_path, {f"{TRAIN_IMAGES}.gz": GZ[f"{TRAIN_IMAGES}.gz"]})
    assert_is_made_up(datasets.load("mnist", data_dir=tmp_path))


def test_a_folder_named_after_another_data_set_is_left_to_it(tmp_path):
    write_files(tmp_path / "mnist")
    assert datasets.find("mnist", tmp_path / "mnist") == tmp_path / "mnist"
    assert datasets.find("fashion-mnist", tmp_path / "mnist") is None


def test_verify_says_of_each_file_what_is_wrong(tmp_path):
    files = CONTENT | {TRAIN_LABELS: CONTENT[TRAIN_LABELS][:-1], TEST_IMAGES: flipped(CONTENT[TEST_IMAGES], 100)}
    del files[TEST_LABELS]
    write_files(tmp_path, files)
    images, labels, test_images, test_labels = datasets.verify("mnist", data_dir=tmp_path)
    assert images.ok
    assert images.found == images.expected
    assert "67 bytes long" in labels.problem
    assert labels.found is None
    assert test_images.found not in (None, test_images.expected)
    assert "wrong content" in test_images.problem
    assert test_labels.path is None
    assert f"{TEST_LABELS} (raw or .gz) is not in {tmp_path}" in test_labels.problem
    with pytest.raises(DataError, match="mnist was not found"):
        datasets.verify("mnist", data_dir=tmp_path / "none")


def test_where_there_is_no_home_the_environment_variable_still_serves(tmp_path, monkeypatch):
    from pathlib import Path

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(DataError, match=r"no home folder .*; set FASTGAN_DATA"):
        datasets.find("mnist")
    monkeypatch.setenv("FASTGAN_DATA", str(write_files(tmp_path / "own")))
    assert_is_made_up(datasets.load("mnist"))
