"""What a run keeps of its speed and of where it was computed, and that neither changes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from videomae.engine import progress
from videomae.engine.environment import read_environments
from videomae.engine.runlog import MetricsLog
from videomae.recipes.schema import PretrainRecipe
from videomae.report.made_with import made_with_blocks
from videomae.report.sections import training_section
from videomae.train import cost
from videomae.train.pretrain import pretrain

Pretrain = Callable[..., PretrainRecipe]
SPEEDS = {"clips_per_second", "flops_per_second", "peak_fraction"}


def test_speed_is_in_metrics_trackers_page_and_progress_and_changes_no_loss(
    pretrain_recipe: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pretrain(pretrain_recipe(), out=tmp_path / "plain")
    assert "of peak" not in capsys.readouterr().err, "so short a run is not worth measuring the device"
    monkeypatch.setattr(progress, "NOTED_SECONDS", 0.0)
    monkeypatch.setattr(cost, "SHORT_RUN_FLOPS", 0.0)
    pretrain(pretrain_recipe("--loop.tracker", "tensorboard"), out=tmp_path / "noted")
    plain, noted = (MetricsLog.read(tmp_path / name / "metrics.jsonl") for name in ("plain", "noted"))
    assert all(one.keys() >= SPEEDS for one in noted[1:])
    assert all(0 < one["peak_fraction"] < 1 for one in noted[1:])
    assert [{key: value for key, value in one.items() if key not in SPEEDS} for one in noted] == plain
    weights = [tmp_path / name / "model" / "model.safetensors" for name in ("plain", "noted")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert "FLOP/s, " in capsys.readouterr().err
    events = EventAccumulator(str(tmp_path / "noted" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= SPEEDS
    section = str(training_section(noted))
    assert "of peak (matrix multiplications reach " in section
    assert "clips/s by step" in section


def test_every_start_keeps_its_environment_and_the_page_shows_what_was_otherwise(
    pretrain_recipe: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setenv("SLURM_JOB_ID", "11")
    monkeypatch.setenv("MY_API_TOKEN", "hunter2")
    pretrain(pretrain_recipe(), out=out, recipe_name="tiny")
    (out / "checkpoints" / "checkpoint-00000008.pt").unlink()
    shutil.rmtree(out / "model")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    pretrain(pretrain_recipe(), out=out, resume=True)
    starts = read_environments(out)
    assert [(one["step"], one["variables"]["SLURM_JOB_ID"]) for one in starts] == [(0, "11"), (6, "12")]
    assert [(one["recipe"], one["total_steps"], one["processes"]) for one in starts] == [("tiny", 8, 1), (None, 8, 1)]
    assert "hunter2" not in (out / "environment.json").read_text()
    events = [(one["event"], one.get("step")) for one in MetricsLog.read(out / "history.jsonl")]
    assert events == [("started", None), ("finished", 8), ("resumed", 6), ("finished", 8)]
    pretrain(pretrain_recipe(), out=out, resume=True)  # is finished
    assert len(read_environments(out)) == 2
    assert len(MetricsLog.read(out / "history.jsonl")) == 4
    shown = str(made_with_blocks(starts))
    for text in ("Environment of the last of 2 starts", "What was otherwise", "SLURM_JOB_ID", "commit of videomae"):
        assert text in shown
    assert json.loads((out / "environment.json").read_text())["starts"] == starts
