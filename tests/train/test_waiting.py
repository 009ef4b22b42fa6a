"""A real run measures how long it waits for its videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from videomae.engine import data_wait
from videomae.engine.runlog import MetricsLog
from videomae.recipes.schema import PretrainRecipe
from videomae.train.loop import prepare_command
from videomae.train.pretrain import pretrain


def test_a_run_that_reads_in_turn_with_its_steps_shows_notes_and_says_that_it_waits(
    pretrain_recipe: Callable[..., PretrainRecipe],
    labelled_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"WARMUP_STEPS": 1, "WARMUP_SECONDS": 0.0, "NOTED_SECONDS": 0.0}.items():
        monkeypatch.setattr(data_wait, name, value)
    monkeypatch.setattr(data_wait, "WINDOW_SECONDS", 0.02)  # the last step or two
    monkeypatch.setattr(data_wait, "MAX_SHARE", 0.01)
    pretrain(pretrain_recipe("--loop.workers", "0"), out=tmp_path / "run")
    shares = [one["data_wait"] for one in MetricsLog.read(tmp_path / "run" / "metrics.jsonl") if "data_wait" in one]
    assert len(shares) >= 5
    assert all(0.0 < share < 1.0 for share in shares)
    told = capsys.readouterr().err
    assert told.count("of the time is spent waiting for videos: ") == 1
    assert f"videomae data prepare {labelled_folder} {labelled_folder.name}-prepared" in told
    assert "waiting for data" in told


def test_prepared_and_procedural_videos_are_not_to_be_prepared(tmp_path: Path) -> None:
    assert prepare_command(Path("a b/list.csv")) == "videomae data prepare 'a b/list.csv' list-prepared"
    assert prepare_command(Path("procedural:3")) is None
    (tmp_path / ".prepare").mkdir()
    assert prepare_command(tmp_path) is None
    assert prepare_command(tmp_path / "manifest.csv") is None
