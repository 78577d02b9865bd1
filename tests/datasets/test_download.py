import gzip
import io
import logging
import os
import signal
import socket
import time

import numpy as np
import pytest

from fastgan import datasets
from fastgan.datasets import download, registry
from fastgan.errors import ConfigError, DataError
from tests.datasets.made_up import ARRAYS, CONTENT, GZ, TRAIN_IMAGES, TRAIN_LABELS, Server, made_up, write_files

FIRST = f"{TRAIN_IMAGES}.gz"
BODY = GZ[FIRST]


@pytest.fixture
def mnist(monkeypatch, server):
    """The made-up data set, registered as "mnist", with the test's server as its only mirror."""
    entry = made_up([server.url])
    monkeypatch.setitem(registry.REGISTRY, "mnist", entry)
    return entry


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "mnist"


def fetch(folder, **options):
    return datasets.fetch("mnist", data_dir=folder.parent, **options)


def assert_fetched(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(GZ)
    assert all(check.ok for check in datasets.verify("mnist", data_dir=folder))


def asked_for(server, file=FIRST):
    """The Range headers of the requests for ``file``."""
    return [asked for name, asked in server.requests if name == file]


# What goes well


def test_fetch_downloads_each_file_once(mnist, server, folder):
    assert fetch(folder) == folder
    assert_fetched(folder)
    assert server.requests == [(name, None) for name in GZ]
    assert {name: (folder / name).read_bytes() for name in GZ} == GZ
    # Again: all is there.
    assert fetch(folder) == folder
    assert len(server.requests) == 4


def test_load_downloads_into_the_cache_folder(mnist, server, tmp_path):
    loaded = datasets.load("mnist")
    assert loaded.source == str(tmp_path / "cache" / "fastgan" / "mnist")
    np.testing.assert_array_equal(loaded.splits["test"].pixels, ARRAYS["t10k-images-idx3-ubyte"].reshape(20, 20))
    datasets.load("mnist", download=False)
    assert len(server.requests) == 4


def test_load_completes_the_cache_folder(mnist, server, tmp_path):
    write_files(tmp_path / "cache" / "fastgan" / "mnist", {TRAIN_IMAGES: CONTENT[TRAIN_IMAGES]})
    datasets.load("mnist")
    assert [name for name, _ in server.requests] == [name for name in GZ if name != FIRST]


def test_load_never_downloads_into_an_explicit_folder(mnist, server, folder):
    with pytest.raises(DataError, match="was not found"):
        datasets.load("mnist", data_dir=folder.parent)
    assert server.requests == []


def test_fetch_puts_files_beside_those_that_are_there(mnist, server, tmp_path):
    write_files(tmp_path / "elsewhere", {TRAIN_IMAGES: CONTENT[TRAIN_IMAGES]})
    assert datasets.fetch("mnist", data_dir=tmp_path / "elsewhere") == tmp_path / "elsewhere"
    assert FIRST not in [name for name, _ in server.requests]
    assert datasets.find("mnist", tmp_path / "elsewhere") == tmp_path / "elsewhere"


def test_the_same_content_compressed_differently_is_right(mnist, server, folder):
    server.files = {f"{name}.gz": gzip.compress(content, 0, mtime=1) for name, content in CONTENT.items()}
    assert server.files != GZ
    fetch(folder)
    assert_fetched(folder)


def test_progress_counts_to_the_end(mnist, server, folder):
    seen = []
    fetch(folder, progress=lambda *report: seen.append(report))
    first = [report for report in seen if report[0] == FIRST]
    assert first[0] == (FIRST, 0, len(BODY))
    assert first[-1] == (FIRST, len(BODY), len(BODY))


def test_a_mirror_of_the_users_is_the_only_one_asked(mnist, server, folder):
    other = Server()
    try:
        fetch(folder, mirror=f"{other.url}some/folder")
        assert [name for name, _ in other.requests] == [f"some/folder/{name}" for name in GZ]
    finally:
        other.close()
    assert_fetched(folder)
    assert server.requests == []


def test_a_redirect_is_followed(mnist, server, folder):
    server.script = [("redirect", f"{server.url}moved/{FIRST}")]
    fetch(folder)
    assert_fetched(folder)
    assert server.requests[1] == (f"moved/{FIRST}", None)


def test_the_body_of_a_redirect_is_not_read(mnist, server, folder):
    server.script = [("endless", 302, f"/{FIRST}")]
    fetch(folder)
    assert_fetched(folder)


# Cut and resumed


@pytest.mark.parametrize("num_bytes", [1, 100, len(BODY) - 1])
def test_a_cut_connection_is_resumed(mnist, server, folder, num_bytes):
    server.script = [("honest", num_bytes)]
    fetch(folder)
    assert_fetched(folder)
    assert asked_for(server) == [None, f"bytes={num_bytes}-"]


def test_a_connection_that_is_always_cut_leaves_a_part_for_the_next_try(mnist, server, folder):
    server.script = [("honest", 100)] * download.NUM_TRIES
    with pytest.raises(
        DataError, match=r"it ended after 500 of .*, 5 times\); 500 bytes are kept in .*\.part for the next"
    ):
        fetch(folder)
    assert [path.name for path in folder.iterdir()] == [f"{FIRST}.part"]
    fetch(folder)
    assert_fetched(folder)
    assert asked_for(server)[-1] == "bytes=500-"


def test_a_server_that_ignores_ranges_sends_everything_again(mnist, server, folder):
    server.script = [("honest", 100), "no_ranges"]
    fetch(folder)
    assert_fetched(folder)
    assert asked_for(server) == [None, "bytes=100-"]


def test_nothing_of_a_longer_part_stays_behind_what_a_server_sends_again(mnist, server, folder):
    write_files(folder, {f"{FIRST}.part": b"x" * 5000})
    server.script = ["no_ranges"]
    fetch(folder)
    assert_fetched(folder)
    assert asked_for(server) == ["bytes=5000-"]


def test_a_part_that_ends_too_early_beyond_the_end_of_the_servers_file(mnist, server, folder):
    # A long name in its header makes the same content a longer file.
    packed = io.BytesIO()
    with gzip.GzipFile("x" * 500, "wb", fileobj=packed) as file:
        file.write(CONTENT[TRAIN_IMAGES])
    write_files(folder, {f"{FIRST}.part": packed.getvalue()[:-20]})
    fetch(folder)
    assert_fetched(folder)
    assert asked_for(server) == [f"bytes={len(packed.getvalue()) - 20}-", None]


def test_a_whole_part_needs_no_more_bytes(mnist, server, folder):
    write_files(folder, {f"{FIRST}.part": BODY})
    fetch(folder)
    assert_fetched(folder)
    assert asked_for(server) == [f"bytes={len(BODY)}-"]


@pytest.mark.parametrize(
    "part",
    [
        b"\x1f\x8b garbage that begins like a gzip file",
        BODY[:60] + bytes(30),
        BODY + b"more",
        bytes(200_000),
        b"\x1f\x8b",
    ],
)
def test_a_damaged_part_is_thrown_away_and_said_so(mnist, server, folder, part, caplog):
    write_files(folder, {f"{FIRST}.part": part})
    fetch(folder)
    assert_fetched(folder)
    if part != b"\x1f\x8b":
        assert any("has been removed" in record.message for record in caplog.records)
        assert asked_for(server)[-1] is None


def test_a_server_that_sends_another_range_is_not_believed(mnist, server, folder):
    write_files(folder, {f"{FIRST}.part": BODY[:100]})
    server.script = ["other_range"]
    with pytest.raises(DataError, match="was asked for the bytes from 100 on and sent others"):
        fetch(folder)
    assert (folder / f"{FIRST}.part").read_bytes() == BODY[:100]


def test_an_interrupt_keeps_the_part(mnist, server, folder):
    def interrupt(file, num_done, num_bytes):
        if num_done:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fetch(folder, progress=interrupt)
    assert [path.name for path in folder.iterdir()] == [f"{FIRST}.part"]
    fetch(folder)
    assert_fetched(folder)


# Lies about lengths


def test_a_length_that_is_too_long(mnist, server, folder):
    server.script = [("honest", None, len(BODY) + 1000)]
    fetch(folder)
    assert_fetched(folder)
    assert asked_for(server) == [None]


def test_a_length_that_is_too_short(mnist, server, folder):
    server.script = [("honest", None, 100)]
    fetch(folder)
    assert_fetched(folder)
    assert asked_for(server) == [None, "bytes=100-"]


@pytest.mark.parametrize("length", ["nonsense", "9" * 5000, "none"])
def test_a_length_that_is_none(mnist, server, folder, length):
    server.script = [("honest", None, length)]
    seen = []
    fetch(folder, progress=lambda *report: seen.append(report))
    assert_fetched(folder)
    assert seen[0] == (FIRST, 0, None)


def test_a_file_told_to_be_too_long_is_not_begun(mnist, server, folder):
    server.script = [("honest", None, 10**12)]
    with pytest.raises(DataError, match="its file has 1,000,000,000,000 bytes, more than the 66,753 that"):
        fetch(folder)
    assert list(folder.iterdir()) == []


def test_a_file_without_an_end_is_cut(mnist, server, folder):
    server.script = ["endless"]
    with pytest.raises(DataError, match="it sent more than the 66,753 bytes that the right file can have"):
        fetch(folder)
    assert list(folder.iterdir()) == []


# Wrong content, and no content


def test_a_wrong_digest_is_refused_and_nothing_is_left(mnist, server, folder, caplog):
    wrong = bytearray(CONTENT[TRAIN_IMAGES])
    wrong[500] ^= 1
    server.files[FIRST] = gzip.compress(bytes(wrong))
    message = (
        rf"what came of it, and has been removed, has the wrong content: .* {mnist.train_images.sha256} is expected"
    )
    with pytest.raises(DataError, match=message):
        fetch(folder)
    assert list(folder.iterdir()) == []
    assert len(server.requests) == 1
    assert "has been removed" in caplog.text


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (["page"], "starts with the number 1013478509 where 2051 stands"),
        ([("status", 404)], rf"{FIRST}: HTTP 404 Not Found\)"),
        ([("status", 500)], "HTTP 500 Internal Server Error"),
        ([("status", 416)], "HTTP 416"),
        (["loop"] * 20, r"its redirects lead nowhere \(HTTP 302\)"),
        ([("redirect", "file:///etc/passwd")], "its redirects lead nowhere"),
        ([("redirect", "ftp://127.0.0.1/x")], "unknown url type"),
        ([("honest", 0)] * 5, "it ended after 0 of"),
    ],
)
def test_a_server_without_the_file(mnist, server, folder, script, message):
    server.script = script
    with pytest.raises(DataError, match=message) as caught:
        fetch(folder)
    assert "--mirror" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []
    assert len(server.requests) <= 7


def test_a_file_that_the_server_itself_has_cut(mnist, server, folder):
    server.files[FIRST] = BODY[:-10]
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch(folder)
    assert len(server.requests) == download.NUM_TRIES
    assert FIRST not in [path.name for path in folder.iterdir()]


def test_no_server(monkeypatch, folder):
    server = Server()
    server.close()
    monkeypatch.setitem(registry.REGISTRY, "mnist", made_up([server.url]))
    with pytest.raises(
        DataError, match=rf"{folder}/{FIRST} could not be downloaded .*Connection refused.*check the network"
    ):
        fetch(folder)
    assert list(folder.iterdir()) == []


def test_a_server_that_falls_silent(mnist, server, folder, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        before = time.monotonic()
        with pytest.raises(DataError, match="timed out"):
            fetch(folder, mirror=mirror)
        assert time.monotonic() - before < 2


@pytest.mark.parametrize("behaviour", [("status", 404), "page", ("honest", 100)])
def test_the_next_mirror_is_tried(monkeypatch, server, folder, behaviour, caplog):
    bad = Server()
    bad.script = [behaviour] * 100
    monkeypatch.setitem(registry.REGISTRY, "mnist", made_up([bad.url, server.url]))
    try:
        fetch(folder)
    finally:
        bad.close()
    assert_fetched(folder)
    assert any("trying the next server" in record.message for record in caplog.records)
    assert all(record.levelno == logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("mirror", ["ftp://127.0.0.1/", "file:///etc/", "127.0.0.1", "", "http://", "http://[::1/"])
def test_a_mirror_that_is_no_address(mnist, folder, mirror):
    with pytest.raises(ConfigError, match=r"the mirror .* is no .*address"):
        fetch(folder, mirror=mirror)
    assert not folder.exists()


# The folder


def test_a_wrong_file_that_is_there_is_left_and_said(mnist, server, folder):
    write_files(folder, {TRAIN_LABELS: CONTENT[TRAIN_LABELS][:-1] + b"\xff"})
    with pytest.raises(DataError, match=f"{TRAIN_LABELS} has the wrong content"):
        fetch(folder)
    assert (folder / TRAIN_LABELS).read_bytes() == CONTENT[TRAIN_LABELS][:-1] + b"\xff"


def test_a_destination_below_a_file(mnist, server, folder):
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("a file")
    with pytest.raises(DataError, match=rf"{folder}/{FIRST}.part cannot be written .*; make room or give rights there"):
        fetch(folder)
    folder.unlink()
    folder.parent.rmdir()
    folder.parent.write_text("a file")
    with pytest.raises(DataError, match=rf"{folder.parent} is a file where a folder is asked for"):
        fetch(folder)
    assert server.requests == []


def test_a_write_protected_destination(mnist, server, folder):
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(DataError, match="cannot be written"):
        fetch(folder)
    assert server.requests == []


def test_a_destination_that_is_full(mnist, server, folder):
    resource = pytest.importorskip("resource")
    # A limit on the size of any file fails a write just as a full disk does, and truly.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(DataError, match=r"\.part cannot be written \(File too large\); make room"):
            fetch(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(folder.iterdir()) == []


def test_two_processes_do_not_write_one_part(mnist, server, folder):
    fcntl = pytest.importorskip("fcntl")
    write_files(folder, {f"{FIRST}.part": BODY[:100]})
    with open(folder / f"{FIRST}.part", "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="is being downloaded by another process; wait until it is done"):
            fetch(folder)
    assert server.requests == []
    assert (folder / f"{FIRST}.part").read_bytes() == BODY[:100]
    fetch(folder)
    assert_fetched(folder)


def test_where_files_cannot_be_locked_they_can_be_fetched(mnist, folder, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    fetch(folder)
    assert_fetched(folder)
