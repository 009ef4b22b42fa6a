"""Which videos are held out: a function of seed and names, groups whole, labels where there are some."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videomae.data.manifest import Manifest, VideoRow
from videomae.data.procedural import ProceduralVideos
from videomae.data.scan import scan_unlabelled
from videomae.monitor.configs import MonitorConfig
from videomae.monitor.held_out import FIRST_PROCEDURAL, MAX_SEEN, centre_clips, hold_out
from videomae.video.encoded import EncodedFile
from videomae.video.index_store import IndexStore
from videomae.video.sampling import ClipConfig


def manifest(names: list[str], root: Path = Path("/videos")) -> Manifest:
    return Manifest(root, tuple(VideoRow(root / name, None) for name in sorted(names)), ())


def names_of(rows: tuple[VideoRow, ...]) -> list[str]:
    return [row.path.name for row in rows]


PLAIN = [f"{number:04}.mp4" for number in range(200)]


def test_a_twentieth_is_held_out_and_not_trained_on() -> None:
    videos = hold_out(manifest(PLAIN), MonitorConfig(), seed=0)
    assert videos.unseen
    assert len(videos.measured) == 10
    assert sorted([*names_of(videos.measured), *names_of(videos.train.rows)]) == PLAIN


def test_the_choice_is_a_function_of_the_seed() -> None:
    chosen = [names_of(hold_out(manifest(PLAIN), MonitorConfig(), seed=seed).measured) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_at_most_so_many_are_held_out() -> None:
    assert len(hold_out(manifest(PLAIN), MonitorConfig(max_clips=6), seed=0).measured) == 6


def test_without_the_monitor_all_videos_are_trained_on() -> None:
    whole = manifest(PLAIN)
    videos = hold_out(whole, MonitorConfig(enabled=False), seed=0)
    assert videos.train is whole
    assert videos.measured == ()


@pytest.mark.parametrize("count", [1, 6, 60])
def test_of_few_videos_none_is_held_out_and_some_are_measured(count: int) -> None:
    whole = manifest(PLAIN[:count])
    videos = hold_out(whole, MonitorConfig(), seed=0)
    assert not videos.unseen
    assert videos.train.rows == whole.rows
    assert len(videos.measured) == min(count, MAX_SEEN)


def test_names_that_differ_in_their_last_number_stay_together() -> None:
    names = [f"v_Archery_g{group:02}_c{clip:02}.avi" for group in range(40) for clip in range(5)]
    videos = hold_out(manifest(names), MonitorConfig(), seed=3)
    groups = {name[:13] for name in names_of(videos.measured)}
    assert len(groups) == 2
    assert not groups & {name[:13] for name in names_of(videos.train.rows)}


def test_numbered_names_of_a_whole_folder_are_no_group() -> None:
    videos = hold_out(manifest([f"clip_{number:03}.mp4" for number in range(200)]), MonitorConfig(), seed=0)
    assert len(videos.measured) == 10


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # spreadsheets write the second
def test_groups_and_labels_of_the_table_count(tmp_path: Path, encoding: str) -> None:
    names = [f"{chr(97 + number % 26)}{number}x.mp4" for number in range(100)]
    rows = [f"{name},{'ab'[number % 2]},{number // 5}" for number, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,group", *rows]), encoding=encoding)
    videos = hold_out(manifest(names, tmp_path), MonitorConfig(), seed=0)
    assert len(videos.measured) == 5
    assert len({names.index(row.path.name) // 5 for row in videos.measured}) == 1
    assert all(row.label == names.index(row.path.name) % 2 for row in videos.measured)


def test_folders_are_classes_unless_they_are_parts_of_a_split() -> None:
    names = [f"{number:03}x.mp4" for number in range(50)]
    classes = [f"{folder}/{name}" for folder in ("run", "walk") for name in names]
    splits = [f"{folder}/{name}" for folder in ("train", "val") for name in names]
    labelled = hold_out(manifest(classes), MonitorConfig(), seed=0).measured
    assert {row.label for row in labelled} == {0, 1}
    assert all(row.label == int("walk" in str(row.path)) for row in labelled)
    assert {row.label for row in hold_out(manifest(splits), MonitorConfig(), seed=0).measured} == {None}


def test_procedural_clips_are_measured_that_are_not_trained_on() -> None:
    whole = scan_unlabelled("procedural:5")
    videos = hold_out(whole, MonitorConfig(max_clips=6), seed=0)
    assert videos.unseen
    assert videos.train is whole
    clips, kept = centre_clips(videos.measured, ClipConfig(num_frames=4), size=16)
    drawn = ProceduralVideos(5, num_frames=4, size=16)
    assert torch.equal(clips, drawn.clips(FIRST_PROCEDURAL + torch.arange(6)))
    assert kept == list(videos.measured)
    assert torch.equal(
        centre_clips(whole.rows[7:8], ClipConfig(num_frames=4), size=16)[0], drawn.clips(torch.tensor([7]))
    )


def test_a_table_that_is_no_table_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00nonsense")
    assert hold_out(manifest(PLAIN, tmp_path), MonitorConfig(), seed=0).unseen


def test_clips_of_videos_that_can_be_read_come_with_their_rows(labelled_folder: Path, tmp_path: Path) -> None:
    rows = scan_unlabelled(labelled_folder).rows[:2]
    broken = VideoRow(tmp_path / "broken.mp4", None)
    broken.path.write_bytes(b"no video")
    clips, kept = centre_clips((rows[0], broken, rows[1]), ClipConfig(num_frames=8, stride=1), size=32)
    assert list(clips.shape) == [2, 8, 3, 32, 32]
    assert kept == list(rows)
    store = IndexStore(tmp_path, (tmp_path / "index",))
    again, _ = centre_clips((rows[0], broken, rows[1]), ClipConfig(num_frames=8, stride=1), size=32, store=store)
    assert torch.equal(clips, again)
    assert store.get(EncodedFile(rows[0].path)) is not None


def test_groups_of_a_manifest_file_and_parts_of_one_video_are_on_one_side(tmp_path: Path) -> None:
    rows = [
        VideoRow(tmp_path / f"{video}.mp4", video % 2, start_seconds=float(part), end_seconds=part + 1.0)
        for video in range(30)
        for part in range(6)
    ]
    whole = Manifest(tmp_path, tuple(rows), ("a", "b"), tmp_path / "set.csv")
    watched = hold_out(whole, MonitorConfig(held_out=0.2), seed=0)
    assert watched.unseen
    held = {row.path for row in watched.measured}
    assert not held & {row.path for row in watched.train.rows}
    assert len(watched.train.rows) + len(watched.measured) == 180
    assert {row.start_seconds for row in watched.measured} == set(map(float, range(6)))
    named = whole.with_rows(row._replace(group=f"g{number // 20}") for number, row in enumerate(rows))
    watched = hold_out(named, MonitorConfig(held_out=0.2), seed=0)
    assert not {row.group for row in watched.measured} & {row.group for row in watched.train.rows}
