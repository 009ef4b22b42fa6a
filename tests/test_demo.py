from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from videomae.cli import main
from videomae.demo import PRETRAINED, STARTS, UNTRAINED, _Results, _verdict
from videomae.engine.runlog import MetricsLog
from videomae.errors import RunError
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, recipe_differences, recipe_to_dict
from videomae.train.pretrain import build_model
from videomae.train.resume import saved_recipe


@pytest.mark.slow
def test_the_report_on_own_clips_shows_the_numbers_of_the_metrics(
    labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten_recipes(monkeypatch)
    out = tmp_path / "demo"
    assert main(["demo", "--data", str(labelled_folder), "--out", str(out), "--seed", "3"]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    for name, run in STARTS.items():
        metrics = MetricsLog.read(out / run / "metrics.jsonl")[-1]["evaluation"]
        stored = json.loads((out / run / "model" / "videomae.json").read_text())["training"]["evaluation"]
        assert stored == {name: metrics[name] for name in stored}
        assert f"{metrics['top1']:.1%}" in page
        assert f"{name}: top-1 {metrics['top1']:.1%} of {metrics['num_videos']} videos (95 % interval " in printed
    assert_control_differs_in_the_training_alone(out)
    losses = [record["loss"] for record in MetricsLog.read(out / "pretrain" / "metrics.jsonl")]
    assert f"{losses[-1]:.4g}" in page
    assert not re.search(r"""(?:src|href)=["']https?:""", page)
    assert "saw all clips" in page  # own clips: the validation set was not held out of pre-training


def test_an_existing_report_is_not_replaced_unasked(tmp_path: Path) -> None:
    from videomae.demo import run_demo

    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(RunError, match="exists already: give --overwrite"):
        run_demo(tmp_path)
    assert (tmp_path / "report.html").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def assert_control_differs_in_the_training_alone(out: Path) -> None:
    """The control starts from the weights that pre-training has started from, and is fine-tuned alike."""
    start = build_model(saved_recipe(PretrainRecipe, out / "pretrain"))[0].state_dict()
    untrained = VideoMAEForPreTraining.from_pretrained(out / "untrained").state_dict()
    assert all(torch.equal(untrained[name], start[name]) for name in start)
    pretrained, control = (
        recipe_to_dict(saved_recipe(FinetuneRecipe, out / run)) for run in ("finetune", "from-untrained")
    )
    assert {one.name for one in recipe_differences(pretrained, control)} == {"init"}


@pytest.mark.parametrize(
    ("pretrained", "untrained", "verdict"),
    [
        ((0.6, 0.8), (0.3, 0.5), "Pre-training helped here."),
        ((0.3, 0.5), (0.6, 0.8), "Pre-training harmed here."),
        ((0.4, 0.6), (0.5, 0.7), "No effect of pre-training is shown here: the intervals of the first two overlap."),
    ],
)
def test_the_verdict_is_about_the_control_that_differs_in_pretraining_alone(
    pretrained: tuple[float, float], untrained: tuple[float, float], verdict: str
) -> None:
    runs = {
        name: SimpleNamespace(
            evaluation=SimpleNamespace(metrics=SimpleNamespace(top1_interval=SimpleNamespace(low=low, high=high)))
        )
        for name, (low, high) in ((PRETRAINED, pretrained), (UNTRAINED, untrained))
    }
    assert _verdict(_Results([], runs, {})).startswith(verdict)  # type: ignore[arg-type]


def shorten_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for a few steps on six videos; everything else of the demonstration stays as it is."""
    import videomae.demo as demo
    from videomae.recipes.schema import load_recipe

    small = ["--schedule.steps", "4", "--loop.batch_size", "2", "--loop.workers", "0", "--clip.num_frames", "8"]

    def load(kind: type, name: str, arguments: list[str]) -> object:
        evaluation = (
            ["--evaluation.workers", "0", "--data.val_fraction", "0.34"] if "Finetune" in kind.__name__ else []
        )
        return load_recipe(kind, name, [*arguments, *small, *evaluation])

    monkeypatch.setattr(demo, "load_recipe", load)
