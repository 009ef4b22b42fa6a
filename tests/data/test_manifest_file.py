"""Manifest files: what is read from CSV, Parquet and lists, and what is refused with a line that tells the fix.

Nothing is decoded, so the files here need not be videos.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from videomae.data.manifest import Manifest
from videomae.data.manifest_file import LABELS_FILE, read_manifest
from videomae.data.scan import scan_labelled, scan_unlabelled
from videomae.data.splits import measured_rows
from videomae.errors import ManifestError
from videomae.probing.videos import find_videos

TEXT = "label,note,path,group\nrun, 1 ,a b.mp4,s1\n walk,2,\u00fc.mp4,s2\n"


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def written(folder: Path, text: str, name: str = "set.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def labels(manifest: Manifest) -> list[str]:
    return [manifest.classes[row.label] for row in manifest.rows if row.label is not None]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_are_read_by_name_and_others_are_carried_along(tmp_path: Path, encoding: str) -> None:
    make(tmp_path, "a b.mp4", "\u00fc.mp4")
    (tmp_path / "set.csv").write_text(TEXT, encoding=encoding)
    manifest = read_manifest(tmp_path / "set.csv", labelled=True)
    assert [row.path for row in manifest.rows] == [tmp_path / "a b.mp4", tmp_path / "\u00fc.mp4"]
    assert (manifest.classes, labels(manifest)) == (("run", "walk"), ["run", "walk"])
    assert [(row.group, row.extra) for row in manifest.rows] == [("s1", (("note", "1"),)), ("s2", (("note", "2"),))]


def test_rows_may_come_from_several_roots_and_their_order_means_nothing(tmp_path: Path) -> None:
    elsewhere = make(tmp_path / "else", "2.mp4") / "2.mp4"
    folder = make(tmp_path / "here", "b/3.mp4", "b/1.mp4")
    rows = ["b/3.mp4,x", f"{elsewhere},y", "b/1.mp4,y", "../else/2.mp4#,z"]
    make(tmp_path / "else", "2.mp4#")
    manifests = [
        read_manifest(written(folder, "\n".join(["path,label", *order])), labelled=True)
        for order in (rows, rows[::-1])
    ]
    assert manifests[0].rows == manifests[1].rows
    names = [manifests[0].relative_path(row) for row in manifests[0].rows]
    assert names == sorted(["../else/2.mp4#", elsewhere.as_posix(), "b/1.mp4", "b/3.mp4"])
    assert len(manifests[0].fingerprint()) == 64


def test_times_make_rows_of_parts_and_the_parts_have_names(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4")
    text = "path,label,start,end\na.mp4,x,0,2.5\na.mp4,y,2.5,\na.mp4,x,,\n"
    manifest = read_manifest(written(tmp_path, text), labelled=True)
    names = [manifest.relative_path(row) for row in manifest.rows]
    assert names == ["a.mp4", "a.mp4#t=0,2.5", "a.mp4#t=2.5"]
    assert [(row.start_seconds, row.end_seconds) for row in manifest.rows] == [(None, None), (0.0, 2.5), (2.5, None)]
    changed = read_manifest(written(tmp_path, text.replace("0,2.5", "0,2.4")), labelled=True)
    assert changed.fingerprint() != manifest.fingerprint()


def test_a_list_of_classes_beside_the_file_gives_their_order(tmp_path: Path) -> None:
    make(tmp_path, "1.mp4", "2.mp4")
    path = written(tmp_path, "path,label\n1.mp4,walk\n2.mp4,run\n")
    assert read_manifest(path, labelled=True).classes == ("run", "walk")
    written(tmp_path, "walk\nsit\nrun\n", "set.classes.txt")
    manifest = read_manifest(path, labelled=True)
    assert (manifest.classes, labels(manifest)) == (("walk", "sit", "run"), ["walk", "run"])
    manifest = read_manifest(written(tmp_path, "path,label\n1.mp4,0\n2.mp4,2\n"), labelled=True)
    assert labels(manifest) == ["walk", "run"], "whole numbers are class ids of the list"
    with pytest.raises(ManifestError, match="has the label fly, which is not in its list of 3 classes: add it there"):
        read_manifest(written(tmp_path, "path,label\n1.mp4,fly\n"), labelled=True)


def test_numbers_as_labels_are_in_their_own_order(tmp_path: Path) -> None:
    make(tmp_path, "1.mp4", "2.mp4", "3.mp4")
    manifest = read_manifest(written(tmp_path, "path,label\n1.mp4,10\n2.mp4,9\n3.mp4,9\n"), labelled=True)
    assert manifest.classes == ("9", "10")


def test_several_labels_are_read_and_refused_where_one_is_needed(tmp_path: Path) -> None:
    make(tmp_path, "1.mp4", "2.mp4", "3.mp4")
    path = written(tmp_path, "path,labels\n1.mp4,run; jump\n2.mp4,run\n3.mp4,\n")
    manifest = read_manifest(path, labelled=False)
    assert [(row.label, row.labels) for row in manifest.rows] == [(None, (1, 0)), (None, (1,)), (None, ())]
    with pytest.raises(ManifestError, match=r"line 2, has 2 labels, run;jump: here one is taken for each video"):
        read_manifest(path, labelled=True)
    assert [row.labels for row in read_manifest(path, labelled=True, several=True).rows] == [(1, 0), (1,), ()]
    one_each = written(tmp_path, "path,labels\n1.mp4,run\n2.mp4,jump\n")
    assert labels(read_manifest(one_each, labelled=True)) == ["run", "jump"]


def test_parquet_holds_the_same_and_the_order_of_its_classes(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    make(tmp_path, "1.mp4", "2 \u00e9.mp4")
    columns = {"path": ["2 \u00e9.mp4", "1.mp4"], "label": ["a", "b"], "start": [1.5, None], "view": [3, 4]}
    table = pyarrow.table(columns)
    path = tmp_path / "set.parquet"
    parquet.write_table(table.replace_schema_metadata({"videomae.classes": json.dumps(["b", "a"])}), path)
    manifest = read_manifest(path, labelled=True)
    assert (manifest.classes, labels(manifest)) == (("b", "a"), ["b", "a"])
    assert [row.start_seconds for row in manifest.rows] == [None, 1.5]
    assert [row.extra for row in manifest.rows] == [(("view", "4"),), (("view", "3"),)]
    several = pyarrow.table({"path": ["1.mp4"], "labels": [["a", "b"]]})
    parquet.write_table(several, path)
    assert read_manifest(path, labelled=False).rows[0].labels == (0, 1)
    with pytest.raises(ManifestError, match="row 1, has 2 labels"):
        read_manifest(path, labelled=True)
    parquet.write_table(table.replace_schema_metadata({"videomae.classes": "a,b"}), path)
    with pytest.raises(ManifestError, match=r"metadata videomae\.classes that is no JSON list of class names"):
        read_manifest(path, labelled=True)
    path.write_bytes(b"no parquet")
    with pytest.raises(ManifestError, match=r"set\.parquet cannot be read as Parquet"):
        read_manifest(path, labelled=True)


def test_parquet_without_pyarrow_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    make(tmp_path, "set.parquet")
    with pytest.raises(ManifestError, match="pyarrow is not installed: pip install pyarrow, or use CSV"):
        read_manifest(tmp_path / "set.parquet", labelled=False)


FAULTS = {
    "no column of paths": ("video,label\n1.mp4,a\n", "has no column path: its first line names the columns"),
    "no column of labels": ("path,group\n1.mp4,a\n", "has no column label: its first line names"),
    "no row": ("path,label\n", "has no row: give one for each video"),
    "both columns of labels": ("path,label,labels\n1.mp4,a,a\n", "has the columns label and labels: leave one out"),
    "no label": ("path,label\n1.mp4,\n", "line 2, has no label: fill it in, or leave the row out"),
    "no path": ("path,label\n1.mp4,a\n,b\n", "line 3, has no path: fill it in"),
    "no group": ("path,label,group\n1.mp4,a,\n", "line 2, has no group: fill it in, or leave the row out"),
    "an unknown split": ("path,label,split\n1.mp4,a,dev\n", "has the split 'dev': it is one of train, val, test"),
    "too many values": ("path,label\n1.mp4,a,b\n", "line 2, has 3 values for 2 columns: put quotes around text"),
    "a column twice": ("path,label,path\n1.mp4,a,2.mp4\n", "has the column path twice: rename one"),
    "a row twice": ("path,label\n1.mp4,a\n1.mp4,b\n", r"has 1\.mp4 more than once: leave one row for each video"),
    "a missing video": ("path,label\n9.mp4,a\n", r"names 1 missing video, first 9\.mp4: paths are relat"),
    "no time": ("path,label,start\n1.mp4,a,1:20\n", "has start '1:20' and end '': they are seconds, at least 0, or"),
    "a time below 0": ("path,label,end\n1.mp4,a,-1\n", "has start '' and end '-1': they are seconds"),
    "an end before the start": ("path,label,start,end\n1.mp4,a,3,2\n", "ends at 2 s and starts at 3 s: end is after"),
    "a class twice": ("path,label\n1.mp4,a\n", "the list of classes of .* has a more than once: leave one"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_manifest_is_refused_in_one_line_with_the_fix(case: str, tmp_path: Path) -> None:
    text, message = FAULTS[case]
    make(tmp_path, "1.mp4")
    if case == "a class twice":
        written(tmp_path, "a\nb\na\n", "set.classes.txt")
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(written(tmp_path, text), labelled=True)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_bytes(b"\xff\xfe\x00nonsense")
    with pytest.raises(ManifestError, match="write it as UTF-8 text with commas"):
        read_manifest(tmp_path / "set.csv", labelled=True)


def test_scans_take_a_manifest_file_for_a_folder_and_labels_csv_within_one(tmp_path: Path) -> None:
    folder = make(tmp_path / "set", "x/1.mp4", "x/2.mp4", "x/3.mp4")
    path = written(folder, "path,label\nx/1.mp4,b\nx/2.mp4,a\n", LABELS_FILE)
    assert labels(scan_labelled(folder)) == labels(scan_labelled(path)) == ["b", "a"]
    assert len(scan_unlabelled(folder).rows) == 3, "without labels, a folder is all of its videos"
    assert len(scan_unlabelled(path).rows) == 2
    written(folder, "path,label\nx/1.mp4,b\nx/2.mp4,b\n", LABELS_FILE)
    other = written(folder, "id,kind\n1,b\n", LABELS_FILE)
    with pytest.raises(ManifestError, match="stands for its folder: rename it if it is another list"):
        scan_labelled(folder)
    other.write_text("path,label\nx/1.mp4,b\nx/2.mp4,b\n")
    with pytest.raises(ManifestError, match="has one class, b; telling classes apart needs at least two"):
        scan_labelled(folder)
    assert scan_labelled(folder, subset=True).classes == ("b",)


def test_a_path_may_name_the_part_itself(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "b.mp4#t=1")
    manifest = read_manifest(written(tmp_path, 'path\n"a.mp4#t=1,2.5"\nb.mp4#t=1\n'), labelled=False)
    assert [(row.path.name, row.start_seconds, row.end_seconds) for row in manifest.rows] == [
        ("a.mp4", 1.0, 2.5),
        ("b.mp4#t=1", None, None),
    ]


def test_rows_of_the_split_test_may_lack_a_label(tmp_path: Path) -> None:
    make(tmp_path, "1.mp4", "2.mp4", "3.mp4", "4.mp4")
    text = "path,label,split\n1.mp4,a,train\n2.mp4,b,train\n3.mp4,b,val\n4.mp4,,test\n"
    manifest = read_manifest(written(tmp_path, text), labelled=True)
    assert [row.label for row in manifest.rows] == [0, 1, 1, None]
    assert [row.path.name for row in measured_rows(manifest).rows] == ["3.mp4"]
    with pytest.raises(ManifestError, match=r"set\.csv has test videos without a label: leave them out with"):
        find_videos(tmp_path / "set.csv")


def test_a_manifest_in_the_working_folder_is_read_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "x/1.mp4")
    written(tmp_path, "path\nx/1.mp4\n")
    monkeypatch.chdir(tmp_path)
    manifest = read_manifest(Path("set.csv"), labelled=False)
    assert [manifest.relative_path(row) for row in manifest.rows] == ["x/1.mp4"]
    assert manifest.fingerprint() == read_manifest(tmp_path / "set.csv", labelled=False).fingerprint()


def test_among_many_videos_of_a_folder_those_that_are_gone_or_links_to_nothing_are_missed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(30):
        (tmp_path / f"a/{number:02}.mp4").touch()
    (tmp_path / "a/07.mp4").unlink()
    (tmp_path / "a/09.mp4").unlink()
    (tmp_path / "a/09.mp4").symlink_to(tmp_path / "nothing")
    (tmp_path / "a/11.mp4").unlink()
    (tmp_path / "a/11.mp4").symlink_to(tmp_path / "a/12.mp4")
    file = tmp_path / "list.csv"
    file.write_text("path\n" + "".join(f"a/{number:02}.mp4\n" for number in range(30)))
    with pytest.raises(ManifestError, match=r"names 2 missing videos, first a/07\.mp4"):
        read_manifest(file, labelled=False)
    for name in ("07", "09"):
        (tmp_path / f"a/{name}.mp4").unlink(missing_ok=True)
        (tmp_path / f"a/{name}.mp4").touch()
    assert len(read_manifest(file, labelled=False).rows) == 30


@pytest.mark.parametrize("text", ["./a.mp4", "b//c.mp4", "b/./c.mp4", "a.mp4 "])
def test_a_path_written_otherwise_has_the_name_of_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a.mp4", "b/c.mp4"):
        (tmp_path / name).touch()
    file = tmp_path / "list.csv"
    file.write_text(f"path\n{text}\n")
    manifest = read_manifest(file, labelled=False)
    assert manifest.relative_path(manifest.rows[0]) == ("a.mp4" if "a" in text else "b/c.mp4")
    file.write_text(f"path\n{text}\na.mp4\nb/c.mp4\n")
    with pytest.raises(ManifestError, match="more than once"):
        read_manifest(file, labelled=False)
