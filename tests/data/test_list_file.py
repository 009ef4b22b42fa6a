"""Lists without a first line of names: paths with spaces, class ids, numbers of frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomae.data.list_file import ListLine, is_list, parse_list
from videomae.data.manifest_file import read_manifest


def parsed(*lines: str) -> list[tuple[str, str, str]]:
    return [(row.path, row.label, row.num_frames) for row in parse_list(lines)]


def test_the_label_is_the_last_field_so_that_a_path_may_have_spaces() -> None:
    assert parsed("my videos/v 0.mp4 3", "", "b.mp4\t12") == [("my videos/v 0.mp4", "3", ""), ("b.mp4", "12", "")]
    assert parse_list(["", "a.mp4 1"]) == [ListLine(2, "a.mp4", "1", "")]


def test_lines_of_two_numbers_are_a_length_and_a_label_or_a_start_and_a_length() -> None:
    assert parsed("f/a 120 3", "f/b 90 3") == [("f/a", "3", "120"), ("f/b", "3", "90")]
    assert parsed("f/a 1 120", "f/b 1 90", "v.mp4 1 -1") == [("f/a", "", "120"), ("f/b", "", "90"), ("v.mp4", "", "")]
    assert parsed("a.mp4 0 -1") == [("a.mp4", "", "")]


def test_lines_without_numbers_are_videos_without_labels() -> None:
    assert parsed("a 1.mp4", "b.mp4") == [("a 1.mp4", "", ""), ("b.mp4", "", "")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a b.mp4 3", True),
        ("frames/x 120 3", True),
        ("a.mp4", True),
        ("a, b.mp4 3", True),
        ("id,class 1", False),
        ("path,label", False),
        ("video_id,filepath,label", False),
        ("path", False),
        ("", False),
    ],
)
def test_a_list_is_told_from_a_table_by_its_first_line(line: str, expected: bool) -> None:
    assert is_list(line) is expected


def test_a_list_is_read_where_a_manifest_is(tmp_path: Path) -> None:
    for name in ("v 0.mp4", "v 1.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "train.csv").write_text(f"v 0.mp4 1\n{tmp_path}/v 1.mp4 0\n")
    manifest = read_manifest(tmp_path / "train.csv", labelled=True)
    assert {row.path.name: row.label for row in manifest.rows} == {"v 0.mp4": 1, "v 1.mp4": 0}
    assert manifest.classes == ("0", "1")
