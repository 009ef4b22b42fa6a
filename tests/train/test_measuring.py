"""Validation during training, the best weights, and the final evaluations."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from videomae.engine.interrupt import StopRequested
from videomae.engine.runlog import MetricsLog
from videomae.errors import ConfigError
from videomae.evaluation.configs import ValidationConfig
from videomae.evaluation.evaluator import evaluate_folder
from videomae.evaluation.results import load_evaluation
from videomae.recipes.schema import FinetuneRecipe
from videomae.sharing.record import load_record
from videomae.train.finetune import finetune
from videomae.train.measuring import Measuring

Finetune = Callable[..., FinetuneRecipe]
VALIDATED = ("--validation.every_steps", "2", "--optim.base_lr", "0.1", "--head.init_scale", "1.0")


def validations(folder: Path) -> list[dict[str, object]]:
    return [one for one in MetricsLog.read(folder / "metrics.jsonl") if "validation" in one]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_best_weights_are_kept_and_both_are_evaluated_after_the_last_step(
    finetune_recipe: Finetune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    result = finetune(finetune_recipe(*VALIDATED), out=run)
    told = capsys.readouterr()
    assert "validation after step 2: top-1" in told.out + told.err
    records = validations(run)
    assert [one["step"] for one in records] == [2, 4, 6]
    best = max(records, key=lambda one: (one["score"], -one["step"]))  # type: ignore[operator]
    record = load_record(run / "model").training
    assert record is not None
    assert (record.extra["best_step"], record.extra["best_score"], record.steps) == (best["step"], best["score"], 6)
    assert same(run / "best", run / "model")
    if best["step"] == 6:
        assert result.last is None
    else:
        assert result.last == load_evaluation(run / "evaluation-last.json")
        assert not same(run / "model", run / "model-last")
    assert result.evaluation == load_evaluation(run / "evaluation.json")
    # The folder gives, measured anew, what the run says of it.
    again = evaluate_folder(
        run / "model", finetune_recipe().data.train, config=result.evaluation.config, device="cpu"
    )
    found = {row.path: row.probabilities for row in again.rows}
    for row in result.evaluation.rows:
        assert found[row.path] == pytest.approx(row.probabilities, abs=1e-6)


def test_validation_changes_no_step_and_a_resumed_run_validates_as_the_uninterrupted_one(
    finetune_recipe: Finetune, tmp_path: Path
) -> None:
    words = (*VALIDATED, "--head.drop_path_rate", "0.2", "--head.dropout", "0.3")
    finetune(finetune_recipe(*words), out=tmp_path / "whole")
    finetune(finetune_recipe(*words[2:]), out=tmp_path / "plain")
    losses = [
        [one["loss"] for one in MetricsLog.read(tmp_path / name / "metrics.jsonl") if "loss" in one]
        for name in ("whole", "plain")
    ]
    assert losses[0] == losses[1]
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    (tmp_path / "part" / "checkpoints" / "checkpoint-00000006.pt").unlink()
    shutil.rmtree(tmp_path / "part" / "model")
    finetune(finetune_recipe(*words), out=tmp_path / "part", resume=True)
    whole, part = (MetricsLog.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "part"))
    assert part == whole
    assert same(tmp_path / "part" / "model", tmp_path / "whole" / "model")


def test_a_step_that_was_saved_before_its_validation_is_validated_on_resume(
    finetune_recipe: Finetune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = finetune_recipe(*VALIDATED)
    finetune(recipe, out=tmp_path / "whole")
    validate = Measuring.validate

    def stop(self: Measuring, step: int, say: object, interrupt: object) -> None:
        if step == 4:
            raise StopRequested(signal.SIGTERM)
        validate(self, step, say, interrupt)  # type: ignore[arg-type]

    monkeypatch.setattr(Measuring, "validate", stop)
    with pytest.raises(StopRequested):
        finetune(recipe, out=tmp_path / "part")
    assert (tmp_path / "part" / "checkpoints" / "checkpoint-00000004.pt").is_file()
    monkeypatch.undo()
    finetune(recipe, out=tmp_path / "part", resume=True)
    whole, part = (MetricsLog.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "part"))
    assert part == whole


def test_the_test_videos_are_evaluated_where_they_are_named(
    finetune_recipe: Finetune, labelled_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(labelled_folder / "left", tmp_path / "test" / "left")
    recipe = finetune_recipe("--data.test", str(tmp_path / "test"), "--schedule.steps", "2")
    result = finetune(recipe, out=tmp_path / "run")
    assert [row.path for row in result.evaluation.rows] == ["left/0.mp4", "left/1.mp4", "left/2.mp4"]
    (tmp_path / "test" / "left").rename(tmp_path / "test" / "up")
    with pytest.raises(ConfigError, match=r"data\.test has the classes up and data\.train left, right: name"):
        finetune(recipe, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_steps": 0}, r"validation\.every_steps is 0; use a number above 0, or null for none"),
        ({"every_steps": 2, "every_epochs": 1.0}, r"every_epochs is 1 and every_steps is 2; only one of them"),
    ],
)
def test_an_interval_that_is_none_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ValidationConfig(**settings)  # type: ignore[arg-type]
