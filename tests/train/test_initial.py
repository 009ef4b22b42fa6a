"""Starting from another model: a recipe that contradicts it is refused, and the saved recipe says what was built."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from videomae.errors import ConfigError
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.recipes.schema import FinetuneRecipe, NetworkConfig, PretrainRecipe, load_recipe
from videomae.train.finetune import build_classifier, finetune
from videomae.train.initial import as_built, check_agreement
from videomae.train.pretrain import build_model, pretrain
from videomae.train.resume import saved_recipe

Pretrain = Callable[..., PretrainRecipe]
Finetune = Callable[..., FinetuneRecipe]
BARE = ["--model.preset", "null", "--model.overrides", "{}"]


@pytest.fixture
def first(pretrain_recipe: Pretrain, tmp_path: Path) -> Path:
    """A finished pre-training run of one step: width 32, two blocks."""
    pretrain(pretrain_recipe("--schedule.steps", "1"), out=tmp_path / "first")
    return tmp_path / "first"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--model.preset", "large"], r"num_attention_heads is 2 in init, 16 by model\.preset large|patch_size"),
        (["--model.overrides.num_hidden_layers", "3"], r"num_hidden_layers is 2 in init, 3 by model\.overrides"),
        (["--model.overrides.qkv_bias", "false"], r"qkv_bias is True in init, False by model\.overrides"),
    ],
)
def test_a_preset_or_an_override_that_contradicts_init_is_refused(
    arguments: list[str],
    fault: str,
    first: Path,
    pretrain_recipe: Pretrain,
    finetune_recipe: Finetune,
    tmp_path: Path,
) -> None:
    bare = BARE if arguments[0] == "--model.preset" else []
    for recipe, run in ((pretrain_recipe, pretrain), (finetune_recipe, finetune)):
        with pytest.raises(ConfigError, match=fault) as error:
            run(recipe("--init", str(first), *bare, *arguments), out=tmp_path / "run")  # type: ignore[operator]
        assert "give --model.preset null --model.overrides '{}' to take init as it is" in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_decoder_size_is_a_contradiction_only_where_there_is_a_decoder(
    first: Path, pretrain_recipe: Pretrain, finetune_recipe: Finetune
) -> None:
    arguments = ["--init", str(first), "--model.overrides.decoder_hidden_size", "64"]
    with pytest.raises(ConfigError, match=r"decoder_hidden_size is 16 in init, 64 by model\.overrides"):
        build_model(pretrain_recipe(*arguments))
    assert build_classifier(finetune_recipe(*arguments), ("a", "b"))[1] is not None


def test_a_packaged_recipe_whose_overrides_agree_with_init_is_accepted() -> None:
    pre = load_recipe(PretrainRecipe, "tiny", ["--data.train", "videos"])
    fine = load_recipe(FinetuneRecipe, "tiny", ["--data.train", "videos"])
    config = pre.model.build(pre.clip, use_mean_pooling=False)
    check_agreement(fine.model, config, source="runs/pre", has_decoder=False)
    with pytest.raises(ConfigError, match="intermediate_size"):
        check_agreement(fine.model, config.replace(intermediate_size=7), source="runs/pre", has_decoder=False)
    # The demonstration's takes init as it is.
    demo = load_recipe(FinetuneRecipe, "demo", ["--data.train", "videos"])
    check_agreement(demo.model, config.replace(intermediate_size=7), source="runs/pre", has_decoder=False)


def test_the_published_sizes_agree_with_their_presets() -> None:
    for preset in ("small", "base", "large", "huge", "giant"):
        config = VideoMAEConfig.preset(preset, image_size=224)
        check_agreement(NetworkConfig(preset=preset), config, source="x", has_decoder=True)


def test_an_override_that_no_tensor_depends_on_is_applied_to_init(first: Path, pretrain_recipe: Pretrain) -> None:
    recipe = pretrain_recipe("--init", str(first), "--model.overrides.drop_path_rate", "0.2")
    assert build_model(recipe)[0].config.drop_path_rate == 0.2


def test_a_misspelt_override_is_named_with_init_too(first: Path, pretrain_recipe: Pretrain) -> None:
    recipe = pretrain_recipe("--init", str(first), "--model.overrides.hiden_size", "32")
    with pytest.raises(ConfigError, match="unknown config field 'hiden_size': did you mean 'hidden_size'"):
        build_model(recipe)


def test_an_override_that_has_its_own_place_is_refused_with_init_too(first: Path, finetune_recipe: Finetune) -> None:
    recipe = finetune_recipe("--init", str(first), "--model.overrides.drop_path_rate", "0.2")
    with pytest.raises(ConfigError, match=r"model\.overrides\.drop_path_rate is set by the run"):
        build_classifier(recipe, ("a", "b"))


def test_the_saved_recipe_says_what_was_built_from_init_and_builds_it_without(
    first: Path, pretrain_recipe: Pretrain, finetune_recipe: Finetune, tmp_path: Path
) -> None:
    pretrain(pretrain_recipe("--schedule.steps", "1", "--init", str(first), *BARE), out=tmp_path / "pre")
    finetune(finetune_recipe("--schedule.steps", "1", "--init", str(first), *BARE), out=tmp_path / "fine")
    pre, fine = saved_recipe(PretrainRecipe, tmp_path / "pre"), saved_recipe(FinetuneRecipe, tmp_path / "fine")
    built = VideoMAEConfig.from_pretrained(tmp_path / "pre")
    assert pre.model.build(pre.clip, use_mean_pooling=False) == built
    assert fine.model.overrides["hidden_size"] == 32
    assert "decoder_hidden_size" not in fine.model.overrides


def test_a_run_from_init_on_fewer_frames_interpolates_the_positions_as_a_call_does(
    finetune_recipe: Finetune, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    trained = VideoMAEModel(VideoMAEConfig(image_size=32, num_frames=8, **sizes)).eval()
    trained.save_pretrained(tmp_path / "trained")
    recipe = finetune_recipe("--init", str(tmp_path / "trained"), *BARE, "--clip.num_frames", "4")
    classifier, _ = build_classifier(recipe, ("a", "b"))
    assert (classifier.config.num_frames, classifier.config.position_grid) == (4, (4, 2, 2))
    clip = torch.randn(2, 4, 3, 32, 32)
    states = trained(clip).last_hidden_state
    torch.testing.assert_close(classifier.videomae.eval()(clip).last_hidden_state, states)
    fresh = VideoMAEModel.from_pretrained(tmp_path / "trained", num_frames=4, interpolate_positions=False)
    assert not torch.allclose(fresh(clip).last_hidden_state, states, atol=1e-3)
    # The saved recipe builds the same model without init.
    built = as_built(recipe.model, classifier.config, init=recipe.init, has_decoder=False)
    assert built.build(recipe.clip, num_labels=2).position_grid == (4, 2, 2)


def test_a_run_without_a_preset_says_which_was_taken(labelled_folder: Path, tmp_path: Path) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    small |= {f"decoder_{name}": value for name, value in small.items()}
    arguments = [word for name, value in small.items() for word in (f"--model.overrides.{name}", str(value))]
    tiny = ["--model.image_size", "32", "--clip.num_frames", "4", "--loop.workers", "0", "--schedule.steps", "1"]
    recipe = load_recipe(PretrainRecipe, "tiny", ["--data.train", str(labelled_folder), *BARE, *arguments, *tiny])
    assert recipe.model.preset is None
    pretrain(recipe, out=tmp_path / "run")
    assert saved_recipe(PretrainRecipe, tmp_path / "run").model.preset == "base"


def test_a_run_from_init_is_resumed_with_its_saved_recipe_and_with_the_one_it_was_given(
    first: Path, finetune_recipe: Finetune, tmp_path: Path
) -> None:
    recipe = finetune_recipe("--init", str(first), *BARE)
    finetune(recipe, out=tmp_path / "run")
    for number, again in enumerate((recipe, saved_recipe(FinetuneRecipe, tmp_path / "run"))):
        part = tmp_path / f"part-{number}"
        shutil.copytree(tmp_path / "run", part)
        (part / "checkpoints" / "checkpoint-00000006.pt").unlink()
        shutil.rmtree(part / "model")
        finetune(again, out=part, resume=True)
        assert saved_recipe(FinetuneRecipe, part) == saved_recipe(FinetuneRecipe, tmp_path / "run")


def test_a_run_from_init_of_an_older_version_which_wrote_a_preset_it_had_ignored_is_resumed(
    first: Path, pretrain_recipe: Pretrain, tmp_path: Path
) -> None:
    import yaml

    run = tmp_path / "run"
    pretrain(pretrain_recipe("--init", str(first), *BARE), out=run)
    values = yaml.safe_load((run / "recipe.yaml").read_text())
    values["model"].update(preset="base", overrides={})
    (run / "recipe.yaml").write_text(yaml.safe_dump(values))
    (run / "history.jsonl").unlink()
    (run / "checkpoints" / "checkpoint-00000008.pt").unlink()
    shutil.rmtree(run / "model")
    pretrain(saved_recipe(PretrainRecipe, run), out=run, resume=True)
    assert saved_recipe(PretrainRecipe, run).model.overrides["hidden_size"] == 32


@pytest.mark.parametrize(("width", "published"), [(192, False), (384, True)])
def test_a_classifier_narrower_than_any_released_one_starts_from_xavier_and_a_released_width_as_published(
    width: int, published: bool, finetune_recipe: Finetune
) -> None:
    sizes = {"hidden_size": width, "num_attention_heads": 6, "intermediate_size": 4 * width, "num_hidden_layers": 1}
    recipe = finetune_recipe("--model.overrides", json.dumps(sizes))
    model, report = build_classifier(recipe, ("a", "b"))
    assert report is None
    layer = model.videomae.encoder.layer[0]
    for weight, outputs in (
        (layer.attention.attention.query.weight, 3 * width),  # drawn with keys and values, as one matrix
        (layer.intermediate.dense.weight, 4 * width),
    ):
        xavier = (2 / (width + outputs)) ** 0.5
        expected = model.config.initializer_range if published else xavier
        assert weight.std().item() == pytest.approx(expected, rel=0.02)
    assert not layer.intermediate.dense.bias.any()
