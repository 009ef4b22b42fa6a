"""A run small enough for a test: a network of two blocks on six tiny videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, load_recipe

NETWORK = {
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
SMALL = [
    *(word for name, value in NETWORK.items() for word in (f"--model.overrides.{name}", str(value))),
    *("--model.image_size", "32", "--clip.num_frames", "8", "--clip.stride", "1"),
    *("--loop.batch_size", "2", "--loop.workers", "0", "--loop.checkpoint_steps", "3", "--loop.log_steps", "2"),
]


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
