from __future__ import annotations

from pathlib import Path

import pytest

from videomae.cli import main
from videomae.errors import ConfigError
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, load_recipe, recipe_names
from videomae.train.configs import PlanConfig
from videomae.train.dry_run import dry_run

DATA = ["--data.train", "not-there"]


def test_the_published_base_run_is_told_as_published() -> None:
    recipe = load_recipe(
        PretrainRecipe, "kinetics400_base", [*DATA, "--loop.device", "cuda", "--loop.micro_batch", "64"]
    )
    lines = dry_run(recipe, PlanConfig(rate=8000, num_videos=240_000, processes=8))
    assert lines[0] == "dry run: nothing is trained or written"
    assert "parameters: 94,210,944" in lines
    assert "steps: 93,600, 800 epochs of 240,000 videos, 191,692,800 clips" in lines
    assert "global batch: 2048 clips a step, 8 processes of 256, 64 per forward pass in 4 parts" in lines
    assert any(
        line.startswith("learning rate: 0.0012 at its peak (optim.base_lr 0.00015 x 2048 / 256)") for line in lines
    )
    assert any("4,680 steps of warm-up, then a half cosine down to 8e-05" in line for line in lines)
    assert "tokens a clip: 1568 (160 visible, 1408 decoded)" in lines
    assert any(line.startswith("memory of a step: ") for line in lines)
    assert lines[-1] == "duration: about 6 h 40 min (6.7 h) at 8,000 clips/s"


def test_the_largest_model_is_planned_without_its_weights() -> None:
    recipe = load_recipe(FinetuneRecipe, "v2_giant", [*DATA, "--loop.device", "cuda"])
    lines = dry_run(recipe, PlanConfig(num_videos=240_000, processes=64))
    assert "global batch: 384 clips a step, 64 processes of 6" in lines
    assert lines[-1] == "duration: give --plan.rate CLIPS_PER_SECOND to have it computed"


def test_fsdp_divides_weights_and_their_state_among_the_processes() -> None:
    words = [*DATA, "--loop.device", "cuda", "--parallel.kind"]
    ddp, fsdp = (
        dry_run(load_recipe(PretrainRecipe, "v2_giant", [*words, kind]), PlanConfig(num_videos=10**6, processes=64))
        for kind in ("ddp", "fsdp")
    )
    weights = [float(lines[7].split("weights ")[1].split(",")[0]) for lines in (ddp, fsdp)]
    assert weights[0] > 50 * weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [PretrainRecipe, FinetuneRecipe])
def test_every_packaged_recipe_from_random_weights_can_be_planned(
    kind: type[PretrainRecipe] | type[FinetuneRecipe],
) -> None:
    for name in recipe_names(kind):
        recipe = load_recipe(kind, name, [*DATA, "--init", "null", "--loop.device", "cuda"])
        assert len(dry_run(recipe, PlanConfig(num_videos=50_000, processes=8))) == 9, name


def test_a_dry_run_counts_the_videos_that_are_there_and_writes_nothing(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", str(labelled_folder), "--config", "tiny", "--dry-run", "--plan.rate", "10"]) == 0
    printed = capsys.readouterr().out
    assert "dry run: nothing is trained or written" in printed
    assert "clips/s" in printed.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_without_a_dry_run_the_folder_of_the_run_is_still_asked_for(
    labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", str(labelled_folder), "--config", "tiny"]) == 2
    assert "required: out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["rate", "num_videos", "processes"])
def test_a_plan_out_of_range_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"plan\.{name} is 0; use a number above 0"):
        PlanConfig(**{name: 0})  # type: ignore[arg-type]
