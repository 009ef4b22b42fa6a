"""Commands without a model take the shipped one and say so; a model before the videos is told from the videos."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from test_cli import SIZES
from videomae.cli import main
from videomae.errors import ConfigError
from videomae.inference.features import load_features
from videomae.inference.files import split_model
from videomae.model.config import VideoMAEConfig
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.recipes.schema import FinetuneRecipe
from videomae.train.resume import saved_recipe

SHIPPED_WIDTH = 256
# Few clips: the shipped model takes seconds for a batch of its recipe on an old processor.
SMALL_STEP = ["--schedule.steps", "1", "--loop.batch_size", "2", "--loop.workers", "0", "--loop.device", "cpu"]
ONE_STEP = [*SMALL_STEP, "--evaluation.workers", "0", "--evaluation.views.num_clips", "1"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "pre"
    torch.manual_seed(0)
    VideoMAEForPreTraining(VideoMAEConfig(**SIZES, use_mean_pooling=False)).save_pretrained(folder)
    return folder


@pytest.fixture
def video(labelled_folder: Path) -> str:
    return str(labelled_folder / "left" / "0.mp4")


def widths(path: Path) -> list[int]:
    return [one.features.shape[-1] for one in load_features(path).videos]


def test_features_without_a_model_are_those_of_the_shipped_one_and_say_so(
    video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["features", video, video, "--out", str(tmp_path / "f.safetensors")]) == 0
    assert widths(tmp_path / "f.safetensors") == [SHIPPED_WIDTH] * 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("model: default")]
    assert len(told) == 1
    assert "procedural video only, Apache-2.0" in told[0]


@pytest.mark.parametrize("form", ["--model MODEL VIDEO", "MODEL VIDEO", "VIDEO --model MODEL"])
def test_a_named_model_is_taken_without_a_word_about_another(
    form: str, pretrained: Path, video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [{"MODEL": str(pretrained), "VIDEO": video}.get(word, word) for word in form.split()]
    assert main(["features", *words, "--out", str(tmp_path / "f.safetensors")]) == 0
    assert widths(tmp_path / "f.safetensors") == [SIZES["hidden_size"]]
    assert "model: default" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["default"], ["--model", "default"]])
def test_reconstruct_draws_with_the_shipped_model(words: list[str], video: str, tmp_path: Path) -> None:
    out = tmp_path / "strip.png"
    assert main(["reconstruct", *words, video, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_reconstruct_refuses_two_videos(video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstruct", video, video, "--out", str(tmp_path / "strip.png")]) == 2
    assert "draws one video and is given 2" in capsys.readouterr().err


def test_a_folder_with_a_model_and_videos_is_an_error_with_the_fix(
    pretrained: Path, video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = tmp_path / "both"
    shutil.copytree(pretrained, both)
    shutil.copy(video, both / "a.mp4")
    assert main(["features", str(both), video, "--out", str(tmp_path / "f.safetensors")]) == 2
    assert f"give --model {both} for its model, or --model default (or another) for its videos" in (
        capsys.readouterr().err
    )
    assert main(["features", "--model", "default", str(both), "--out", str(tmp_path / "f.safetensors")]) == 0


def test_what_stands_first_is_a_model_by_what_it_is(pretrained: Path, labelled_folder: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.touch()
    models = [
        "default",
        str(pretrained),
        str(pretrained / "model.safetensors"),
        str(weights),
        "owner/name",
        "nowhere",
    ]
    for model in models:
        assert split_model([model, "clip.mp4"]) == (model, ["clip.mp4"])
    for first in (str(labelled_folder), str(labelled_folder / "left" / "0.mp4"), "missing.MP4", "./missing.avi"):
        assert split_model([first, "clip.mp4"]) == (None, [first, "clip.mp4"])


@pytest.mark.parametrize("model", ["default", "PRETRAINED"])
def test_a_model_alone_is_an_error_that_asks_for_videos(model: str, pretrained: Path) -> None:
    with pytest.raises(ConfigError, match="is a model, and no videos follow it"):
        split_model([str(pretrained) if model == "PRETRAINED" else model])


def test_a_folder_named_default_before_the_videos_is_not_shadowed(
    pretrained: Path, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pretrained, tmp_path / "default")
    out = tmp_path / "f.safetensors"
    assert main(["features", "default", video, "--out", str(out)]) == 2
    assert "write ./default for what lies there" in capsys.readouterr().err
    assert main(["features", "./default", video, "--out", str(out)]) == 0
    assert widths(out) == [SIZES["hidden_size"]]
    assert main(["features", video, "--out", str(out)]) == 0  # nothing is named, so nothing is ambiguous
    assert widths(out) == [SHIPPED_WIDTH]


def test_finetune_without_a_model_starts_from_the_shipped_one_with_its_size_and_clip(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["finetune", str(labelled_folder), "--data.val_fraction", "0.34", *ONE_STEP, "--out", str(run)]) == 0
    captured = capsys.readouterr()
    assert "model: default, since none is named" in captured.err
    assert "--init names another" in captured.err
    assert "model, image size and clip: those of default, not the recipe's" in captured.out
    recipe = saved_recipe(FinetuneRecipe, run)
    assert recipe.init == "default"
    assert (recipe.model.image_size, recipe.clip.num_frames, recipe.clip.stride) == (64, 16, 2)
    assert recipe.model.overrides["hidden_size"] == SHIPPED_WIDTH


def test_finetune_from_random_weights_is_asked_for_with_null(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--model.image_size", "32", "--clip.num_frames", "4", "--data.val_fraction", "0.34"]
    run = tmp_path / "run"
    assert main(["finetune", str(labelled_folder), "--init", "null", *small, *ONE_STEP, "--out", str(run)]) == 0
    captured = capsys.readouterr()
    assert "model: default" not in captured.err
    assert "weights: randomly initialized" in captured.out


CONTRADICTIONS = {
    "recipe of another size": (["--config", "tiny", "--init", "default"], "init default is another model than"),
    "other sizes": (["--model.overrides.hidden_size", "64"], "hidden_size is 256 in init, 64 by model.overrides"),
    "preset alone": (["--model.preset", "small"], "--model.preset is given without --config"),
    "preset and init": (
        ["--config", "kinetics400_small", "--init", "default"],
        "hidden_size is 256 in init, 384 by model.preset small",
    ),
    "model for init": (["--model", "default"], "the model to start from is --init default"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_with_the_shipped_model_is_one_line(
    case: str, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, named = CONTRADICTIONS[case]
    assert main(["finetune", str(labelled_folder), *options, "--out", str(tmp_path / "run")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert named in line
    assert not (tmp_path / "run").exists()


def test_pretrain_with_the_chosen_recipe_goes_on_from_the_shipped_model_beside_a_folder_of_its_name_too(
    labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    one_step = [*SMALL_STEP, "--monitor.enabled", "false"]
    assert main(["pretrain", str(labelled_folder), *one_step, "--out", "run"]) == 0
    assert "model: default, since none is named" in capsys.readouterr().out
    assert main(["pretrain", str(labelled_folder), *one_step, "--config", "laptop", "--out", "other"]) == 2
    assert "write ./default for what lies there" in capsys.readouterr().err
    assert main(["pretrain", str(labelled_folder), *one_step, "--init", "null", "--out", "random"]) == 0
    assert "weights: randomly initialized" in capsys.readouterr().out
