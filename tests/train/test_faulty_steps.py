"""Steps that go wrong: gradients that are not finite, batches without a readable video, errors in the middle."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tolerances import assert_near, model_terms
from videomae.data.loader import epoch_order, train_loader
from videomae.data.scan import scan_unlabelled
from videomae.engine.checkpoint import latest_checkpoint, load_checkpoint
from videomae.engine.runlog import MetricsLog
from videomae.errors import CheckpointError, RunError
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD, VideoMAEForPreTraining
from videomae.processing.pixels import normalize
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe
from videomae.report.sections import training_section
from videomae.sharing.record import load_record
from videomae.train import loop as loop_module
from videomae.train.finetune import finetune
from videomae.train.pretrain import build_model, pretrain, training_data

Pretrain = Callable[..., PretrainRecipe]
Finetune = Callable[..., FinetuneRecipe]


def metrics(run: Path) -> list[dict[str, Any]]:
    return MetricsLog.read(run / "metrics.jsonl")


class BadGradient(torch.autograd.Function):
    """The identity, with gradients that are all NaN."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * math.nan


def faulty(bad_steps: set[int], change: Callable[[Tensor], Tensor]) -> type[VideoMAEForPreTraining]:
    """Return a class of model whose loss is changed in some of its forward passes, counted from 1."""

    class Faulty(VideoMAEForPreTraining):
        num_calls = 0

        def forward(self, *arguments: Any, **settings: Any) -> Any:
            output = super().forward(*arguments, **settings)
            type(self).num_calls += 1
            if self.num_calls in bad_steps:
                output.loss = change(output.loss)
            return output

    return Faulty


def test_a_step_with_a_nan_gradient_and_a_finite_loss_changes_nothing_and_is_logged(
    pretrain_recipe: Pretrain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = pretrain_recipe("--loop.keep_checkpoints", "8", "--loop.checkpoint_steps", "1")
    folder = pretrain(recipe, out=tmp_path / "run", model_class=faulty({4}, BadGradient.apply))
    before, after = (
        load_checkpoint(tmp_path / "run" / "checkpoints" / f"checkpoint-{step:08d}.pt") for step in (3, 4)
    )
    assert all(torch.equal(before["model"][name], after["model"][name]) for name in before["model"])
    states = before["optimizer"]["state"], after["optimizer"]["state"]
    assert len(states[0]) > 20
    for number in states[0]:
        assert all(torch.equal(states[0][number][name], states[1][number][name]) for name in states[0][number])

    records = metrics(tmp_path / "run")
    assert [record.get("skipped") for record in records] == [None, None, None, True, None, None, None, None]
    assert math.isnan(records[3]["grad_norm"])
    assert math.isfinite(records[3]["loss"])
    assert [Path(name).suffix for name in records[3]["videos"]] == [".mp4", ".mp4"]
    assert load_record(folder).to_dict()["training"]["skipped_steps"] == 1
    output = capsys.readouterr()
    assert "step 4 is skipped: its loss or gradient is not finite" in output.err
    assert "skipped 1 step because loss or gradient was not finite" in output.out


def test_a_loss_that_is_not_finite_stays_out_of_the_curves(pretrain_recipe: Pretrain, tmp_path: Path) -> None:
    pretrain(pretrain_recipe(), out=tmp_path / "run", model_class=faulty({3}, lambda loss: loss * math.inf))
    records = metrics(tmp_path / "run")
    assert "loss" not in records[2]
    assert records[2]["skipped"] is True
    assert training_section(records).blocks


def test_training_that_diverges_stops_names_the_videos_and_has_saved_finite_weights_only(
    pretrain_recipe: Pretrain, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = pretrain_recipe(
        "--loop.max_skipped_steps", "2", "--schedule.steps", "30", "--loop.checkpoint_steps", "4"
    )
    diverged = faulty(set(range(5, 31)), BadGradient.apply)
    with pytest.raises(
        RunError, match=r"is not finite in steps 5 to 8, more than loop.max_skipped_steps 2 in a"
    ) as one:
        pretrain(recipe, out=tmp_path / "run", model_class=diverged)
    records = metrics(tmp_path / "run")
    assert [record["step"] for record in records] == list(range(1, 9))
    assert [record["step"] for record in records if "skipped" in record] == [5, 6, 7, 8]
    for name in {name for record in records[4:] for name in record["videos"]}:
        assert name in str(one.value)
        assert Path(name).is_relative_to(labelled_folder)
    command = f"videomae pretrain --resume --out {tmp_path / 'run'}"
    assert f"saved at step 8; resume with: {command}" in capsys.readouterr().err
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        assert all(tensor.isfinite().all() for tensor in load_checkpoint(path)["model"].values())

    pretrain(recipe, out=tmp_path / "run", resume=True)  # the checkpoint is as good as the weights before the steps
    assert [record["step"] for record in metrics(tmp_path / "run")] == list(range(1, 31))


def test_weights_that_are_not_finite_are_not_saved(
    pretrain_recipe: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    update = loop_module.update_weights

    def poison(optimizer: torch.optim.AdamW, **settings: Any) -> None:
        update(optimizer, **settings)
        poison.calls += 1  # type: ignore[attr-defined]
        if poison.calls == 4:  # type: ignore[attr-defined]
            optimizer.param_groups[0]["params"][0].data[0] = math.nan

    poison.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(loop_module, "update_weights", poison)
    with pytest.raises(
        RunError, match=r"the weights after step 6 are not finite, first [a-z_.0-9]+, and are not saved"
    ):
        pretrain(pretrain_recipe(), out=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-00000003.pt"]
    assert [record["step"] for record in metrics(tmp_path / "run")] == list(range(1, 7))
    assert "saved at step 3; resume with: " in capsys.readouterr().err


def test_a_poisoned_checkpoint_of_an_earlier_version_is_refused_with_the_way_out(
    pretrain_recipe: Pretrain, tmp_path: Path
) -> None:
    pretrain(pretrain_recipe("--schedule.steps", "4"), out=tmp_path / "run")
    path = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert path is not None
    content = torch.load(path, weights_only=True)
    next(iter(content["state"]["model"].values())).flatten()[0] = math.nan
    torch.save(content, path)
    shutil.rmtree(tmp_path / "run" / "model")
    with pytest.raises(CheckpointError, match=r"00000004.pt has weights that are not finite, first .*: delete it"):
        pretrain(pretrain_recipe("--schedule.steps", "4"), out=tmp_path / "run", resume=True)


def break_videos(source: Path, target: Path, *names: str) -> Path:
    shutil.copytree(source, target)
    for name in names:
        (target / name).write_text("no video")
    return target


def test_a_step_without_a_readable_video_has_no_loss_and_does_not_train(
    pretrain_recipe: Pretrain, labelled_folder: Path, tmp_path: Path
) -> None:
    videos = break_videos(labelled_folder, tmp_path / "videos", "left/1.mp4", "right/2.mp4")
    words = ("--data.train", str(videos), "--loop.batch_size", "1", "--loop.max_bad_fraction", "0.5")
    pretrain(pretrain_recipe(*words, "--schedule.steps", "12"), out=tmp_path / "run")
    records = metrics(tmp_path / "run")
    empty = [record for record in records if record["clips"] == 0]
    assert len(empty) == 4  # two videos in each of two epochs
    assert all(record.keys() == {"step", "epoch", "lr", "clips"} for record in empty)
    assert all(record["loss"] > 0 for record in records if record["clips"])
    assert training_section(records).blocks


def test_a_fine_tuning_step_without_a_readable_video_has_no_loss(
    finetune_recipe: Finetune, labelled_folder: Path, tmp_path: Path
) -> None:
    videos = break_videos(labelled_folder, tmp_path / "videos", *(f"left/{number}.mp4" for number in range(3)))
    words = ("--data.train", str(videos), "--data.val", str(labelled_folder), "--loop.batch_size", "1")
    finetune(finetune_recipe(*words, "--loop.max_bad_fraction", "0.6"), out=tmp_path / "run")
    steps = [record for record in metrics(tmp_path / "run") if "evaluation" not in record]
    assert [("loss" in record, record["clips"]) for record in steps if record["clips"] == 0] == [(False, 0)] * 3


def test_a_black_clip_in_the_place_of_an_unreadable_video_changes_neither_loss_nor_gradients(
    pretrain_recipe: Pretrain, labelled_folder: Path, tmp_path: Path
) -> None:
    videos = break_videos(labelled_folder, tmp_path / "videos", "left/1.mp4")
    recipe = pretrain_recipe("--data.train", str(videos))
    manifest = scan_unlabelled(videos)
    model, _ = build_model(recipe)
    dataset = training_data(recipe, manifest, native_grid(model.config), device=torch.device("cpu"))
    ((batch,),) = train_loader(dataset, batch_size=6, num_workers=0, seed=0, start_step=0, total_steps=1)
    assert batch.num_readable == 5
    found = []
    for chosen in (torch.ones(6, dtype=torch.bool), batch.readable):
        assert batch.visible is not None
        assert batch.decoded is not None
        clips = normalize(batch.clips[chosen], torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))
        model.zero_grad()
        loss = model(clips, visible_indices=batch.visible[chosen], decoded_indices=batch.decoded[chosen]).loss
        loss.backward()
        found.append((loss.detach(), [one.grad for one in model.parameters() if one.grad is not None]))
    (loss, gradients), (wanted, wanted_gradients) = found
    terms = model_terms(model, tokens=16)
    assert_near(loss, wanted, terms=terms)
    assert len(gradients) > 20
    for one, other in zip(gradients, wanted_gradients, strict=True):
        assert_near(one, other, terms=6 * 16 * terms)


def test_a_fine_tuning_step_counts_readable_clips_alone(
    finetune_recipe: Finetune, labelled_folder: Path, tmp_path: Path
) -> None:
    videos = break_videos(labelled_folder, tmp_path / "videos", "left/1.mp4")
    words = ("--data.train", str(videos), "--data.val", str(labelled_folder), "--loop.batch_size", "6")
    run = finetune_recipe(*words, "--loop.max_bad_fraction", "0.5", "--schedule.steps", "2")
    finetune(run, out=tmp_path / "run")
    first = metrics(tmp_path / "run")[0]
    assert first["clips"] == 5
    assert 0 < first["loss"] < 10  # that of a black clip, without a class, would be infinite or an error


def test_one_unreadable_first_video_does_not_stop_a_run_with_batches_of_one(
    pretrain_recipe: Pretrain, labelled_folder: Path, tmp_path: Path
) -> None:
    words = ("--loop.batch_size", "1", "--schedule.steps", "3")
    videos = break_videos(labelled_folder, tmp_path / "videos", first_video(labelled_folder))
    pretrain(pretrain_recipe(*words, "--data.train", str(videos)), out=tmp_path / "run")
    assert [record["clips"] for record in metrics(tmp_path / "run")] == [0, 1, 1]


def test_too_many_bad_videos_stop_the_run_after_it_is_saved(
    pretrain_recipe: Pretrain, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copies = [f"left/copy{number}.mp4" for number in range(40)]
    videos = break_videos(labelled_folder, tmp_path / "videos", *copies[:8])
    for name in copies[8:]:
        shutil.copyfile(videos / "left" / "0.mp4", videos / name)
    recipe = pretrain_recipe(
        "--data.train",
        str(videos),
        "--schedule.steps",
        "90",
        "--loop.log_steps",
        "100",
        "--loop.checkpoint_steps",
        "90",
    )
    with pytest.raises(
        RunError, match=r"\d of 40 videos \(\d\d%\) cannot be read, more than loop.max_bad_fraction 0.05"
    ):
        pretrain(recipe, out=tmp_path / "run")
    assert [record["step"] for record in metrics(tmp_path / "run")] == list(range(1, 21))
    latest = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert latest is not None
    assert latest.name == "checkpoint-00000020.pt"
    assert "saved at step 20; resume with: videomae pretrain --resume --out " in capsys.readouterr().err


def test_an_error_in_a_step_saves_the_step_before_it_and_an_error_in_an_update_does_not(
    pretrain_recipe: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(loss: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        pretrain(pretrain_recipe(), out=tmp_path / "run", model_class=faulty({6}, fails))
    assert [record["step"] for record in metrics(tmp_path / "run")] == list(range(1, 6))
    assert "saved at step 5; resume with: " in capsys.readouterr().err

    def torn(optimizer: torch.optim.AdamW, **_: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "update_weights", torn)
        with pytest.raises(RuntimeError, match="out of memory"):
            pretrain(pretrain_recipe(), out=tmp_path / "run", resume=True)
    assert "saved at step 5; resume with: " in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints" / "checkpoint-00000006.pt").exists()

    folder = pretrain(pretrain_recipe(), out=tmp_path / "run", resume=True)
    whole = pretrain(pretrain_recipe(), out=tmp_path / "whole")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    found, expected = (load_file(one / "model.safetensors") for one in (folder, whole))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def first_video(folder: Path) -> str:
    """Return the video that a run with seed 0 reads first, by its path in the folder."""
    manifest = scan_unlabelled(folder)
    row = manifest.rows[epoch_order(len(manifest.rows), seed=0, epoch=0)[0]]
    return manifest.relative_path(row)
