"""Cross-validation: groups whole, every video judged once by a model that has not seen it, killed runs go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from videomae.data.manifest import Manifest, VideoRow
from videomae.errors import ConfigError, ManifestError, RunError
from videomae.evaluation.results import load_evaluation
from videomae.recipes.schema import FinetuneData, FinetuneRecipe, load_recipe
from videomae.train.finetune import finetune
from videomae.train.labelled import fold_of

Finetune = Callable[..., FinetuneRecipe]


def made_up() -> Manifest:
    rows = [
        VideoRow(
            Path(f"/v/{number:02d}.mp4"), number % 2, group=f"g{number // 4}", split="test" if number > 35 else None
        )
        for number in range(40)
    ]
    return Manifest(Path("/v"), tuple(rows), ("a", "b"))


def test_every_video_is_validated_once_groups_stay_whole_and_test_rows_are_left_out() -> None:
    whole = made_up()
    seen: list[VideoRow] = []
    for fold in range(1, 4):
        train, val = fold_of(whole, folds=3, fold=fold, seed=0)
        assert {row.group for row in train.rows}.isdisjoint({row.group for row in val.rows})
        assert len(train.rows) + len(val.rows) == 36
        seen += val.rows
    assert sorted(row.path for row in seen) == [row.path for row in whole.rows[:36]]
    with pytest.raises(ManifestError, match=r"has 9 groups, which can be divided into 9 folds, and data"):
        fold_of(whole, folds=12, fold=1, seed=0)


def test_all_folds_are_trained_and_judged_together_and_a_killed_run_goes_on(
    finetune_recipe: Finetune, tmp_path: Path
) -> None:
    out = tmp_path / "folds"
    recipe = finetune_recipe("--data.folds", "3", "--schedule.steps", "2")
    result = finetune(recipe, out=out)
    assert [row.path for row in result.evaluation.rows] == [
        f"{name}/{number}.mp4" for name in ("left", "right") for number in range(3)
    ]
    for fold in range(1, 4):
        own = load_evaluation(out / f"fold-{fold}" / "evaluation.json")
        assert set(own.rows) <= set(result.evaluation.rows)
        assert load_recipe(FinetuneRecipe, out / f"fold-{fold}" / "recipe.yaml").data.fold == fold
    assert load_evaluation(out / "evaluation.json") == result.evaluation
    with pytest.raises(RunError, match="holds a run: give --resume to continue, --overwrite to replace it"):
        finetune(recipe, out=out)
    shutil.rmtree(out / "fold-3")
    shutil.rmtree(out / "fold-2" / "model")
    before = (out / "fold-1" / "metrics.jsonl").stat().st_mtime_ns
    assert finetune(recipe, out=out, resume=True).evaluation == result.evaluation
    assert (out / "fold-1" / "metrics.jsonl").stat().st_mtime_ns == before


def test_one_fold_alone_is_an_ordinary_run(finetune_recipe: Finetune, tmp_path: Path) -> None:
    recipe = finetune_recipe("--data.folds", "3", "--data.fold", "2", "--schedule.steps", "1")
    result = finetune(recipe, out=tmp_path / "two")
    assert result.model_folder == tmp_path / "two" / "model"
    assert len(result.evaluation.rows) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, r"data\.folds is 1; use at least 2"),
        ({"folds": 3, "fold": 4}, r"data\.fold is 4; it is one of data\.folds, 3, counted from 1"),
        ({"fold": 1}, r"data\.fold is 1; it is one of data\.folds, None"),
        ({"folds": 3, "val": Path("v")}, r"data\.val is v, and data\.folds 3 validates on parts of data\.train"),
    ],
)
def test_folds_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(FinetuneData(train=Path("t")), **settings)  # type: ignore[arg-type]
