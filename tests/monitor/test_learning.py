"""The monitor in a run: what it writes, that it changes no loss, and that a resumed run has the same lines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tiny_models import make_model
from videomae.data.synthetic import write_motion_videos
from videomae.engine.runlog import MetricsLog
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.monitor.history import MONITOR_FILE
from videomae.monitor.learning import replaced
from videomae.patches import gather_tokens, patchify
from videomae.recipes.schema import PretrainRecipe, load_recipe
from videomae.train.pretrain import pretrain

SMALL = """
model:
  preset: small
  image_size: 32
  overrides: {patch_size: 8, hidden_size: 32, num_hidden_layers: 3, num_attention_heads: 2, intermediate_size: 64,
    decoder_hidden_size: 16, decoder_num_hidden_layers: 1, decoder_num_attention_heads: 2,
    decoder_intermediate_size: 32, drop_path_rate: 0.2}
clip: {num_frames: 4, stride: 1}
mask: {ratio: 0.75}
optim: {base_lr: 0.05, min_lr: 0.0, betas: [0.9, 0.95]}
schedule: {steps: 12}
loop: {batch_size: 4, workers: 0, checkpoint_steps: 5, log_steps: 4}
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 small videos in a folder for each of eight classes."""
    root = tmp_path_factory.mktemp("motion") / "videos"
    write_motion_videos(root, videos_per_class=12, size=32, num_frames=8, seed=4)
    return root


Make = Callable[..., PretrainRecipe]


@pytest.fixture
def make(videos: Path, tmp_path: Path) -> Make:
    def recipe(*words: str, train: Path = videos) -> PretrainRecipe:
        path = tmp_path / "small.yaml"
        path.write_text(SMALL, encoding="utf-8")
        return load_recipe(PretrainRecipe, path, ["--data.train", str(train), *words])

    return recipe


def lines(run: Path) -> list[dict[str, Any]]:
    return MetricsLog.read(run / MONITOR_FILE)


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in MetricsLog.read(run / "metrics.jsonl")]


def test_a_run_is_measured_on_videos_that_it_does_not_train_on(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(make(), out=tmp_path / "run")
    first, *others = lines(tmp_path / "run")
    assert (first["num_clips"], first["unseen"], first["num_train"]) == (4, True, 91)
    assert first["baselines"].keys() == {"zero", "visible_mean", "copy_nearest", "interpolate"}
    assert [one["step"] for one in others] == [0, 1, 12]
    assert others[0]["train_loss"] is None
    trained = losses(tmp_path / "run")
    assert others[-1]["train_loss"] == pytest.approx(sum(trained[1:]) / 11)
    assert others[-1]["gradient_norms"].keys() == {"embeddings", "early", "middle", "late", "decoder"}
    assert len(others[-1]["attention_distance"]) == 3
    assert others[-1]["leak"] == 0.0
    assert 1.0 < others[-1]["effective_rank"] <= 32.0
    said = capsys.readouterr().err
    assert "monitor: 4 clips that are held out; losses without learning: the trivial prediction" in said
    assert "step 12: held-out loss " in said


def test_losses_and_weights_are_those_without_the_monitor(make: Make, videos: Path, tmp_path: Path) -> None:
    none_held_out = ("--monitor.held_out", "0", "--model.overrides.hidden_dropout_prob", "0.1")
    pretrain(make(*none_held_out), out=tmp_path / "with")
    pretrain(make(*none_held_out, "--monitor.enabled", "false"), out=tmp_path / "without")
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("with", "without")]
    assert weights[0] == weights[1]
    assert not lines(tmp_path / "with")[0]["unseen"]
    assert not (tmp_path / "without" / MONITOR_FILE).exists()


def test_black_clips_for_unreadable_videos_are_no_leaking_mask(make: Make, videos: Path, tmp_path: Path) -> None:
    shutil.copytree(videos, tmp_path / "videos")
    for path in sorted((tmp_path / "videos").rglob("*.mp4"))[::2]:
        path.write_text("no video")
    words = ("--loop.max_bad_fraction", "0.9", "--monitor.held_out", "0", "--monitor.max_cost", "0.5")
    pretrain(make(*words, train=tmp_path / "videos"), out=tmp_path / "run")
    read = [record["clips"] for record in MetricsLog.read(tmp_path / "run" / "metrics.jsonl")]
    assert min(read) < 4
    overlaps = [one["overlap"] for one in lines(tmp_path / "run") if "overlap" in one]
    assert len(overlaps) >= 2
    assert set(overlaps) == {0.0}


@pytest.mark.parametrize("killed_after", [5, 10])
def test_a_resumed_run_has_the_lines_of_the_uninterrupted_one(make: Make, tmp_path: Path, killed_after: int) -> None:
    often = ("--monitor.max_cost", "0.5", "--loop.batch_size", "16", "--loop.keep_checkpoints", "9")
    pretrain(make(*often), out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for path in (tmp_path / "part" / "checkpoints").iterdir():
        if int(path.stem.split("-")[1]) > killed_after:
            path.unlink()
    shutil.rmtree(tmp_path / "part" / "model")
    pretrain(load_recipe(PretrainRecipe, tmp_path / "part" / "recipe.yaml"), out=tmp_path / "part", resume=True)
    whole = lines(tmp_path / "whole")
    assert len(whole) > 6
    assert lines(tmp_path / "part") == whole
    assert losses(tmp_path / "part") == losses(tmp_path / "whole")


def test_a_measurement_that_a_kill_has_cost_is_made_up_for(make: Make, tmp_path: Path) -> None:
    often = ("--monitor.max_cost", "0.5", "--loop.batch_size", "16")
    recipe = make(*often, "--loop.checkpoint_steps", "1", "--loop.keep_checkpoints", "20")
    pretrain(recipe, out=tmp_path / "run")
    steps = [one["step"] for one in lines(tmp_path / "run")[1:]]
    step = steps[-2]
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        if int(path.stem.split("-")[1]) > step:
            path.unlink()
    shutil.rmtree(tmp_path / "run" / "model")
    log = tmp_path / "run" / MONITOR_FILE
    log.write_text("".join(log.read_text().splitlines(keepends=True)[: steps.index(step) + 1]))
    pretrain(load_recipe(PretrainRecipe, tmp_path / "run" / "recipe.yaml"), out=tmp_path / "run", resume=True)
    assert [one["step"] for one in lines(tmp_path / "run")[1:]] == steps


def test_a_run_of_a_version_without_a_monitor_goes_on_with_all_videos(make: Make, tmp_path: Path) -> None:
    pretrain(make("--monitor.enabled", "false"), out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    saved = tmp_path / "part" / "recipe.yaml"
    values = yaml.safe_load(saved.read_text(encoding="utf-8"))
    del values["monitor"]
    saved.write_text(yaml.safe_dump(values), encoding="utf-8")
    (tmp_path / "part" / "checkpoints" / "checkpoint-00000012.pt").unlink()
    shutil.rmtree(tmp_path / "part" / "model")
    pretrain(load_recipe(PretrainRecipe, saved), out=tmp_path / "part", resume=True)
    assert losses(tmp_path / "part") == losses(tmp_path / "whole")
    assert not (tmp_path / "part" / MONITOR_FILE).exists()


@pytest.mark.slow
def test_classes_that_folders_give_are_told_apart_by_features(make: Make, tmp_path: Path) -> None:
    pretrain(
        make(
            "--monitor.held_out",
            "0.5",
            "--monitor.max_cost",
            "0.5",
            "--loop.batch_size",
            "48",
            "--schedule.steps",
            "30",
        ),
        out=tmp_path / "run",
    )
    last = lines(tmp_path / "run")[-1]
    assert 0.0 <= last["neighbour_accuracy"] <= 1.0
    assert 0.0 <= last["probe_accuracy"] <= 1.0
    assert 0.0 <= last["attentive_accuracy"] <= 1.0
    assert 0.0 < last["majority"] < 1.0


def test_a_new_alarm_is_printed_once_and_recorded_at_each_measurement(
    make: Make, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for copy in "ab":
        shutil.copytree(videos, tmp_path / "twice" / f"{copy}set")
    pretrain(make(train=tmp_path / "twice"), out=tmp_path / "run")
    assert capsys.readouterr().err.count("warning: duplicated clips: 50% of the files are equal") == 1
    measured = lines(tmp_path / "run")[1:]
    assert all("duplicated clips" in [alarm["name"] for alarm in one["alarms"]] for one in measured)


def test_a_trial_of_a_few_steps_raises_nothing(make: Make, tmp_path: Path) -> None:
    pretrain(make(), out=tmp_path / "run")
    assert [one["alarms"] for one in lines(tmp_path / "run")[1:]] == [[], [], []]


class SeesHidden(VideoMAEForPreTraining):
    """Lets the mean of the whole clip into the predictions."""

    def forward(self, pixel_values: Tensor, *arguments: Any, **options: Any) -> Any:
        output = super().forward(pixel_values, *arguments, **options)
        output.logits = output.logits + pixel_values.mean()
        return output


def test_a_model_that_sees_hidden_pixels_is_found_before_the_first_step(make: Make, tmp_path: Path) -> None:
    pretrain(make(), out=tmp_path / "run", model_class=SeesHidden)
    assert [alarm["name"] for alarm in lines(tmp_path / "run")[1]["alarms"]] == ["leaking mask"]


def test_noise_replaces_hidden_pixels_alone() -> None:
    model = make_model(VideoMAEForPreTraining)
    clips, hidden = torch.zeros(2, 4, 3, 16, 16), torch.tensor([[0, 5], [7, 31]])
    patches = patchify(replaced(clips, hidden, model, generator=torch.Generator()), model.tubelet)
    changed = patches.abs().amax(dim=2) > 0
    assert changed.nonzero().tolist() == [[0, 0], [0, 5], [1, 7], [1, 31]]
    assert float(gather_tokens(patches, hidden).std()) == pytest.approx(1.0, abs=0.1)
