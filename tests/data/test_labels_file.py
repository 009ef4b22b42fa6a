"""`labels.csv`: columns by name, with or without the mark of spreadsheets; what is none is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomae.data.labels_file import LabelsRow, read_labels_file
from videomae.errors import ManifestError

TEXT = "label,note,path,group\nrun, 1 ,a b.mp4,s1\n walk,2,ü.mp4,\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_known_columns_are_read_by_name(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "labels.csv").write_text(TEXT, encoding=encoding)
    columns, rows = read_labels_file(tmp_path / "labels.csv")
    assert columns == ("path", "label", "group")
    assert rows == [
        LabelsRow(2, {"path": "a b.mp4", "label": "run", "group": "s1"}),
        LabelsRow(3, {"path": "ü.mp4", "label": "walk", "group": ""}),
    ]


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00nonsense")
    with pytest.raises(ManifestError, match="write it as UTF-8 text with commas"):
        read_labels_file(tmp_path / "labels.csv")
