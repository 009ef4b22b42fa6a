import os
import stat

import pytest

from videomae.atomic import atomic_file, partial_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_has_its_name_only_when_complete(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with atomic_file(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["a.txt", partial_path(path).name]
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    def fail_half_way():
        with atomic_file(path) as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def test_failure_to_rename_leaves_no_partial_file(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError), atomic_file(tmp_path / "a.txt") as stream:
        stream.write(b"x")
    assert names(tmp_path) == ["a.txt"]


def test_content_is_synchronised_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    if os.name != "posix":
        pytest.skip("folders are synchronised on POSIX systems only")
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        mode = os.fstat(descriptor).st_mode
        calls.append("folder" if stat.S_ISDIR(mode) else f"file of {os.fstat(descriptor).st_size} bytes")
        real_fsync(descriptor)

    def replace(source, target):
        calls.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with atomic_file(tmp_path / "a.txt") as stream:
        stream.write(b"x" * 1000)
    assert calls == ["file of 1000 bytes", "rename", "folder"]
