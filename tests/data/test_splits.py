"""The parts of a data set: named splits, and a validation part that never separates a group."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from videomae.data.manifest import Manifest, VideoRow
from videomae.data.scan import scan_labelled
from videomae.data.splits import (
    check_apart,
    measured_rows,
    not_used_lines,
    rows_of_split,
    split_manifest,
    train_and_val,
    training_rows,
)
from videomae.errors import ManifestError


def grouped(*, groups: int, of_each: int = 3, classes: int = 2) -> Manifest:
    rows = [
        VideoRow(Path("root", f"{group:03d}_{number}.mp4"), group % classes, group=f"g{group}")
        for group in range(groups)
        for number in range(of_each)
    ]
    return Manifest(Path("root"), tuple(rows), tuple("abcdefgh"[:classes]))


def with_splits(*splits: str | None) -> Manifest:
    rows = [
        VideoRow(Path("root", f"{number}.mp4"), number % 2, split=split, group=f"g{number}")
        for number, split in enumerate(splits)
    ]
    return Manifest(Path("root"), tuple(rows), ("a", "b"))


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_a_split_never_separates_a_group_and_has_every_class_on_both_sides(fraction: float) -> None:
    for groups in (4, 5, 9, 40):
        manifest = grouped(groups=groups)
        train, val = split_manifest(manifest, val_fraction=fraction)
        assert not {row.group for row in train.rows} & {row.group for row in val.rows}
        assert {row.label for row in train.rows} == {row.label for row in val.rows} == {0, 1}
        assert sorted((*train.rows, *val.rows), key=lambda row: row.path) == list(manifest.rows)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_the_fraction_of_videos_is_met_as_nearly_as_groups_allow(fraction: float) -> None:
    sizes = [1, 9, 2, 4, 12, 3, 1, 7, 5, 2, 6, 8]
    rows = [
        VideoRow(Path("root", f"{group}_{number}.mp4"), label, group=f"g{label}_{group}")
        for label in range(2)
        for group, size in enumerate(sizes)
        for number in range(size)
    ]
    _, val = split_manifest(Manifest(Path("root"), tuple(rows), ("a", "b")), val_fraction=fraction)
    for label in range(2):
        count = sum(row.label == label for row in val.rows)
        assert abs(count - fraction * sum(sizes)) <= 1


def test_other_groups_are_chosen_by_their_names_not_by_their_order() -> None:
    manifest = grouped(groups=20)
    _, val = split_manifest(manifest, val_fraction=0.2)
    _, again = split_manifest(manifest.with_rows(manifest.rows[::-1]), val_fraction=0.2)
    assert set(val.rows) == set(again.rows)
    assert len(val.rows) == 12


def test_groups_of_several_classes_stay_whole() -> None:
    rows = [
        VideoRow(Path("root", f"{group}_{label}.mp4"), label, group=f"g{group}")
        for group in range(6)
        for label in range(3)
    ]
    for fraction in (0.05, 0.9):
        train, val = split_manifest(Manifest(Path("root"), tuple(rows), ("a", "b", "c")), val_fraction=fraction)
        assert not {row.group for row in train.rows} & {row.group for row in val.rows}
        assert {row.label for row in train.rows} == {row.label for row in val.rows} == {0, 1, 2}


def test_parts_of_one_video_stay_together_without_groups() -> None:
    rows = [
        VideoRow(Path("root", f"{video}.mp4"), part % 2, start_seconds=float(part), end_seconds=part + 1.0)
        for video in range(8)
        for part in range(4)
    ]
    train, val = split_manifest(Manifest(Path("root"), tuple(rows), ("a", "b")), val_fraction=0.3)
    assert val.rows
    assert not {row.path for row in train.rows} & {row.path for row in val.rows}


def test_one_group_for_each_class_leaves_nothing_to_validate_on() -> None:
    with pytest.raises(ManifestError, match="root has no class with two groups, so none is left for validation"):
        split_manifest(grouped(groups=2), val_fraction=0.5)


def test_named_splits_are_used_and_the_rest_is_told() -> None:
    manifest = with_splits("train", "train", "val", "test", "train", "train")
    train, val = train_and_val(manifest, val_fraction=0.2)
    assert ({row.split for row in train.rows}, [row.split for row in val.rows]) == ({"train"}, ["val"])
    assert not_used_lines(manifest, train, val) == ["videos: 5 of the 6 in root; the others are of another split"]
    assert not_used_lines(manifest, manifest) == []


def test_without_a_split_val_the_training_rows_are_divided() -> None:
    manifest = with_splits(*["train"] * 10, "test", "test")
    train, val = train_and_val(manifest, val_fraction=0.3)
    assert {row.split for row in (*train.rows, *val.rows)} == {"train"}
    assert len(train.rows) + len(val.rows) == 10
    assert val.rows


def test_groups_that_are_in_two_splits_are_refused() -> None:
    rows = [VideoRow(Path("root", f"{n}.mp4"), 0, split=split, group="g") for n, split in enumerate(("train", "val"))]
    manifest = Manifest(Path("root"), tuple(rows), ("a",))
    with pytest.raises(ManifestError, match=r"group g of root is in the training and in the validation videos"):
        train_and_val(manifest, val_fraction=0.2)
    check_apart(manifest.with_rows(rows[:1]), manifest.with_rows([]))


def test_what_is_measured_is_the_test_split_else_val_else_all() -> None:
    assert [row.split for row in measured_rows(with_splits("train", "val", "test")).rows] == ["test"]
    assert [row.split for row in measured_rows(with_splits("train", "val", "test"), first="val").rows] == ["val"]
    assert [row.split for row in measured_rows(with_splits("train", "val")).rows] == ["val"]
    assert len(measured_rows(with_splits(None, None)).rows) == 2
    with pytest.raises(ManifestError, match="has only labels of the split train: add rows of test or val"):
        measured_rows(with_splits("train", "train"))


def test_an_absent_split_names_those_there_are() -> None:
    with pytest.raises(ManifestError, match=r"has no row with split 'val' \(there are: test, train\)"):
        rows_of_split(with_splits("train", "test"), "val")
    assert len(rows_of_split(with_splits("train", "test"), "all").rows) == 2
    with pytest.raises(ManifestError, match=r"no row with split 'train' \(there are: test\)"):
        training_rows(with_splits("test", "test"))


def test_without_groups_a_line_tells_that_recordings_may_leak_and_with_groups_none_does() -> None:
    rows = [VideoRow(Path("root", f"{number}.mp4"), 0) for number in range(9)]
    with pytest.warns(
        UserWarning, match="clips of one recording may be in training and in validation, which"
    ) as told:
        train_and_val(Manifest(Path("root"), tuple(rows), ("a",)), val_fraction=0.3)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_and_val(grouped(groups=8), val_fraction=0.3)
        train_and_val(with_splits("train", "val"), val_fraction=0.3)


def test_real_data_sets_are_divided_by_their_groups_and_their_test_rows_are_kept(shared_folder: Path) -> None:
    for name in ("fight", "drone_infrared"):
        whole = scan_labelled(shared_folder / "datasets" / name)
        train, val = train_and_val(whole, val_fraction=0.2)
        assert not {row.group for row in train.rows} & {row.group for row in val.rows}
        assert {row.label for row in val.rows} == set(range(len(whole.classes)))
        assert {row.split for row in (*train.rows, *val.rows)} == {"train"}
        assert 0.15 < len(val.rows) / (len(train.rows) + len(val.rows)) < 0.25
        assert {row.split for row in measured_rows(whole).rows} == {"test"}
