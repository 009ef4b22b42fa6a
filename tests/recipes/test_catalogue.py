from __future__ import annotations

import pytest

from videomae.errors import ConfigError
from videomae.recipes.catalogue import NO_VALUE, explained, packaged, packaged_recipes
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, load_recipe, recipe_to_dict

PUBLISHED = ("kinetics400", "ssv2", "ucf101", "hmdb51", "v2")


def test_every_published_result_is_marked_as_published_and_not_measured() -> None:
    rows = [one for one in packaged_recipes() if one.name.startswith(PUBLISHED)]
    assert len(rows) == 22
    for one in rows:
        assert one.result.startswith(("published: ", "none published")), one.name
        assert one.result.endswith("Not measured here."), one.name


def test_every_published_recipe_has_a_command_for_one_process_and_one_for_many() -> None:
    for one in packaged_recipes():
        if one.name.startswith(PUBLISHED):
            single, many = one.command.splitlines()
            assert single.startswith(f"videomae {one.kind} ")
            assert many.startswith(f"torchrun --nproc-per-node 8 -m videomae {one.kind} ")
            assert single.split()[2:] == many.split()[6:], "the same words"


def test_a_value_is_explained_with_its_meaning_and_origin() -> None:
    (recipe,) = packaged("v2_giant", "pretrain")
    rows = {one.name: one for one in explained(recipe)}
    assert (rows["optim.clip_grad"].value, rows["optim.clip_grad"].origin) == ("0.02", "recipe")
    assert (rows["optim.eps"].value, rows["optim.eps"].origin) == ("1.0e-08", "default")
    assert rows["data.train"].value == NO_VALUE
    assert rows["optim.base_lr"].meaning == "Peak learning rate for a batch size of 256 clips, > 0."
    assert rows["model.overrides"].value == "{layer_norm_eps: 1.0e-06}"


@pytest.mark.parametrize("kind", [PretrainRecipe, FinetuneRecipe])
def test_the_explanation_lists_every_field_once(kind: type[PretrainRecipe] | type[FinetuneRecipe]) -> None:
    def names(values: dict[str, object], prefix: str = "") -> list[str]:
        rows: list[str] = []
        for name, value in values.items():
            deeper = isinstance(value, dict) and name != "overrides"
            rows += names(value, f"{prefix}{name}.") if deeper else [f"{prefix}{name}"]  # type: ignore[arg-type]
        return rows

    recipe = recipe_to_dict(load_recipe(kind, "tiny", ["--data.train", "videos"]))
    (found,) = packaged("tiny", "pretrain" if kind is PretrainRecipe else "finetune")
    assert [one.name for one in explained(found)] == names(recipe)


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no packaged recipe 'k400'.* use one of demo, .*v2_giant"):
        packaged("k400")


# Batch, rate of a step and length of the authors' scripts: shared facts, independent of the YAML files.
SCRIPTS = [
    ("kinetics400_small", 1024, 1, 6e-4, 1600),
    ("kinetics400_base", 2048, 1, 1.2e-3, 800),
    ("kinetics400_large", 512, 1, 3e-4, 1600),
    ("kinetics400_huge", 1024, 1, 6e-4, 1600),
    ("ssv2_small", 2048, 1, 1.2e-3, 2400),
    ("ssv2_base", 2048, 1, 1.2e-3, 800),
    ("ucf101_base", 192, 1, 2.25e-4, 3200),
    ("v2_base", 1024, 4, 4e-3, 200),
    ("v2_large", 1536, 4, 6e-3, 300),
    ("v2_huge", 2048, 4, 8e-3, 300),
    ("v2_giant", 2048, 4, 4.8e-3, 300),
]
FINETUNING_SCRIPTS = [
    ("kinetics400_small", 384, 2, 7.5e-4, 150),
    ("kinetics400_base", 512, 1, 2e-3, 100),
    ("kinetics400_large", 128, 2, 1e-3, 35),
    ("kinetics400_huge", 512, 2, 2e-3, 50),
    ("ssv2_small", 384, 2, 1.5e-3, 40),
    ("ssv2_base", 512, 1, 1e-3, 50),
    ("ucf101_base", 128, 2, 2.5e-4, 100),
    ("v2_base", 512, 2, 1.4e-3, 90),
    ("v2_giant", 192, 2, 7.5e-4, 30),
]


@pytest.mark.parametrize(
    ("kind", "row"),
    [*((PretrainRecipe, one) for one in SCRIPTS), *((FinetuneRecipe, one) for one in FINETUNING_SCRIPTS)],
)
def test_a_step_has_the_videos_and_the_rate_of_the_authors_script(
    kind: type[PretrainRecipe] | type[FinetuneRecipe], row: tuple[str, int, int, float, int]
) -> None:
    name, videos, clips_of_each, rate, epochs = row
    recipe = load_recipe(kind, name, ["--data.train", "videos"])
    assert recipe.augment.repeats == clips_of_each
    assert recipe.loop.batch_size == videos * clips_of_each
    assert recipe.optim.base_lr * recipe.loop.batch_size / 256 == pytest.approx(rate)
    assert recipe.schedule.epochs == epochs
