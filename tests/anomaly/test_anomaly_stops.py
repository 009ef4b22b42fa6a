"""Fitting and scoring that are stopped go on to the same numbers, and a video that breaks off counts up to there."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from videomae.anomaly.detector import load_detector
from videomae.anomaly.measuring import STOPPED
from videomae.cli import main
from videomae.inference.kept_rows import KeptRows
from videomae.video.write import write_video

FIT = ["--step", "0.05", "--masks", "1", "--false_alarms", "0.05", "--batch_size", "4", "--device", "cpu"]


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of noise, three seconds each."""
    folder = tmp_path_factory.mktemp("footage")
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
        write_video(folder / f"{seed}.mp4", noise.repeat(4, axis=1).repeat(4, axis=2), frame_rate=20.0)
    return folder


@pytest.fixture(scope="module")
def detector(footage: Path, pretraining_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detector") / "d.npz"
    assert main(["anomaly", "fit", str(pretraining_folder), str(footage), *FIT, "--out", str(out)]) == 0
    assert sorted(one.name for one in out.parent.iterdir()) == ["d.npz"]
    return out


def stopped_after(num_batches: int, patch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C, as Python delivers it, after some batches."""
    append, count = KeptRows.append, iter(range(1, 10_000))

    def counting(kept: KeptRows, video: str, rows: np.ndarray) -> None:
        append(kept, video, rows)
        if next(count) == num_batches:
            signal.raise_signal(signal.SIGINT)

    patch.setattr(KeptRows, "append", counting)


def appended(patch: pytest.MonkeyPatch) -> list[int]:
    """Return the list that will hold how many rows each batch has."""
    append, counts = KeptRows.append, list[int]()

    def counting(kept: KeptRows, video: str, rows: np.ndarray) -> None:
        counts.append(len(rows))
        append(kept, video, rows)

    patch.setattr(KeptRows, "append", counting)
    return counts


def test_a_fit_that_is_stopped_writes_no_detector_and_goes_on_to_the_same_one(
    footage: Path,
    detector: Path,
    pretraining_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "d.npz"
    words = ["anomaly", "fit", str(pretraining_folder), str(footage), *FIT, "--out", str(out)]
    with monkeypatch.context() as patch:
        stopped_after(16, patch)
        assert main(words) == 130
    said = capsys.readouterr().err
    assert (
        f"stopped: {out} was not written; what has been measured is kept in {out}.parts, continue with --resume"
        in said
    )
    assert not out.exists()
    with monkeypatch.context() as patch:
        counts = appended(patch)
        assert main([*words, "--resume"]) == 0
    whole, again = load_detector(detector), load_detector(out)
    assert np.array_equal(whole.calibration, again.calibration)
    assert all(map(np.array_equal, whole.parameters, again.parameters))
    assert sum(counts) == len(whole.calibration) - 51 - 3 * 4  # 13 batches of the first and three of the second
    assert sorted(one.name for one in tmp_path.iterdir()) == ["d.npz"]


def test_scores_that_are_stopped_are_complete_for_what_was_done_and_go_on(
    footage: Path,
    detector: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, whole = tmp_path / "s.json", tmp_path / "whole.json"
    words = ["anomaly", "score", str(detector), str(footage), "--device", "cpu", "--out"]
    assert main([*words, str(whole)]) in (0, 1)
    with monkeypatch.context() as patch:
        stopped_after(16, patch)
        assert main([*words, str(out)]) == 130
    assert "stopped: what is done is told; --resume continues" in capsys.readouterr().err
    first, second = json.loads(out.read_text())["videos"]
    expected = json.loads(whole.read_text())["videos"]
    assert first == expected[0]
    assert second["fault"] == STOPPED
    assert second["windows"] == expected[1]["windows"][: len(second["windows"])]
    assert main([*words, str(out), "--resume"]) in (0, 1)
    assert out.read_text() == whole.read_text()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["s.json", "whole.json"]
    assert main([*words[:-1], "--resume"]) == 2
    assert "--resume is given without --out" in capsys.readouterr().err


def test_a_video_that_breaks_off_is_measured_up_to_there_and_marked(
    footage: Path,
    detector: Path,
    pretraining_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut = tmp_path / "cut.mkv"
    write_video(cut, np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), frame_rate=20.0)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    out = tmp_path / "s.json"
    assert main(["anomaly", "score", str(detector), str(cut), "--device", "cpu", "--out", str(out)]) == 2
    assert "cut.mkv is not whole" in capsys.readouterr().err
    (video,) = json.loads(out.read_text())["videos"]
    assert "cut.mkv" in video["fault"]
    assert 5 <= len(video["windows"]) < 49
    words = ["anomaly", "fit", str(pretraining_folder), str(footage), str(cut), *FIT]
    assert main([*words, "--out", str(tmp_path / "d.npz")]) == 2
    assert "cut.mkv" in capsys.readouterr().err
    assert load_detector(tmp_path / "d.npz").num_videos == 4


def test_a_window_longer_than_the_videos_is_one_line_with_what_to_give(
    footage: Path, pretraining_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["anomaly", "fit", str(pretraining_folder), str(footage), "--device", "cpu", "--window", "9"]
    assert main([*words, "--out", str(tmp_path / "d.npz")]) == 2
    assert "window is 9 seconds and" in (said := capsys.readouterr().err)
    assert "give a --window of at most 3.00" in said
    assert list(tmp_path.iterdir()) == []
