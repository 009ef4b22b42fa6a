"""Validation during training, the best weights, and the final evaluations."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from videomae.engine.runlog import MetricsLog
from videomae.errors import ConfigError
from videomae.evaluation.configs import ValidationConfig
from videomae.evaluation.evaluator import evaluate_folder
from videomae.evaluation.results import load_evaluation
from videomae.recipes.schema import FinetuneRecipe
from videomae.sharing.record import load_record
from videomae.train.finetune import finetune

Finetune = Callable[..., FinetuneRecipe]
VALIDATED = ("--validation.every_steps", "2", "--optim.base_lr", "0.05", "--head.init_scale", "1.0")


def validations(folder: Path) -> list[dict[str, object]]:
    return [one for one in MetricsLog.read(folder / "metrics.jsonl") if "validation" in one]


@pytest.fixture(scope="module")
def whole(
    labelled_folder: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """A finished run with validation after every second of its eight steps."""
    from videomae.recipes.schema import load_recipe

    from .conftest import SMALL

    words = ["--data.train", str(labelled_folder), "--data.val_fraction", "0.34", "--schedule.steps", "8"]
    recipe = load_recipe(FinetuneRecipe, "tiny", [*words, *SMALL, "--evaluation.workers", "0", *VALIDATED])
    folder = tmp_path_factory.mktemp("measured") / "run"
    finetune(recipe, out=folder)
    return folder
