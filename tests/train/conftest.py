"""A run small enough for a test: a network of two blocks on six tiny videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from small_runs import SMALL
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, load_recipe


@pytest.fixture
def pretrain_recipe(labelled_folder: Path) -> Callable[..., PretrainRecipe]:
    def make(*words: str) -> PretrainRecipe:
        base = ["--data.train", str(labelled_folder), "--mask.ratio", "0.75", "--schedule.steps", "8"]
        base += ["--monitor.enabled", "false"]  # whose tests are in tests/monitor
        return load_recipe(PretrainRecipe, "tiny", [*base, *SMALL, *words])

    return make


@pytest.fixture
def finetune_recipe(labelled_folder: Path) -> Callable[..., FinetuneRecipe]:
    def make(*words: str) -> FinetuneRecipe:
        base = ["--data.train", str(labelled_folder), "--data.val_fraction", "0.34", "--schedule.steps", "6"]
        evaluation = ["--evaluation.workers", "0"]
        return load_recipe(FinetuneRecipe, "tiny", [*base, *SMALL, *evaluation, *words])

    return make
