"""Addresses and places in archives as paths."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from videomae.errors import ConfigError
from videomae.video.addresses import RemotePath, address_of, is_remote, member_name, split_member, video_path
from videomae.video.opening import part_name, split_part


@pytest.mark.parametrize(
    "address", ["s3://b/c d/ü.mp4", "gs://b", "https://h:81/a.mp4?x=1&y=2", "s3://b/a.mp4#t=1,2"]
)
def test_an_address_survives_being_a_path(address: str) -> None:
    path = video_path(address)
    assert str(path) == address
    assert video_path(Path(address)) == path  # a plain path has lost a slash
    assert str(video_path(Path(address))) == address_of(Path(address)) == address
    assert is_remote(path)
    assert is_remote(Path(address))
    assert str(pickle.loads(pickle.dumps(path))) == address
    assert not path.exists()
    assert str(path.resolve()) == str(path.absolute()) == str(path.expanduser()) == address


def test_addresses_are_joined_and_taken_apart() -> None:
    folder = video_path("s3://bucket/train/")
    assert str(folder / "left" / "a.mp4") == "s3://bucket/train/left/a.mp4"
    assert str((folder / "a.mp4").parent) == str(folder) == "s3://bucket/train"
    assert (folder / "a.mp4").suffix == ".mp4"
    assert isinstance(folder / "a.mp4", RemotePath)
    part = part_name(folder / "a.mp4", 1.0, 2.5)
    assert str(part) == "s3://bucket/train/a.mp4#t=1,2.5"
    found = split_part(part)
    assert (str(found.path), found.start_seconds, found.end_seconds) == ("s3://bucket/train/a.mp4", 1.0, 2.5)


def test_what_is_on_a_disk_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:" / "b").mkdir(parents=True)
    for name in (
        "a.mp4",
        "/a/b.mp4",
        "C:/a.mp4",
        "procedural:",
        "procedural:7",
        "s3:/b",
        "s3://b",
        "file:///a b.mp4",
    ):
        assert not is_remote(name)
    assert video_path("file:///a%20b.mp4") == Path("/a b.mp4")


def test_an_address_that_no_path_can_hold_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"s3://b/a//c\.mp4 has an empty part, // or /\./, which is not read: rename"
    ):
        video_path("s3://b/a//c.mp4")


def test_a_place_in_an_archive_is_a_name(tmp_path: Path) -> None:
    for archive in (tmp_path / "s.tar", video_path("s3://b/s.tar")):
        name = member_name(archive, 512, 100, "./deep/a.mp4")
        assert str(name) == f"{archive}#bytes=512-611/deep/a.mp4"
        assert split_member(name) == (archive, 512, 611)
        assert split_member(str(name)) == (archive, 512, 611)
    (tmp_path / "x#bytes=1-2").write_bytes(b"")
    assert split_member(tmp_path / "x#bytes=1-2") is None
    assert split_member("s.tar#bytes=9-2/a.mp4") is None
