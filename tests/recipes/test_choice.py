from __future__ import annotations

import pytest

from videomae.recipes.choice import CHOICES, choice_line, choose_recipe
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, load_recipe


@pytest.mark.parametrize(
    ("device", "num_videos", "recipe"),
    [
        ("cpu", 1, "laptop"),
        ("cpu", 10**6, "laptop"),
        ("mps", 10**6, "laptop"),
        ("cuda", 1, "small-data"),
        ("cuda", 4_999, "small-data"),
        ("cuda", 5_000, "one-gpu"),
        ("cuda", 240_000, "one-gpu"),
    ],
)
def test_the_recipe_follows_from_the_device_and_the_number_of_videos(
    device: str, num_videos: int, recipe: str
) -> None:
    assert choose_recipe(device, num_videos=num_videos).recipe == recipe


def test_every_chosen_recipe_exists_for_both_kinds_and_those_for_a_cpu_have_a_bounded_number_of_steps() -> None:
    for choice in CHOICES:
        for kind in (PretrainRecipe, FinetuneRecipe):
            recipe = load_recipe(kind, choice.recipe, ["--data.train", "videos"])
            if "cpu" in choice.devices:
                assert recipe.schedule.steps is not None
                assert recipe.schedule.steps <= 1000


def test_the_choice_is_told_with_its_reason_and_how_to_take_another() -> None:
    line = choice_line(PretrainRecipe, choose_recipe("cpu", num_videos=16), "cpu", num_videos=16)
    assert line.startswith("recipe: laptop, chosen for 16 videos on cpu (continues from the encoder that ships")
    assert line.endswith(", tiny, ucf101_base, v2_base, v2_giant, v2_huge, v2_large, or a YAML file")
