"""A skip list takes the rows out that it names, and no line of it is lost silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomae.data.manifest import Manifest, VideoRow
from videomae.data.skip_list import read_skip_list, without_skipped, write_skip_list
from videomae.errors import ManifestError


def manifest_of(root: Path, *names: str) -> Manifest:
    return Manifest(root, tuple(VideoRow(root / name, None) for name in names), ())


def test_named_rows_are_left_out(tmp_path: Path) -> None:
    train, val = (
        manifest_of(tmp_path / "t", "a b.mp4", "x/ü.mp4", "c.mp4"),
        manifest_of(tmp_path / "v", "d.mp4", "c.mp4"),
    )
    write_skip_list(tmp_path / "skip.txt", ["x/ü.mp4", "a b.mp4", "x/ü.mp4", "line\nbreak.mp4", "d.mp4"])
    assert read_skip_list(tmp_path / "skip.txt") == ("a b.mp4", "d.mp4", "x/ü.mp4")
    left = without_skipped([train, val], tmp_path / "skip.txt")
    assert [[row.path.name for row in one.rows] for one in left] == [["c.mp4"], ["c.mp4"]]
    assert without_skipped([train], None) == [train]


def test_a_line_may_name_a_video_or_one_of_its_parts(tmp_path: Path) -> None:
    parts = tuple(VideoRow(tmp_path / "a.mp4", None, start_seconds=at, end_seconds=at + 1) for at in (0.0, 1.0))
    whole = Manifest(tmp_path, (*parts, VideoRow(tmp_path / "b.mp4", None)), ())
    (tmp_path / "skip.txt").write_text("a.mp4#t=0,1\n\n", encoding="utf-8")
    assert len(without_skipped([whole], tmp_path / "skip.txt")[0].rows) == 2
    (tmp_path / "skip.txt").write_text("a.mp4\n", encoding="utf-8")
    assert len(without_skipped([whole], tmp_path / "skip.txt")[0].rows) == 1


def test_lines_that_name_nothing_and_lists_that_name_all_are_errors(tmp_path: Path) -> None:
    train = manifest_of(tmp_path, "a.mp4", "b.mp4")
    path = tmp_path / "skip.txt"
    with pytest.raises(ManifestError, match=r"cannot be read \(No such file"):
        without_skipped([train], path)
    path.write_text("a.mp4\nA.mp4\nold.mp4\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"names 2 videos not in .*, first A\.mp4"):
        without_skipped([train], path)
    path.write_text("a.mp4\nb.mp4\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="names every video"):
        without_skipped([train], path)
