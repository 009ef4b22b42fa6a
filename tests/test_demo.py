from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from videomae.cli import main
from videomae.engine.runlog import MetricsLog
from videomae.errors import RunError


@pytest.mark.slow
def test_the_report_on_own_clips_shows_the_numbers_of_the_metrics(
    labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_recipes(monkeypatch)
    out = tmp_path / "demo"
    assert main(["demo", "--data", str(labelled_folder), "--out", str(out), "--seed", "3"]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    for run in ("finetune", "from-random"):
        metrics = MetricsLog.read(out / run / "metrics.jsonl")[-1]["evaluation"]
        stored = json.loads((out / run / "model" / "videomae.json").read_text())["training"]["evaluation"]
        assert stored == metrics
        assert f"{metrics['top1']:.1%}" in page
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


def shorten_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for a few steps on six videos; everything else of the demonstration stays as it is."""
    import videomae.demo as demo
    from videomae.recipes.schema import load_recipe

    small = ["--schedule.steps", "4", "--loop.batch_size", "2", "--loop.workers", "0", "--clip.num_frames", "8"]

    def load(kind: type, name: str, words: list[str]) -> object:
        evaluation = (
            ["--evaluation.workers", "0", "--data.val_fraction", "0.34"] if "Finetune" in kind.__name__ else []
        )
        return load_recipe(kind, name, [*words, *small, *evaluation])

    monkeypatch.setattr(demo, "load_recipe", load)
