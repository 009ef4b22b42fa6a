from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from videomae.cli import main
from videomae.demo import PRETRAINED, SCRATCH, STARTS, UNTRAINED, _Results, _summary
from videomae.engine.runlog import MetricsLog
from videomae.engine.seeding import derive_seed
from videomae.errors import RunError
from videomae.evaluation.results import VideoResult
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.recipes.schema import FinetuneRecipe, recipe_differences, recipe_to_dict
from videomae.train.lookup import initialize_lookup
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
    (beginning, *measured) = MetricsLog.read(out / "pretrain" / "monitor.jsonl")
    assert f"{measured[-1]['held_out_loss']:.3f}" in page
    assert f"{beginning['baselines']['interpolate']:.3f}" in page
    assert "pre-trained minus untrained: " in printed
    assert "pre-trained minus from scratch: " in page
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
    """The control has the sizes of the pre-trained model and the initial values; only the rate is another."""
    pretrained = VideoMAEForPreTraining.from_pretrained(out / "pretrain")
    untrained = VideoMAEForPreTraining.from_pretrained(out / "untrained")
    assert {name: one.shape for name, one in untrained.state_dict().items()} == {
        name: one.shape for name, one in pretrained.state_dict().items()
    }
    torch.manual_seed(derive_seed(3, "untrained"))
    start = VideoMAEForPreTraining(untrained.config)
    initialize_lookup(start)
    assert all(torch.equal(untrained.state_dict()[name], one) for name, one in start.state_dict().items())
    tuned, control, scratch = (
        recipe_to_dict(saved_recipe(FinetuneRecipe, out / STARTS[name])) for name in (PRETRAINED, UNTRAINED, SCRATCH)
    )
    assert {one.name for one in recipe_differences(tuned, control)} == {"init", "optim.base_lr"}
    assert scratch["init"] is None
    assert scratch["model"]["overrides"]["hidden_size"] == tuned["model"]["overrides"]["hidden_size"]


@pytest.mark.parametrize(
    ("pretrained", "untrained", "verdict"),
    [
        (range(80), range(40), "pre-training helped (+40.0%, "),
        (range(40), range(80), "pre-training harmed (-40.0%, "),
        (range(52), range(50), "no effect of pre-training is shown (+2.0%, "),
    ],
)
def test_the_summary_says_what_the_paired_interval_says(pretrained: range, untrained: range, verdict: str) -> None:
    runs = {}
    for name, right in ((PRETRAINED, pretrained), (UNTRAINED, untrained)):
        rows = [
            VideoResult(path=f"{n:03d}.mp4", label=0, prediction=int(n not in right), probabilities=())
            for n in range(100)
        ]
        metrics = SimpleNamespace(top1=len(right) / 100, num_videos=100)
        runs[name] = SimpleNamespace(evaluation=SimpleNamespace(rows=rows, choice=metrics))
    # The tie is broken by videos that differ both ways.
    if verdict.startswith("no effect"):
        rows = runs[UNTRAINED].evaluation.rows
        runs[UNTRAINED].evaluation.rows = [replace(row, prediction=int(n < 50)) for n, row in enumerate(rows)]
    text = _summary(_Results([], runs, {}))  # type: ignore[arg-type]
    assert verdict in text
    assert f"it names {len(pretrained)}.0% of 100 others" in text
    assert f"the same model without pre-training {len(untrained)}.0%" in text


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
