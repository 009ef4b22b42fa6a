from __future__ import annotations

from pathlib import Path

import pytest

from videomae.data.configs import AugmentConfig, MixConfig
from videomae.errors import ConfigError
from videomae.recipes.schema import (
    FinetuneRecipe,
    PretrainRecipe,
    load_recipe,
    recipe_differences,
    recipe_names,
    recipe_path,
    recipe_to_dict,
    recipe_to_yaml,
)

DATA = ["--data.train", "videos"]


def test_every_packaged_recipe_loads_and_says_where_it_comes_from() -> None:
    found = [(kind, name) for kind in (PretrainRecipe, FinetuneRecipe) for name in recipe_names(kind)]
    assert len(found) == 32
    for kind, name in found:
        recipe = load_recipe(kind, name, DATA)
        assert recipe.data.train == Path("videos")
        head = Path(recipe_path(kind, name)).read_text().split("model:")[0]
        for word in ("# What:", "# Command:", "# Source:", "# Result:"):
            assert word in head, (name, word)


def test_every_packaged_network_can_be_built() -> None:
    for name in recipe_names(PretrainRecipe):
        recipe = load_recipe(PretrainRecipe, name, DATA)
        config = recipe.model.build(recipe.clip, use_mean_pooling=False)
        assert config.num_frames == recipe.clip.num_frames
        assert config.image_size == recipe.model.image_size


@pytest.mark.parametrize(("name", "repeats"), [("kinetics400_base", 1), ("kinetics400_small", 2)])
def test_the_published_fine_tuning_recipes_have_the_published_augmentation(name: str, repeats: int) -> None:
    recipe = load_recipe(FinetuneRecipe, name, DATA)
    published = AugmentConfig(
        "resized",
        flip=True,
        repeats=repeats,
        rand_augment=True,
        rand_num_ops=4,
        rand_magnitude=7.0,
        erasing_prob=0.25,
    )
    assert recipe.augment == published
    assert recipe.mix == MixConfig(mixup_alpha=0.8, cutmix_alpha=1.0, mixup_prob=1.0, mixup_switch_prob=0.5)
    assert recipe.head.label_smoothing == 0.1


def test_no_other_packaged_recipe_augments_beyond_crop_and_flip() -> None:
    others = [
        (PretrainRecipe, name) for name in recipe_names(PretrainRecipe) if name != "one-gpu" and "v2_" not in name
    ]
    others += [(FinetuneRecipe, name) for name in ("demo", "laptop", "small-data", "tiny")]
    assert len(others) == 14
    for kind, name in others:
        augment = load_recipe(kind, name, DATA).augment
        assert augment == AugmentConfig(augment.crop, augment.flip), name


def test_an_override_wins_over_the_file_and_keeps_the_rest() -> None:
    recipe = load_recipe(PretrainRecipe, "tiny", [*DATA, "--optim.base_lr", "3e-4"])
    assert recipe.optim.base_lr == 3e-4
    assert recipe.optim.betas == load_recipe(PretrainRecipe, "tiny", DATA).optim.betas


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("data:\n  train: videos\noptim:\n  base_lr: 1e-3\n  min_lr: 1e-6\n  betas: [0.9, 0.95]\n")
    assert load_recipe(PretrainRecipe, file).optim.base_lr == 1e-3


def test_a_resolved_recipe_reads_back_equal(tmp_path: Path) -> None:
    for kind in (PretrainRecipe, FinetuneRecipe):
        recipe = load_recipe(kind, "tiny", DATA)
        file = tmp_path / "recipe.yaml"
        file.write_text(recipe_to_yaml(recipe))
        assert load_recipe(kind, file) == recipe


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--optim.bse_lr", "1"], "optim.bse_lr"),
        (["--optim.base_lr", "fast"], "optim.base_lr"),
        (["--mask.kind", "tub"], "mask.kind"),
        (["--mask.ratio", "90"], "did you mean 0.9?"),
        (["--clip.num_frames", "0"], "clip.num_frames is 0"),
    ],
)
def test_a_bad_override_is_an_error_of_one_line_that_names_it(arguments: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(PretrainRecipe, "tiny", [*DATA, *arguments])
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_key_in_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("data:\n  train: videos\noptim:\n  learning_rate: 1.0\n")
    with pytest.raises(ConfigError, match="learning_rate"):
        load_recipe(PretrainRecipe, file)


def test_a_missing_data_folder_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data\.train"):
        load_recipe(PretrainRecipe, "tiny")


def test_an_unknown_recipe_name_lists_the_packaged_ones() -> None:
    with pytest.raises(ConfigError, match=r"'huge' is no file and no packaged recipe.*tiny"):
        load_recipe(PretrainRecipe, "huge", DATA)


def test_an_override_that_has_its_own_place_is_refused() -> None:
    recipe = load_recipe(PretrainRecipe, "tiny", [*DATA, "--model.overrides.num_frames", "8"])
    with pytest.raises(ConfigError, match=r"model\.overrides\.num_frames is set by clip\.num_frames"):
        recipe.model.build(recipe.clip)


def test_an_unknown_network_field_is_named() -> None:
    recipe = load_recipe(PretrainRecipe, "tiny", [*DATA, "--model.overrides.hiden_size", "8"])
    with pytest.raises(ConfigError, match="unknown config field 'hiden_size': did you mean 'hidden_size'"):
        recipe.model.build(recipe.clip)


def test_differences_name_the_setting_and_both_values() -> None:
    old = recipe_to_dict(load_recipe(PretrainRecipe, "tiny", DATA))
    new = recipe_to_dict(load_recipe(PretrainRecipe, "tiny", [*DATA, "--loop.seed", "7"]))
    assert recipe_differences(old, new) == [("loop.seed", 0, 7)]
