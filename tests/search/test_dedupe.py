"""`videomae dedupe` that is stopped, that goes on, and that meets videos that break off."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from videomae.cli import main
from videomae.inference.kept_rows import KeptRows
from videomae.search import dedupe
from videomae.search.copies import Copy
from videomae.video.write import write_video

pytestmark = pytest.mark.slow  # each starts processes


def wandering(seed: int) -> NDArray[np.uint8]:
    """Draw 40 frames of two blocks that wander over a textured background."""
    rng = np.random.default_rng(seed)
    back = rng.integers(30, 220, (6, 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    frames = np.repeat(back[None], 40, axis=0)
    for color in rng.integers(0, 255, (2, 3)):
        places = np.cumsum(rng.normal(0, 3, (40, 2)), axis=0) + rng.integers(8, 24, 2)
        for frame, (y, x) in zip(frames, places.astype(int) % 34, strict=True):
            frame[y : y + 14, x : x + 14] = color
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of four seconds, each with a copy that is smaller."""
    root = tmp_path_factory.mktemp("dedupe")
    for seed in range(2):
        frames = wandering(seed)
        write_video(root / f"{seed}.mp4", frames, frame_rate=10.0)
        write_video(root / f"{seed}-small.mp4", frames[:, ::2, ::2], frame_rate=10.0, quality=30)
    return root


def pairs(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(out.read_text())["pairs"]
    return found


def test_ctrl_c_while_reading_compares_what_was_read_and_resume_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = tmp_path / "part.json", tmp_path / "whole.json"
    words = ["dedupe", str(folder), "--workers", "1", "--out"]
    assert main([*words, str(whole)]) == 1
    assert len(pairs(whole)) == 2
    finish, finished = KeptRows.finish, list[str]()

    def noted(kept: KeptRows, video: str, values: Any, **arrays: Any) -> None:
        finish(kept, video, values, **arrays)
        finished.append(video)
        if len(finished) == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(KeptRows, "finish", noted)
        assert main([*words, str(out)]) == 130
    said = capsys.readouterr().err
    assert "stopped: comparing the 3 videos read so far; Ctrl-C again ends that" in said
    assert "stopped: what is done is told; --resume continues" in said
    assert json.loads(out.read_text())["is_whole"] is False
    assert pairs(out) == [one for one in pairs(whole) if {one["one"], one["other"]} <= set(finished)]
    monkeypatch.setattr(KeptRows, "finish", noted)  # it is past its third
    assert main([*words, str(out), "--resume"]) == 1
    assert len(finished) == 4
    assert out.read_text() == whole.read_text()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["part.json", "whole.json"]


def test_ctrl_c_while_comparing_tells_the_pairs_that_were_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = dedupe.find_copies

    def stopped(prints: Any) -> Iterator[Copy]:
        yield next(find(prints))
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(dedupe, "find_copies", stopped)
    assert main(["dedupe", str(folder), "--workers", "1", "--out", str(tmp_path / "d.json")]) == 130
    assert len(pairs(tmp_path / "d.json")) == 1


def test_a_video_that_breaks_off_is_compared_up_to_there_and_marked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "0.mkv", tmp_path / "cut.mkv"
    write_video(whole, wandering(0), frame_rate=10.0)
    cut.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    words = ["dedupe", str(folder / "0.mp4"), str(cut), "--workers", "1", "--out", str(tmp_path / "d.json")]
    assert main(words) == 2
    assert "cut.mkv is not whole: " in capsys.readouterr().err
    (pair,) = pairs(tmp_path / "d.json")
    assert (pair["offset"], pair["speed"]) == (pytest.approx(0.0, abs=0.2), pytest.approx(1.0, abs=0.03))
    assert pair["overlap"] < 3.5
    (error,) = json.loads((tmp_path / "d.json").read_text())["errors"]
    assert error["path"] == str(cut)


def test_the_page_counts_pairs_of_still_scenes_apart(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still, page = np.repeat(wandering(7)[:1], 40, axis=0), tmp_path / "copies.html"
    videos = [str(folder / "0.mp4"), str(folder / "0-small.mp4")]
    for name, quality in (("still.mp4", 18), ("still-again.mp4", 30)):
        write_video(tmp_path / name, still, frame_rate=10.0, quality=quality)
        videos.append(str(tmp_path / name))
    assert main(["dedupe", *videos, "--workers", "1", "--out", str(page)]) == 1
    assert "in 1 pair at the end, nothing moves: copies, or recordings of one view" in capsys.readouterr().err
    assert (
        "1 pair of copies among 4 videos. In 1 more pair, nothing moves: copies, or other recordings of one view."
        in page.read_text()
    )
