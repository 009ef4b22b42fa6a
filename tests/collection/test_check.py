"""Every planted fault is found, in its kind, and nothing else."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from planted import changed_copy, good_video, plant_faults

from videomae.cli import main
from videomae.collection.check import CheckResult, check_collection
from videomae.collection.configs import CheckConfig
from videomae.collection.findings import KINDS
from videomae.errors import ConfigError, ManifestError
from videomae.report.check_page import write_check_page
from videomae.video.encoded import EncodedFile
from videomae.video.index_store import FOLDER, IndexStore

CONFIG = CheckConfig(num_frames=8, stride=2, workers=2)


def kinds_of(result: CheckResult) -> dict[str, list[str]]:
    """Return the kinds of finding of each video."""
    found: dict[str, list[str]] = {}
    for one in result.findings:
        found.setdefault(one.path, []).append(one.kind)
    return found


def test_every_planted_fault_is_found_in_its_kind_and_nothing_else(tmp_path: Path) -> None:
    planted = plant_faults(tmp_path / "v")
    for seed in range(8):
        good_video(tmp_path / "v" / f"good{seed}.mp4", seed)
    result = check_collection(tmp_path / "v", config=CONFIG)
    assert kinds_of(result) == {name: [kind] for name, kind in planted.items()}
    assert result.skipped == ["b.mp4", "cut.mp4", "cut_index.mp4", "cut_late.mp4", "sound.mp4", "text.mp4"]
    others = {one.kind: one.others for one in result.findings if one.others}
    assert others == {"exact_duplicate": ("b.mp4",), "near_duplicate": ("d.mp4",)}
    assert result.rate is not None
    assert result.rate.clips_per_second > 0


def write_labels(root: Path, rows: list[str]) -> None:
    (root / "labels.csv").write_text("path,label,group,split\n" + "\n".join(rows) + "\n", encoding="utf-8")


def test_copies_and_groups_in_train_and_test_are_found(tmp_path: Path) -> None:
    for seed in range(6):
        good_video(tmp_path / f"{seed}.mp4", seed)
    changed_copy(tmp_path / "0.mp4", tmp_path / "copy.mp4", size=(48, 48))
    rows = ["0.mp4,x,g0,train", "1.mp4,y,g1,train", "2.mp4,x,g2,train", "3.mp4,y,g1,test", "copy.mp4,y,g5,test"]
    write_labels(tmp_path, [*rows, "gone.mp4,x,g7,train"])
    result = check_collection(tmp_path, config=CONFIG)
    found = {(one.kind, one.path, one.others) for one in result.findings}
    assert found == {
        ("unreadable", "gone.mp4", ()),
        ("near_duplicate", "copy.mp4", ("0.mp4",)),
        ("label_conflict", "0.mp4", ("copy.mp4",)),
        ("leak", "0.mp4", ("copy.mp4",)),
        ("group_leak", "g1", ("1.mp4", "3.mp4")),
    }
    assert result.skipped == ["0.mp4", "gone.mp4"]
    assert result.class_counts == {"x": {"train": 3, "test": 0}, "y": {"train": 1, "test": 2}}


def test_a_video_in_both_of_two_collections_is_a_leak(tmp_path: Path) -> None:
    for seed in range(3):
        good_video(tmp_path / "train" / f"{seed}.mp4", seed)
    good_video(tmp_path / "test" / "new.mp4", 7)
    changed_copy(tmp_path / "train" / "1.mp4", tmp_path / "test" / "known.mp4", sides=10, size=(80, 60))
    (tmp_path / "test" / "bad.mp4").write_bytes(b"")
    result = check_collection(tmp_path / "train", against=tmp_path / "test", config=CONFIG)
    assert [(one.kind, one.path, one.others) for one in result.findings] == [("leak", "1.mp4", ("known.mp4",))]
    assert result.num_against == (3, 1)
    assert result.skipped == ["1.mp4"]


def test_parts_are_judged_by_their_own_frames(tmp_path: Path) -> None:
    good_video(tmp_path / "a.mp4", 0)
    rows = ["a.mp4,0,0.8", "a.mp4,0.8,", "a.mp4,5,6"]
    (tmp_path / "list.csv").write_text("path,start,end\n" + "\n".join(rows), encoding="utf-8")
    result = check_collection(tmp_path / "list.csv", config=CONFIG)
    assert [(one.kind, one.path) for one in result.findings] == [
        ("unreadable", "a.mp4#t=5,6"),
        ("too_short", "a.mp4#t=0.8"),
    ]


def test_the_command_writes_its_files_and_says_with_its_status_whether_something_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        good_video(tmp_path / "v" / f"x{seed % 2}" / f"{seed}.mp4", seed)
    sizes = ["--num_frames", "8", "--stride", "2", "--workers", "1", "--out", str(tmp_path / "out")]
    command = ["data", "check", str(tmp_path / "v"), *sizes, "--clips_per_second", "1e6"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "3 videos in" in out
    assert "class x0: all 2" in out
    assert "1e+06 clips/s need" in out
    (tmp_path / "v" / "x0" / "bad.mp4").write_bytes(b"x")
    assert main(command) == 1
    assert "x0/bad.mp4" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))
    assert found["counts"] == {"unreadable": 1}
    assert found["findings"][0]["fix"] == KINDS["unreadable"].fix
    assert (tmp_path / "out" / "skip.txt").read_text(encoding="utf-8") == "x0/bad.mp4\n"
    assert "x0/bad.mp4" in (tmp_path / "out" / "check.html").read_text(encoding="utf-8")
    assert main(["data", "check", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "v"), "--stride", "0"]) == 2
    assert "stride is 0" in capsys.readouterr().err


def test_the_page_shows_near_duplicates_side_by_side(tmp_path: Path) -> None:
    one = good_video(tmp_path / "v" / "one.mp4", 0)
    changed_copy(one, tmp_path / "v" / "copy.mp4", size=(48, 48))
    good_video(tmp_path / "v" / "other.mp4", 1)
    page = write_check_page(tmp_path, check_collection(tmp_path / "v", config=CONFIG)).read_text(encoding="utf-8")
    players = re.findall(r'<video [^>]*src="([^#"]+)#t=0.00,[^"]+" poster="data:image/jpeg;base64,[^"]{200,}">', page)
    assert sorted(players) == ["v/copy.mp4", "v/one.mp4"]
    assert "48x48 h264" in page, "which of both is the better one"


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(ManifestError, match="drawn, not read"):
        check_collection(Path("procedural:3"))
    with pytest.raises(ConfigError, match="workers is 0; it is a number of processes"):
        CheckConfig(workers=0)
    with pytest.raises(ConfigError, match="clips_per_second is 0"):
        CheckConfig(clips_per_second=0)


@pytest.mark.slow
def test_near_duplicates_are_told_from_other_clips(tmp_path: Path) -> None:
    draw = random.Random(0)
    clips = {seed: good_video(tmp_path / f"clip{seed:03}.mp4", seed, size=96, num_frames=48) for seed in range(60)}
    expected = set()
    for seed, clip in clips.items():
        copy = tmp_path / f"clip{seed:03}_copy.mp4"
        match seed % 4:
            case 0:
                changed_copy(clip, copy, quality=draw.choice([34, 36, 38]))
            case 1:
                changed_copy(clip, copy, size=draw.choice([(48, 48), (128, 96), (160, 160), (64, 90)]))
            case 2:
                changed_copy(clip, copy, bars=draw.choice([6, 12, 20]))
            case _:
                changed_copy(clip, copy, sides=draw.choice([6, 14, 24]), size=(80, 60))
        expected.add((clip.name, copy.name))
    result = check_collection(tmp_path, config=CONFIG)
    assert {one.kind for one in result.findings} == {"near_duplicate"}
    found = {(one.path, *one.others) for one in result.findings}
    print(f"precision {len(found & expected)}/{len(found)}, recall {len(found & expected)}/{len(expected)}")
    assert len(found & expected) >= 58
    assert len(found - expected) <= 1


@pytest.mark.slow
def test_a_check_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    first = good_video(tmp_path / "v" / "first.mp4", 0, num_frames=60, size=128)
    for number in range(200):
        shutil.copy(first, tmp_path / "v" / f"{number:03}.mp4")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "videomae", "data", "check", str(tmp_path / "v"), "--out", str(out)]
    with subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "step 1/201" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in process.stderr.read()
    assert not out.exists()


def test_a_check_keeps_the_indices_of_what_can_be_read(tmp_path: Path) -> None:
    for seed in range(3):
        good_video(tmp_path / f"{seed}.mp4", seed)
    (tmp_path / "text.mp4").write_text("no video" * 100)
    check_collection(tmp_path, config=CONFIG)
    store = IndexStore(tmp_path, (tmp_path / FOLDER,))
    found = [store.get(EncodedFile(path)) is not None for path in sorted(tmp_path.glob("*.mp4"))]
    assert found == [True, True, True, False]
