"""A prepared collection: its manifest, what is done again and what is not, shards, and kills."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planted import audio_only, good_video

from videomae.cli import main
from videomae.collection.check import check_collection
from videomae.collection.configs import CheckConfig, PrepareConfig
from videomae.collection.measure import content_digest
from videomae.collection.prepare import PrepareResult, parse_shard, prepare_collection
from videomae.collection.prepared_manifest import planned_targets
from videomae.data.manifest import Manifest, VideoRow
from videomae.data.scan import scan_labelled
from videomae.data.synthetic import motion_frames
from videomae.errors import ConfigError, RunError
from videomae.ownership import owned
from videomae.video.decode import VideoReader
from videomae.video.encoded import EncodedFile
from videomae.video.index_store import FOLDER, IndexStore


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Four videos with labels, groups, splits and a further column."""
    root = tmp_path / "v"
    for seed in range(4):
        good_video(root / "deep er" / f"ü{seed}.mov", seed, num_frames=10 + seed, size=32)
    rows = [
        f"deep er/ü{seed}.mov,{'zb'[seed % 2]},g{seed // 2},{'train' if seed < 2 else 'test'},near"
        for seed in range(4)
    ]
    (root / "labels.csv").write_text("path,label,group,split,place\n" + "\n".join(rows), encoding="utf-8")
    return root


def prepare(source: Path, out: Path, **settings: object) -> PrepareResult:
    return prepare_collection(source, out, workers=1, **settings)  # type: ignore[arg-type]


def written_at(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}


def test_the_manifest_keeps_what_the_original_says_and_originals_stay(collection: Path, tmp_path: Path) -> None:
    before = {path: content_digest(path) for path in collection.rglob("*") if path.is_file()}
    audio_only(collection / "sound.mp4")
    with (collection / "labels.csv").open("a", encoding="utf-8") as stream:
        stream.write("\nsound.mp4,z,g3,train,far\ngone.mp4,z,g4,train,far\n")
    before[collection / "labels.csv"] = content_digest(collection / "labels.csv")
    result = prepare(collection, tmp_path / "out")
    assert result.manifest == tmp_path / "out" / "manifest.csv"
    assert rows_of(result.manifest)[0] == {
        "path": "deep er/ü0.mp4", "label": "z", "group": "g0", "split": "train", "place": "near",
    }  # fmt: skip
    assert len(rows_of(result.manifest)) == 4
    assert [name for name, _ in result.failed] == ["gone.mp4", "sound.mp4"]
    assert "has no video stream, only audio" in result.failed[1][1]
    manifest = scan_labelled(result.manifest)
    assert manifest.classes == ("b", "z")
    assert [row.split for row in manifest.rows] == ["train", "train", "test", "test"]
    assert {path: content_digest(path) for path in before} == before
    text = "\n".join(result.lines())
    assert "4 of 6 videos are prepared, 0 of them before this call" in text
    assert "left out: gone.mp4: cannot be opened: no such file" in text
    assert "MB before" in text
    assert "clips/s before" in text
    assert result.quality is not None
    assert result.quality.lowest > 25
    assert list((tmp_path / "out").rglob("*.tmp")) == []


def test_what_is_done_is_not_done_again_unless_its_source_changes(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(collection, out)
    before = written_at(out)
    assert prepare(collection, out).num_before == 4
    assert written_at(out) == before
    good_video(collection / "deep er" / "ü1.mov", 11, num_frames=15, size=32)
    (out / "deep er" / "ü2.mp4").unlink()
    result = prepare(collection, out)
    assert (result.num_before, len(result.failed)) == (2, 0)
    changed = {name for name, at in written_at(out).items() if before[name] != at}
    assert changed == {"ü1.mp4", "ü2.mp4"}


def test_other_settings_and_other_files_are_refused_unless_asked_for(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(collection, out)
    with pytest.raises(
        ConfigError, match=r"prepared with crf 26\.0 and now it is 30: choose another folder, or --over"
    ):
        prepare(collection, out, config=PrepareConfig(crf=30))
    assert prepare(collection, out, config=PrepareConfig(crf=30), overwrite=True).num_before == 0
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"holds other files, such as mine\.txt"):
        prepare(collection, tmp_path / "full")
    with pytest.raises(ConfigError, match="where its videos would count as originals"):
        prepare(collection / "deep er", collection / "deep er" / "out")
    with pytest.raises(ConfigError, match=r"ü0\.mp4 would be overwritten by what is prepared"):
        prepare(tmp_path / "out" / "manifest.csv", tmp_path / "out", overwrite=True)


def test_parts_of_a_split_video_share_its_row_and_a_group(tmp_path: Path) -> None:
    good_video(tmp_path / "v" / "x" / "long.mp4", 0, num_frames=30, size=32)
    good_video(tmp_path / "v" / "y" / "short.mp4", 1, num_frames=10, size=32)
    result = prepare(tmp_path / "v", tmp_path / "out", config=PrepareConfig(split_seconds=0.6))
    assert result.manifest is not None
    rows = rows_of(result.manifest)
    assert [(row["path"], row["label"], row["group"]) for row in rows] == [
        ("x/long_part0000.mp4", "x", "x/long.mp4"),
        ("x/long_part0001.mp4", "x", "x/long.mp4"),
        ("y/short.mp4", "y", ""),
    ]
    (tmp_path / "list.csv").write_text("path,start,end\nv/x/long.mp4,0,0.4\nv/x/long.mp4,0.4,\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="they are parts already, leave split_seconds out"):
        prepare(tmp_path / "list.csv", tmp_path / "parts", config=PrepareConfig(split_seconds=1))
    result = prepare(tmp_path / "list.csv", tmp_path / "parts")
    assert result.manifest is not None
    assert [(row["path"], row["start"], row["end"]) for row in rows_of(result.manifest)] == [
        ("v/x/long.mp4", "0.0", "0.4"),
        ("v/x/long.mp4", "0.4", ""),
    ]


def test_shards_do_their_own_and_the_last_one_merges(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = prepare(collection, out, shard=(1, 3))
    assert (first.num_videos, first.manifest) == (1, None)
    assert "other shards are not finished" in "\n".join(first.lines())
    assert prepare(collection, out, shard=(0, 3)).num_videos == 2
    last = prepare(collection, out, shard=(2, 3))
    assert last.manifest is not None
    assert last.part is not None
    assert len(rows_of(last.part)) == 1
    whole = last.manifest.read_bytes()
    assert len(rows_of(last.manifest)) == 4
    before = written_at(out)
    assert prepare(collection, out).num_before == 4
    assert (written_at(out), last.manifest.read_bytes()) == (before, whole)


def test_names_that_would_meet_keep_their_endings(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.avi", "A.mp4", "b.mkv")] + [Path("/else/c.mp4")]
    manifest = Manifest(tmp_path, tuple(VideoRow(path, None) for path in paths), ())
    targets = planned_targets(manifest, Path("out"))
    assert [path.as_posix() for path in targets.values()] == [
        "out/a.avi.mp4",
        "out/A.mp4.mp4",
        "out/b.mp4",
        "out/elsewhere/else/c.mp4",
    ]


def test_a_shard_is_prepared_by_one_process_at_a_time(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with owned(out, what="data prepare of shard 1/3", name=".prepare/.lock-1-of-3"):
        with pytest.raises(RunError, match="out is in use by another data prepare of shard 1/3"):
            prepare(collection, out, shard=(1, 3))
        assert prepare(collection, out, shard=(0, 3)).num_videos == 2


def test_a_refused_folder_gets_no_lock(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds other files"):
        prepare(collection, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_shards_are_named_by_two_numbers() -> None:
    assert parse_shard("0/4") == (0, 4)
    assert parse_shard(None) is None
    for text in ("4/4", "1", "-1/3", "a/b"):
        with pytest.raises(ConfigError, match="it is i/n with i from 0 to n - 1"):
            parse_shard(text)


def test_a_collection_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "bad.mp4").write_bytes(b"x")
    with pytest.raises(RunError, match=r"no video of .* could be read"):
        prepare(tmp_path / "v", tmp_path / "out")


def test_the_command_prepares_and_its_output_is_checked_and_found_well(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "prepare", str(collection), str(tmp_path / "out"), "--workers", "1", "--gop", "4"]
    assert main([*command, "--short_side", "24"]) == 0
    assert f"manifest: {tmp_path / 'out' / 'manifest.csv'}" in capsys.readouterr().out
    sizes = ["--num_frames", "4", "--stride", "2", "--out", str(tmp_path / "check")]
    main(["data", "check", str(tmp_path / "out" / "manifest.csv"), *sizes])
    assert "4 videos in" in capsys.readouterr().out
    (collection / "deep er" / "ü0.mov").write_bytes(b"x")
    assert main([*command, "--short_side", "24"]) == 1
    assert main([*command, "--shard", "5"]) == 2
    assert main([*command, "--workers", "0"]) == 2


def wait_until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twelve videos, and what an uninterrupted run makes of them."""
    root = tmp_path_factory.mktemp("whole")
    for seed in range(12):
        good_video(root / "v" / f"{seed:02}.mp4", seed, num_frames=60, size=192)
    assert prepare_collection(root / "v", root / "prepared", workers=2).manifest is not None
    return root / "v", root / "prepared"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_in_the_middle_goes_on_where_it_was(
    whole: tuple[Path, Path], tmp_path: Path, number: signal.Signals
) -> None:
    videos, prepared = whole
    out = tmp_path / "out"
    command = [sys.executable, "-m", "videomae", "data", "prepare", str(videos), str(out), "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: len(list(out.glob("*.mp4"))) >= 3 and bool(list(out.glob("*.tmp"))))
        for shard in (None, (0, 2)):
            with pytest.raises(RunError, match=rf"out is in use by another data prepare \(process {process.pid} on"):
                prepare_collection(videos, out, shard=shard)
        process.send_signal(number)
        code = process.wait(30)
    assert code == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    time.sleep(0.3)  # the processes of a killed one end on their own
    if number != signal.SIGKILL:
        assert list(out.glob("*.tmp")) == []
    assert not (out / "manifest.csv").exists()
    before = written_at(out)
    assert 3 <= len(before) < 12
    result = prepare_collection(videos, out, workers=2)
    assert result.num_before >= 1
    kept = [name for name, at in written_at(out).items() if before.get(name) == at]
    assert len(kept) == result.num_before
    assert list(out.glob("*.tmp")) == []
    assert result.manifest is not None
    assert len(rows_of(result.manifest)) == 12
    for path in sorted(out.glob("*.mp4")):
        assert content_digest(path) == content_digest(prepared / path.name)


def test_a_folder_of_pictures_is_checked_and_becomes_a_video(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "v" / "walk").mkdir(parents=True)
    for number, frame in enumerate(motion_frames("left", size=32, num_frames=12, rng=np.random.default_rng(5))):
        Image.fromarray(frame).save(tmp_path / "v" / "walk" / f"{number:03}.png")
    good_video(tmp_path / "v" / "a.mp4", 1, num_frames=12, size=32)
    found = check_collection(tmp_path / "v", config=CheckConfig(num_frames=4, stride=2, workers=1))
    assert (found.num_videos, found.findings) == (2, ())
    result = prepare(tmp_path / "v", tmp_path / "out")
    assert result.manifest is not None
    assert [row["path"] for row in rows_of(result.manifest)] == ["a.mp4", "walk.mp4"]
    with VideoReader(tmp_path / "out" / "walk.mp4") as reader:
        assert len(reader) == 12
    assert prepare(tmp_path / "v", tmp_path / "out").num_before == 2


def test_what_was_prepared_is_indexed_and_originals_get_no_folder(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(collection, out)
    store = IndexStore(out, (out / FOLDER,))
    for row in scan_labelled(out / "manifest.csv").rows:
        assert store.get(EncodedFile(row.path)) is not None
    assert not (collection / FOLDER.parts[0]).exists()
    assert prepare(collection, out).num_before == 4  # the folder of indices is no foreign file
