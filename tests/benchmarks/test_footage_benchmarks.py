"""The benchmarks on long videos: contenders find the same, and growth of memory is that of the process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.long_videos import camera_video, repeated_video

from benchmarks import flat_memory, window_speed
from videomae.video.opening import open_reader


@pytest.mark.slow
def test_all_contenders_score_the_same_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    words = ["--models", "toy", "--heights", "72", "--overlaps", "0.5", "--seconds", "4", "--repeats", "1"]
    window_speed.main([*words, "--threads", "1", "--out", str(out)])
    rows = {row["contender"]: row for row in json.loads(out.read_text())["rows"]}
    assert {"timeline fp32", "predict", "transformers", "transformers, best", "single clips"} <= rows.keys()
    assert rows["predict"]["windows"] == rows["timeline fp32"]["windows"] == 12
    assert rows["transformers"]["windows"] == 11, "it has no last window that is moved back"
    assert rows["predict"]["apart"] < 1e-6
    assert rows["single clips"]["apart"] == 0.0
    assert rows["transformers"]["apart"] < 1e-3  # its resizing is PIL's
    assert all(row["windows_per_second"] > 0 and row["threads"] == 1 for row in rows.values())
    of_transformers = rows["predict"]["windows_per_second"] / rows["transformers"]["windows_per_second"]
    assert rows["predict"]["of_transformers"] == pytest.approx(of_transformers), "of one turn there is one ratio"
    assert "timeline fp32" in capsys.readouterr().out


def test_long_videos_are_as_long_as_asked_for_and_read_whole(tmp_path: Path) -> None:
    with open_reader(camera_video(tmp_path / "camera.mp4", seconds=8, height=72)) as reader:
        assert (len(reader), reader.info.height, reader.info.width) == (200, 72, 128)
        assert len(list(reader.frames_in_order(range(90, 110)))) == 20
    with open_reader(repeated_video(tmp_path / "shapes.mp4", seconds=30, size=32)) as reader:
        assert len(reader) == 750


@pytest.mark.slow
@pytest.mark.parametrize("command", ["timeline", "features"])
def test_growth_of_memory_is_told_for_either_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = window_speed.save_model(tmp_path / "model", window_speed.model_settings("toy"))
    monkeypatch.setattr(flat_memory, "FROM_MINUTE", 1.0)
    monkeypatch.setattr(flat_memory, "POLL_SECONDS", 0.1)
    flat_memory.main([command, str(model), "--hours", "0.2", "--size", "32"])
    printed = capsys.readouterr().out
    assert "at minute 1: " in printed
    assert "MB; growth " in printed
