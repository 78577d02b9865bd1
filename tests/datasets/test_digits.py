import numpy as np
import pytest

from fastgan import datasets
from fastgan.datasets import digits
from fastgan.errors import ConfigError, DataError


def test_splits_are_the_file_in_order():
    loaded = datasets.load("digits")
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 1197, "valid": 300, "test": 300}
    with np.load(digits.FILE) as file:
        np.testing.assert_array_equal(np.concatenate([s.pixels for s in loaded.splits.values()]), file["pixels"])
        np.testing.assert_array_equal(np.concatenate([s.labels for s in loaded.splits.values()]), file["labels"])
    assert (loaded.name, loaded.image_shape, loaded.num_pixels) == ("digits", (1, 8, 8), 64)
    assert (loaded.source, loaded.num_validation) == ("embedded", 300)
    assert loaded.digests == {"digits.npz": digits.SHA256}


def test_pixels_and_labels_are_what_uci_gives():
    train = datasets.load("digits").splits["train"]
    assert train.pixels.dtype == np.uint8
    assert train.as_float32().min() == 0
    assert train.as_float32().max() == 1
    assert train.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert train.pixels[0, :16].tolist() == [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0]


def test_find_fetch_and_verify_point_at_the_package():
    assert datasets.find("digits") == datasets.fetch("digits") == digits.FILE.parent
    (check,) = datasets.verify("digits")
    assert check.ok
    assert check.found == check.expected == digits.SHA256


@pytest.mark.parametrize("options", [{"data_dir": "somewhere"}, {"mirror": "http://127.0.0.1/"}])
def test_fetch_refuses_what_it_could_only_ignore(options):
    with pytest.raises(ConfigError, match="come inside fastgan"):
        datasets.fetch("digits", **options)


def test_a_changed_file_is_refused(monkeypatch, tmp_path):
    with np.load(digits.FILE) as file:
        pixels, labels = file["pixels"], file["labels"]
    pixels[5, 5] ^= 1
    np.savez(tmp_path / "digits.npz", pixels=pixels, labels=labels)
    monkeypatch.setattr(digits, "FILE", tmp_path / "digits.npz")
    with pytest.raises(DataError, match=f"{digits.SHA256} is expected; install fastgan again"):
        datasets.load("digits")
    (check,) = datasets.verify("digits")
    assert not check.ok


@pytest.mark.parametrize("content", [None, b"", digits.FILE.read_bytes()[:2000]])
def test_a_missing_or_cut_file_is_refused(monkeypatch, tmp_path, content):
    if content is not None:
        (tmp_path / "digits.npz").write_bytes(content)
    monkeypatch.setattr(digits, "FILE", tmp_path / "digits.npz")
    with pytest.raises(DataError, match=r"digits.npz cannot be read .*; install fastgan again"):
        datasets.load("digits")
    (check,) = datasets.verify("digits")
    assert not check.ok
    assert check.found is None
