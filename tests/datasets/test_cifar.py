import gzip
import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest

from fastgan import datasets
from fastgan.datasets import registry
from fastgan.datasets.cifar import ARCHIVE, FILES, FOLDER, CifarDataset
from fastgan.errors import DataError
from tests.datasets.made_up import write_files

RECORDS = np.random.default_rng(3).integers(0, 256, (6, 4, 3073), dtype=np.uint8)
RECORDS[:, :, 0] %= 10
CONTENT = {name: records.tobytes() for name, records in zip(FILES, RECORDS, strict=True)}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


def packed(members):
    """A .tar.gz whose members lie in the archive's own folder; (name, TarInfo) adds something that is no file."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size = 0 if info is content else len(content)
            archive.addfile(info, None if info is content else io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0)


# Not in the files' order, as the real one is not, and with files beside them.
TAR = packed([("readme.html", b"<html>"), *reversed(CONTENT.items()), ("batches.meta.txt", b"airplane\n")])


def made_up(archive=TAR, mirrors=()):
    return CifarDataset(
        num_records=4, num_valid=5, num_validation=2, mirrors=tuple(mirrors),
        archive_sha256=hashlib.sha256(archive).hexdigest(), archive_bytes=len(archive),
    )  # fmt: skip


@pytest.fixture(params=["files", "files in their folder", "archive"])
def folder(request, tmp_path):
    if request.param == "archive":
        return write_files(tmp_path / "data", {ARCHIVE: TAR})
    inner = tmp_path / "data" / ("" if request.param == "files" else FOLDER)
    write_files(inner, CONTENT)
    return tmp_path / "data"


def test_records_become_splits_of_normalised_images(folder):
    before = sorted(folder.rglob("*"))
    loaded = made_up().load(folder)
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 15, "valid": 5, "test": 4}
    assert loaded.image_shape == (3, 32, 32)
    assert loaded.num_validation == 2
    assert loaded.digests == DIGESTS
    whole = np.concatenate([loaded.splits[name].pixels for name in ("train", "valid", "test")])
    np.testing.assert_array_equal(whole, RECORDS.reshape(24, 3073)[:, 1:])
    labels = np.concatenate([loaded.splits[name].labels for name in ("train", "valid", "test")])
    np.testing.assert_array_equal(labels, RECORDS.reshape(24, 3073)[:, 0])
    # Reading leaves nothing behind: an archive is not unpacked.
    assert sorted(folder.rglob("*")) == before
    images = loaded.splits["train"].as_float32(slice(3, 6)).astype(np.float64)
    np.testing.assert_allclose(images.mean(axis=1), 0, atol=1e-7)
    np.testing.assert_allclose(np.sqrt((images**2).sum(axis=1)), 55.0, rtol=1e-6)
    pixels = loaded.splits["train"].pixels[3].astype(np.float64) / 255
    centred = pixels - pixels.mean()
    np.testing.assert_allclose(images[0], 55 * centred / np.linalg.norm(centred), rtol=1e-6, atol=1e-7)


def test_an_image_without_contrast_becomes_0():
    pixels = np.full((2, 7), 93, np.uint8)
    pixels[1, 0] = 94
    images = datasets.Split(pixels, 255.0, None, contrast=55.0).as_float32()
    np.testing.assert_array_equal(images[0], 0.0)
    np.testing.assert_allclose(np.linalg.norm(images[1]), 55.0, rtol=1e-6)


def test_verify(folder):
    checks = made_up().verify(folder)
    assert all(check.ok for check in checks)
    assert len(checks) in (1, 6)
    assert made_up().find(folder) is not None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_2.bin", CONTENT["data_batch_2.bin"][:-1], r"is 12,291 bytes long where 4 records of 3,073 bytes"),
        ("test_batch.bin", b"\x0a" + CONTENT["test_batch.bin"][1:], r"label 10 in record 0, where labels are 0 to 9"),
        ("test_batch.bin", b"", "is 0 bytes long"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, content, message):
    write_files(tmp_path / "data", CONTENT | {name: content})
    with pytest.raises(DataError, match=f"{name} .*{message}"):
        made_up().load(tmp_path / "data")
    assert [check.file for check in made_up().verify(tmp_path / "data") if not check.ok] == [name]


def test_a_missing_file_is_named(tmp_path):
    write_files(tmp_path / "data", {name: content for name, content in CONTENT.items() if name != "test_batch.bin"})
    with pytest.raises(DataError, match="lacks test_batch"):
        made_up().load(tmp_path / "data")


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_1", "data_batch_1"])
def test_the_pickled_version_is_refused_unread(tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"Python version of CIFAR-10, a pickle, which can run any code .* binary"):
        made_up().load(tmp_path / "data")
    # Where the binary version lies beside it, that is read.
    write_files(tmp_path / "data", CONTENT)
    assert made_up().load(tmp_path / "data").digests == DIGESTS


def test_an_archive_of_another_digest_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("an unknown archive was opened"))
    wrong = TAR[:-1] + bytes([TAR[-1] ^ 1])
    for content, message in ((wrong, "is not the archive"), (TAR[:-5], "belong"), (TAR + b"x", "is not the archive")):
        write_files(tmp_path / "data", {ARCHIVE: content})
        with pytest.raises(DataError, match=message):
            made_up().load(tmp_path / "data")


# Were an archive's digest right, what it holds would still be held to its layout, and written nowhere.
@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (packed(list(CONTENT.items())[:5]), "lacks test_batch.bin"),
        (packed([*list(CONTENT.items())[:5], ("test_batch.bin", b"short")]), "of 5 bytes where 12,292 belong"),
        (packed([("test_batch.bin", tarfile.TarInfo(f"{FOLDER}/test_batch.bin"))]), "of 0 bytes"),
        (packed([(f"../{name}", content) for name, content in CONTENT.items()]), "lacks data_batch_1.bin"),
        (gzip.compress(b"no tar"), "cannot be read"),
        (TAR[:4000], "cannot be read"),
        (b"no gzip", "cannot be read"),
    ],
    ids=["a file missing", "a short file", "no file", "outside", "no tar", "cut", "no gzip"],
)
def test_an_archive_is_held_to_its_layout(tmp_path, archive, message):
    write_files(tmp_path / "data", {ARCHIVE: archive})
    with pytest.raises(DataError, match=message):
        made_up(archive).load(tmp_path / "data")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [ARCHIVE]


def test_fetch_downloads_the_archive_and_checks_it(tmp_path, server):
    server.files = {ARCHIVE: TAR}
    entry = made_up(mirrors=[server.url])
    assert entry.fetch(tmp_path) == tmp_path / "cifar10"
    assert (tmp_path / "cifar10" / ARCHIVE).read_bytes() == TAR
    # What is there is checked, not fetched again.
    server.requests.clear()
    assert entry.fetch(tmp_path) == tmp_path / "cifar10"
    assert not server.requests


def test_a_cut_download_goes_on_and_a_wrong_one_is_refused(tmp_path, server):
    server.files = {ARCHIVE: TAR}
    server.script = [("honest", 500)]
    assert made_up(mirrors=[server.url]).load(None).digests == DIGESTS
    assert [start for _, start in server.requests] == [None, "bytes=500-"]
    server.files = {ARCHIVE: b"x" * len(TAR)}
    with pytest.raises(DataError, match="is not the archive of the binary version"):
        made_up(mirrors=[server.url]).fetch(tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.gz"))


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match=r"cifar10 was not found.*fastgan data fetch cifar10 --data-dir"):
        made_up().load(tmp_path)
    with pytest.raises(DataError, match=r"cifar10 was not found"):
        made_up().load(None, download=False)


def test_only_tfd_has_folds(monkeypatch, folder):
    from fastgan.errors import ConfigError

    monkeypatch.setitem(registry.REGISTRY, "cifar10", made_up())
    with pytest.raises(ConfigError, match="fold is 1 and cifar10 has no folds, which only tfd has; leave --fold out"):
        datasets.load("cifar10", data_dir=folder, fold=1)
