from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe
from videomae.report.run_page import run_sections, write_run_page
from videomae.train.finetune import finetune
from videomae.train.pretrain import pretrain


@pytest.fixture
def recipes(labelled_folder: Path) -> Callable[..., object]:
    from videomae.recipes.schema import load_recipe

    def make(kind: type[PretrainRecipe] | type[FinetuneRecipe], *words: str) -> object:
        common = ("--data.train", str(labelled_folder), "--schedule.steps", "3", "--loop.batch_size", "2")
        return load_recipe(kind, "tiny", [*common, "--loop.workers", "0", *words])

    return make


def test_the_page_of_pre_training_shows_curves_the_monitor_and_every_setting(
    recipes: Callable[..., PretrainRecipe], tmp_path: Path
) -> None:
    run = tmp_path / "pre"
    pretrain(recipes(PretrainRecipe), out=run)
    titles = [one.title for one in run_sections(run)]
    assert titles == ["Is it learning?", "Training", "How it was made"]
    html = write_run_page(run).read_text(encoding="utf-8")
    assert "Training run pre" in html
    assert "optim.base_lr" in html
    assert "started" in html
    assert "commit of videomae" in html
    assert "<script" not in html


def test_the_page_of_fine_tuning_begins_with_the_validation(
    recipes: Callable[..., FinetuneRecipe], tmp_path: Path
) -> None:
    run = tmp_path / "fine"
    result = finetune(recipes(FinetuneRecipe), out=run)
    sections = run_sections(run)
    assert [one.title for one in sections] == ["Validation", "Training", "How it was made"]
    assert f"{result.evaluation.metrics.top1:.2%}" in write_run_page(run).read_text(encoding="utf-8")
