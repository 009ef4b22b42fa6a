"""Lists of labelled videos: what is read, and what is refused with a line that tells the fix."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from videomae.errors import ManifestError
from videomae.probing.videos import find_videos


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    shutil.copytree(clips, tmp_path / "clips")
    return tmp_path / "clips"


def test_a_list_gives_labels_and_groups(clips: Path) -> None:
    videos = find_videos(clips)
    assert videos.manifest.classes == ("left", "right")
    assert videos.labels.tolist() == [0] * 6 + [1] * 6
    assert videos.group_ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert videos.summary() == ["videos: 12 in 6 groups, 2 classes: left 6, right 6"]


def test_folders_alone_make_each_video_a_group_and_warn(folder: Path) -> None:
    (folder / "labels.csv").unlink()
    videos = find_videos(folder)
    assert len(set(videos.group_ids.tolist())) == 12
    assert "every figure is too good: give labels.csv with a column group" in videos.summary()[1]


def test_a_split_takes_its_rows_alone(clips: Path) -> None:
    videos = find_videos(clips, split="train")
    assert len(videos.labels) == 8
    assert all(videos.manifest.relative_path(row)[-5] not in "01" for row in videos.manifest.rows)


def test_a_list_of_another_order_and_with_more_columns_means_the_same(folder: Path) -> None:
    head, *rows = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_bytes(
        ("\ufeff" + "\r\n".join([f"note,{head}", *(f"x,{row}" for row in reversed(rows))])).encode("utf-8")
    )
    assert find_videos(folder).manifest.fingerprint() == find_videos(folder).manifest.fingerprint()
    assert find_videos(folder).labels.tolist() == [0] * 6 + [1] * 6


FAULTS = {
    "no label column": ("label", "kind", "has no column label: its first line names the columns"),
    "an empty group": ("left0,test", ",test", "line 2, has no group: fill it in, or leave the row out"),
    "a missing video": ("left_0000.mp4", "gone.mp4", "names 1 missing video, first left/gone.mp4"),
    "the same video twice": ("left_0001.mp4", "left_0000.mp4", "has left/left_0000.mp4 more than once"),
    "a path out of the folder": (
        "left/left_0000.mp4",
        "../left_0000.mp4",
        "names 1 missing video, first ../left_0000.mp4",
    ),
    "one class": (",right,", ",left,", "has one class, left: a probe needs at least two"),
    "a class in one group": ("right1", "right0", "class right of"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_list_is_refused_with_the_fix(case: str, folder: Path) -> None:
    old, new, message = FAULTS[case]
    path = folder / "labels.csv"
    text = path.read_text().replace(old, new)
    path.write_text(text.replace("right2", "right0") if case == "a class in one group" else text)
    with pytest.raises(ManifestError, match=message) as error:
        find_videos(folder)
    assert "\n" not in str(error.value)


def test_an_unknown_split_names_those_there_are(clips: Path) -> None:
    with pytest.raises(ManifestError, match=r"no row with split 'val' \(there are: test, train\)"):
        find_videos(clips, split="val")


def test_a_split_without_a_list_is_refused(folder: Path) -> None:
    (folder / "labels.csv").unlink()
    with pytest.raises(ManifestError, match=r"split is 'train', but .* has no labels.csv"):
        find_videos(folder, split="train")
