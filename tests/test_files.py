import errno
import os
import stat
import sys

import pytest

from fastgan import files
from fastgan.files import write_atomically


def refuse(code):
    def refused(*_, **__):
        raise OSError(code, os.strerror(code))

    return refused


def test_the_content_is_written_and_replaced(tmp_path):
    path = tmp_path / "a.bin"
    write_atomically(path, b"one")
    assert path.read_bytes() == b"one"
    write_atomically(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_the_file_has_the_permissions_of_an_ordinary_one(tmp_path):
    mask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("function", ["open", "fsync", "replace"])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, function):
    path = tmp_path / "a"
    write_atomically(path, b"old")
    monkeypatch.setattr(files.os, function, refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new", previous=tmp_path / "b")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_signal_between_any_two_steps_leaves_one_whole_file_and_nothing_else(tmp_path):
    path, number, ends = tmp_path / "a", 0, set()
    while "written" not in ends:
        write_atomically(path, b"old")
        number, left = number + 1, [number + 1]

        def watched(frame, event, _, left=left):
            if frame.f_code.co_filename != files.__file__:
                return None
            frame.f_trace_opcodes = True
            left[0] -= event == "opcode"
            if event == "opcode" and left[0] == 0:
                raise KeyboardInterrupt
            return watched

        usual = sys.gettrace()
        sys.settrace(watched)
        try:
            write_atomically(path, b"new")
            ends.add("written")
        except KeyboardInterrupt:
            ends.add(path.read_bytes())
        finally:
            sys.settrace(usual)
        assert [file.name for file in tmp_path.iterdir()] == ["a"], number
    assert number > 50
    assert ends == {b"old", b"new", "written"}


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    real = {name: getattr(os, name) for name in ("fsync", "link", "replace")}
    for name in real:
        monkeypatch.setattr(files.os, name, lambda *a, name=name: (order.append(name), real[name](*a))[1])
    write_atomically(tmp_path / "a", b"1", previous=tmp_path / "b")
    write_atomically(tmp_path / "a", b"2", previous=tmp_path / "b")
    # The last one is the folder's.
    assert order == ["fsync", "replace", "fsync", "fsync", "link", "replace", "replace", "fsync"]


def test_the_old_file_is_kept_under_the_previous_name(tmp_path):
    path, previous = tmp_path / "a", tmp_path / "b"
    for content in (b"1", b"2", b"3"):
        write_atomically(path, content, previous=previous)
    assert (path.read_bytes(), previous.read_bytes()) == (b"3", b"2")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def test_the_old_file_is_kept_where_there_are_no_hard_links(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "link", refuse(errno.EPERM))
    for content in (b"1", b"2", b"3"):
        write_atomically(tmp_path / "a", content, previous=tmp_path / "b")
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"3", b"2")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def test_a_folder_that_cannot_be_synced_is_no_failure_and_a_broken_disk_is(tmp_path, monkeypatch):
    real = os.fsync

    def of_files_only(code):
        def fsync(descriptor):
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(code, os.strerror(code))
            real(descriptor)

        return fsync

    monkeypatch.setattr(files.os, "fsync", of_files_only(errno.EINVAL))
    write_atomically(tmp_path / "a", b"1")
    monkeypatch.setattr(files.os, "fsync", of_files_only(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(tmp_path / "a", b"2")


def test_a_folder_that_is_not_there_is_the_systems_to_name(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "no" / "a", b"")


def test_a_name_that_a_crash_left_between_the_two_renames_is_not_left_for_ever(tmp_path):
    # Then both names are one file, and renaming one name of a file to another of the same file does nothing.
    path, previous = tmp_path / "a", tmp_path / "previous"
    path.write_bytes(b"one")
    os.link(path, previous)
    write_atomically(path, b"two", previous=previous)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "previous"]
    assert (path.read_bytes(), previous.read_bytes()) == (b"two", b"one")


def test_what_cut_off_writes_left_is_removed(tmp_path):
    (tmp_path / ".a.h5.x1y2.tmp").touch()
    (tmp_path / "b.tmp").touch()
    files.remove_temporaries(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["b.tmp"]


def test_an_open_file_is_locked_until_it_is_closed(tmp_path):
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        assert files.try_lock(first)
        assert not files.try_lock(second)
        os.close(first)
        assert files.try_lock(second)
    finally:
        os.close(second)
