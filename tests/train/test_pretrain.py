from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from videomae.engine.runlog import MetricsLog
from videomae.errors import CheckpointError, ConfigError, RunError
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.recipes.schema import PretrainRecipe, load_recipe
from videomae.sharing.record import load_record
from videomae.train.pretrain import pretrain
from videomae.train.resume import resolve

Recipes = Callable[..., PretrainRecipe]


def steps(run: Path) -> list[dict[str, Any]]:
    return [record for record in MetricsLog.read(run / "metrics.jsonl") if "loss" in record]


def test_a_run_leaves_recipe_metrics_checkpoints_and_a_model_that_loads(
    pretrain_recipe: Recipes, tmp_path: Path
) -> None:
    recipe = pretrain_recipe()
    folder = pretrain(recipe, out=tmp_path / "run")
    run = tmp_path / "run"
    assert folder == run / "model"
    assert load_recipe(PretrainRecipe, run / "recipe.yaml") == resolve(recipe, run, resume=False)
    assert [record["step"] for record in steps(run)] == list(range(1, 9))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "checkpoint-00000006.pt",
        "checkpoint-00000008.pt",
    ]
    model = VideoMAEForPreTraining.from_pretrained(folder)
    assert model.config.use_mean_pooling is False
    record = load_record(folder).to_dict()
    assert record["clip"] == {"num_frames": 8, "stride": 1, "kind": "dense"}
    assert record["training"]["steps"] == 8


def test_the_loss_falls(pretrain_recipe: Recipes, tmp_path: Path) -> None:
    pretrain(pretrain_recipe("--schedule.steps", "60", "--optim.base_lr", "0.2"), out=tmp_path / "run")
    losses = [record["loss"] for record in steps(tmp_path / "run")]
    assert sum(losses[-10:]) / 10 < 0.9 * sum(losses[:10]) / 10


def test_the_same_seed_gives_the_same_run_and_another_seed_another(pretrain_recipe: Recipes, tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        pretrain(pretrain_recipe("--loop.seed", seed), out=tmp_path / name)
    losses = {name: [record["loss"] for record in steps(tmp_path / name)] for name in "abc"}
    assert losses["a"] == losses["b"]
    assert losses["a"] != losses["c"]


def test_resuming_after_a_stop_gives_the_uninterrupted_losses_with_drop_path_and_workers(
    pretrain_recipe: Recipes, tmp_path: Path
) -> None:
    recipe = pretrain_recipe(
        "--model.overrides.drop_path_rate", "0.3", "--model.overrides.hidden_dropout_prob", "0.1"
    )
    pretrain(recipe, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    (tmp_path / "part" / "checkpoints" / "checkpoint-00000008.pt").unlink()  # as if stopped after step 6
    other_workers = load_recipe(PretrainRecipe, tmp_path / "part" / "recipe.yaml", ["--loop.workers", "1"])
    pretrain(other_workers, out=tmp_path / "part", resume=True)
    assert steps(tmp_path / "part") == steps(tmp_path / "whole")
    whole, part = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "part"))
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_a_bad_video_is_skipped_and_named(
    pretrain_recipe: Recipes, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(labelled_folder, tmp_path / "videos")
    (tmp_path / "videos" / "left" / "broken.mp4").write_bytes(b"no video at all")
    recipe = pretrain_recipe("--data.train", str(tmp_path / "videos"), "--loop.max_bad_fraction", "0.5")
    folder = pretrain(recipe, out=tmp_path / "run")
    assert "skipped 1 video that could not be read:" in capsys.readouterr().out
    left_out = load_record(folder).to_dict()["training"]["videos_left_out"]
    assert [Path(path).name for path in left_out] == ["broken.mp4"]
    assert min(record["clips"] for record in steps(tmp_path / "run")) == 1


def test_too_many_bad_videos_stop_the_run(pretrain_recipe: Recipes, labelled_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(labelled_folder, tmp_path / "videos")
    for number in range(36):  # fewer than 40 videos are too few to judge
        path = tmp_path / "videos" / "left" / f"copy{number}.mp4"
        shutil.copyfile(labelled_folder / "left" / "0.mp4", path)
    for number in range(9):
        (tmp_path / "videos" / "left" / f"broken{number}.mp4").write_bytes(b"no video at all")
    recipe = pretrain_recipe("--data.train", str(tmp_path / "videos"), "--schedule.steps", "100")
    with pytest.raises(RunError, match=r"of \d+ videos \(\d+%\) cannot be read.*broken\d.mp4.*loop.max_bad_fraction"):
        pretrain(recipe, out=tmp_path / "run")


def test_an_existing_run_is_never_overwritten_unasked(pretrain_recipe: Recipes, tmp_path: Path) -> None:
    recipe = pretrain_recipe("--schedule.steps", "2")
    pretrain(recipe, out=tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match="holds a run already"):
        pretrain(recipe, out=tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    pretrain(recipe, out=tmp_path / "run", overwrite=True)


def test_a_run_cannot_be_resumed_with_other_settings_or_other_data(
    pretrain_recipe: Recipes, labelled_folder: Path, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(labelled_folder, videos)
    words = ("--data.train", str(videos), "--schedule.steps", "4")
    pretrain(pretrain_recipe(*words), out=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"loop\.seed: 0 -> 3"):
        pretrain(pretrain_recipe(*words, "--loop.seed", "3"), out=tmp_path / "run", resume=True)
    (videos / "left" / "0.mp4").unlink()
    with pytest.raises(CheckpointError, match=r"trained on other data than data\.train holds now"):
        pretrain(pretrain_recipe(*words), out=tmp_path / "run", resume=True)


def test_pretraining_goes_on_from_another_model(pretrain_recipe: Recipes, tmp_path: Path) -> None:
    first = pretrain(pretrain_recipe("--schedule.steps", "2"), out=tmp_path / "first")
    second = pretrain(
        pretrain_recipe("--schedule.steps", "1", "--init", str(tmp_path / "first"), "--schedule.warmup_steps", "1"),
        out=tmp_path / "second",
    )
    # The only step is the first of the warm-up, whose learning rate is 0: the weights are still the first model's.
    old, new = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert all(torch.equal(old[name], new[name]) for name in old)


class OtherModel(VideoMAEForPreTraining):
    """What a user might train instead; it leaves a mark in the loss."""

    def forward(self, *arguments: Any, **settings: Any) -> Any:
        output = super().forward(*arguments, **settings)
        output.loss = output.loss + 1000
        return output


def test_another_class_of_model_is_trained_without_a_change_of_the_loop(
    pretrain_recipe: Recipes, tmp_path: Path
) -> None:
    pretrain(pretrain_recipe("--schedule.steps", "2"), out=tmp_path / "run", model_class=OtherModel)
    assert all(record["loss"] > 1000 for record in steps(tmp_path / "run"))


def test_a_finished_run_that_is_resumed_is_left_as_it_is(
    pretrain_recipe: Recipes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = pretrain_recipe("--schedule.steps", "2")
    folder = pretrain(recipe, out=tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != "recipe.yaml"}
    capsys.readouterr()
    assert pretrain(recipe, out=tmp_path / "run", resume=True) == folder
    out = capsys.readouterr().out
    assert out == f"the run in {tmp_path / 'run'} is finished: it has done its 2 steps\n"
    assert {path: path.stat().st_mtime_ns for path in before if path != tmp_path / "run"} == {
        path: time for path, time in before.items() if path != tmp_path / "run"
    }


def test_repeated_augmentation_takes_as_many_steps_more_and_resumes_within_a_group(
    pretrain_recipe: Recipes, tmp_path: Path
) -> None:
    recipe = pretrain_recipe("--augment.repeats", "2", "--schedule.steps", "8", "--loop.workers", "1")
    pretrain(recipe, out=tmp_path / "whole")
    assert [record["epoch"] for record in steps(tmp_path / "whole")] == [round(step / 6, 4) for step in range(1, 9)]
    odd = dataclasses.replace(recipe, loop=dataclasses.replace(recipe.loop, checkpoint_steps=5))
    pretrain(odd, out=tmp_path / "part")
    (tmp_path / "part" / "checkpoints" / "checkpoint-00000008.pt").unlink()  # step 5 is the first of a group's two
    shutil.rmtree(tmp_path / "part" / "model")
    pretrain(odd, out=tmp_path / "part", resume=True)
    assert steps(tmp_path / "part") == steps(tmp_path / "whole")


def test_procedural_clips_are_not_repeated(pretrain_recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"augment\.repeats is 2, which spares decoding, but the clips of procedural:"
    ):
        pretrain(pretrain_recipe("--data.train", "procedural:", "--augment.repeats", "2"), out=tmp_path / "run")
