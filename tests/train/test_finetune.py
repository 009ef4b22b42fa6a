from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from videomae.engine.runlog import MetricsLog
from videomae.errors import ConfigError, ManifestError, WeightsError
from videomae.evaluation.classes import model_targets
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, load_recipe, recipe_to_yaml
from videomae.sharing.conversion import convert_weights
from videomae.sharing.record import EvaluationSummary, load_record
from videomae.train.finetune import build_classifier, finetune
from videomae.train.labelled import labelled_videos, settle_flip, training_and_validation
from videomae.train.pretrain import pretrain

Pretrain = Callable[..., PretrainRecipe]
Finetune = Callable[..., FinetuneRecipe]


def test_fine_tuning_from_a_pretraining_run_takes_its_encoder_and_pools_by_mean(
    pretrain_recipe: Pretrain, finetune_recipe: Finetune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(pretrain_recipe("--schedule.steps", "2"), out=tmp_path / "pre")
    recipe = finetune_recipe("--init", str(tmp_path / "pre"))
    model, report = build_classifier(recipe, ("left", "right"))
    pretrained = load_file(tmp_path / "pre" / "model" / "model.safetensors")
    key = "videomae.encoder.layer.1.attention.output.dense.weight"
    assert torch.equal(model.state_dict()[key], pretrained[key])
    assert report is not None
    assert set(report.fresh) == {"fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"}
    assert all(
        name.startswith(("decoder", "encoder_to", "mask_token", "videomae.layernorm")) for name in report.unused
    )
    assert model.config.use_mean_pooling

    result = finetune(recipe, out=tmp_path / "fine")
    printed = capsys.readouterr().out
    assert "loaded: " in printed
    assert "randomly initialized: 4 tensors" in printed
    saved = VideoMAEForVideoClassification.from_pretrained(result.model_folder)
    assert saved.config.id2label == {0: "left", 1: "right"}
    record = load_record(result.model_folder)
    assert record.evaluation == EvaluationSummary.from_dict(result.evaluation.metrics_dict())
    last = MetricsLog.read(tmp_path / "fine" / "metrics.jsonl")[-1]
    assert last["evaluation"] == result.evaluation.metrics_dict()


@pytest.mark.slow
def test_two_classes_that_differ_in_motion_are_learnt(finetune_recipe: Finetune, tmp_path: Path) -> None:
    words = (
        "--schedule.steps",
        "160",
        "--optim.base_lr",
        "0.2",
        "--optim.layer_decay",
        "1",
        "--loop.batch_size",
        "4",
    )
    plain = ("--augment.flip", "false", "--augment.crop", "centre", "--head.label_smoothing", "0")
    result = finetune(finetune_recipe(*words, *plain), out=tmp_path / "run")
    losses = [one["loss"] for one in MetricsLog.read(tmp_path / "run" / "metrics.jsonl") if "loss" in one]
    assert sum(losses[-20:]) / 20 < 0.8 * sum(losses[:5]) / 5
    assert result.evaluation.metrics.num_videos == 3


def test_resuming_gives_the_uninterrupted_losses(finetune_recipe: Finetune, tmp_path: Path) -> None:
    recipe = finetune_recipe("--head.drop_path_rate", "0.2", "--head.dropout", "0.5")
    finetune(recipe, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    (tmp_path / "part" / "checkpoints" / "checkpoint-00000006.pt").unlink()
    finetune(recipe, out=tmp_path / "part", resume=True)
    whole, part = (MetricsLog.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "part"))
    assert part == whole


def test_a_finished_run_that_is_resumed_returns_its_evaluation_and_adds_no_second_one(
    finetune_recipe: Finetune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = finetune(finetune_recipe(), out=tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert finetune(finetune_recipe(), out=tmp_path / "run", resume=True) == first
    output = capsys.readouterr()
    assert output.out == f"the run in {tmp_path / 'run'} is finished: it has done its 6 steps and its evaluation\n"
    assert "evaluating" not in output.err
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_run_killed_before_its_model_was_complete_evaluates_again_and_keeps_one_evaluation(
    finetune_recipe: Finetune, tmp_path: Path
) -> None:
    first = finetune(finetune_recipe(), out=tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    (tmp_path / "run" / "model" / "videomae.json").unlink()
    assert finetune(finetune_recipe(), out=tmp_path / "run", resume=True) == first
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_the_head_starts_small(finetune_recipe: Finetune) -> None:
    small, _ = build_classifier(finetune_recipe(), ("a", "b"))
    whole, _ = build_classifier(finetune_recipe("--head.init_scale", "1.0"), ("a", "b"))
    assert torch.allclose(small.classifier.weight, 0.001 * whole.classifier.weight)


def test_a_classifier_with_other_classes_starts_with_a_fresh_head(finetune_recipe: Finetune, tmp_path: Path) -> None:
    first = finetune(finetune_recipe(), out=tmp_path / "first")
    recipe = finetune_recipe("--init", str(first.model_folder))
    model, report = build_classifier(recipe, ("a", "b", "c"))
    assert model.num_labels == 3
    assert report is not None
    assert set(report.fresh) == {"classifier.weight", "classifier.bias"}


def test_as_many_other_classes_start_with_a_fresh_head_too(finetune_recipe: Finetune, tmp_path: Path) -> None:
    first = finetune(finetune_recipe(), out=tmp_path / "first")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the report tells it
        model, report = build_classifier(finetune_recipe("--init", str(first.model_folder)), ("up", "down"))
    assert report is not None
    assert set(report.fresh) == {"classifier.weight", "classifier.bias"}
    assert model.config.id2label == {0: "up", 1: "down"}


def test_training_starts_from_the_authors_file_as_from_the_folder(
    pretrain_recipe: Pretrain, finetune_recipe: Finetune, tmp_path: Path
) -> None:
    folder = pretrain(pretrain_recipe("--schedule.steps", "2"), out=tmp_path / "pre")
    convert_weights(folder, tmp_path / "authors.pth", config_class=VideoMAEConfig, to="original")
    one, _ = build_classifier(finetune_recipe("--init", str(folder)), ("left", "right"))
    other, report = build_classifier(finetune_recipe("--init", str(tmp_path / "authors.pth")), ("left", "right"))
    assert report is not None
    assert report.layout.startswith("original")
    mine, theirs = one.state_dict(), other.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    assert other.training
    more = pretrain_recipe("--schedule.steps", "1", "--init", str(tmp_path / "authors.pth"))
    assert pretrain(more, out=tmp_path / "more").is_dir()


def test_a_checkpoint_of_another_architecture_is_refused_before_anything_is_written(
    pretrain_recipe: Pretrain, finetune_recipe: Finetune, tmp_path: Path
) -> None:
    pretrain(pretrain_recipe("--schedule.steps", "1"), out=tmp_path / "pre")
    config = tmp_path / "pre" / "model" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 32', '"hidden_size": 48'))
    with pytest.raises(WeightsError, match=r"says hidden_size 48, but the tensors have 32"):
        finetune(finetune_recipe("--init", str(tmp_path / "pre")), out=tmp_path / "fine")
    assert not (tmp_path / "fine").exists()


def test_a_validation_folder_may_lack_a_class(
    finetune_recipe: Finetune, labelled_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(labelled_folder / "right", tmp_path / "val" / "right")
    (tmp_path / "val" / "notes").mkdir()
    train, val = training_and_validation(finetune_recipe("--data.val", str(tmp_path / "val")))
    assert train.classes == ("left", "right")
    assert len(val.rows) == 3
    targets = model_targets(VideoMAEConfig(id2label=dict(enumerate(train.classes))), val)
    assert targets.values.tolist() == [1, 1, 1]


def test_one_skip_list_serves_the_videos_of_all_three_settings(
    finetune_recipe: Finetune, labelled_folder: Path, tmp_path: Path
) -> None:
    for name in ("val", "test"):
        for label in ("left", "right"):
            (tmp_path / name / label).mkdir(parents=True)
            for number in range(2):
                source = labelled_folder / label / f"{number}.mp4"
                shutil.copy(source, tmp_path / name / label / f"{name}{number}.mp4")
    skip = tmp_path / "skip.txt"
    skip.write_text("left/2.mp4\nleft/val0.mp4\nright/test1.mp4\n")
    words = ["--data.val", str(tmp_path / "val"), "--data.test", str(tmp_path / "test"), "--data.skip", str(skip)]
    videos = labelled_videos(finetune_recipe(*words))
    assert videos.test is not None
    assert [len(one.rows) for one in (videos.train, videos.val, videos.test)] == [5, 3, 3]
    skip.write_text("left/none.mp4\n")
    with pytest.raises(ManifestError, match=r"names 1 video not in .*labelled.* or .*val or .*test, first"):
        labelled_videos(finetune_recipe(*words))


def test_one_class_or_differing_validation_classes_are_refused(
    finetune_recipe: Finetune, labelled_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(labelled_folder / "left", tmp_path / "one" / "left")
    with pytest.raises(ManifestError, match="class"):
        finetune(finetune_recipe("--data.train", str(tmp_path / "one")), out=tmp_path / "run")
    shutil.copytree(labelled_folder, tmp_path / "other")
    (tmp_path / "other" / "left").rename(tmp_path / "other" / "up")
    with pytest.raises(ConfigError, match=r"data\.val has the classes right, up and data.train left, right"):
        finetune(finetune_recipe("--data.val", str(tmp_path / "other")), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mixed_clips_are_trained_on_and_resuming_gives_the_uninterrupted_losses(
    finetune_recipe: Finetune, tmp_path: Path
) -> None:
    words = ("--mix.mixup_alpha", "0.8", "--mix.cutmix_alpha", "1.0", "--head.init_scale", "1.0")
    recipe = finetune_recipe(*words)
    finetune(recipe, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    (tmp_path / "part" / "checkpoints" / "checkpoint-00000006.pt").unlink()
    finetune(recipe, out=tmp_path / "part", resume=True)
    finetune(finetune_recipe(*words[4:]), out=tmp_path / "plain")
    whole, part, plain = (MetricsLog.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "part", "plain"))
    assert part == whole
    assert whole[0]["loss"] != plain[0]["loss"]
    assert load_recipe(FinetuneRecipe, tmp_path / "whole" / "recipe.yaml").mix == recipe.mix


def test_a_run_with_all_augmentation_of_the_paper_resumes_to_the_uninterrupted_losses(
    finetune_recipe: Finetune, tmp_path: Path
) -> None:
    words = ["--augment.rand_augment", "true", "--augment.color_jitter", "0.4", "--augment.erasing_prob", "0.25"]
    words += ["--augment.repeats", "2", "--mix.mixup_alpha", "0.8", "--mix.cutmix_alpha", "1.0"]
    recipe = finetune_recipe(*words, "--loop.checkpoint_steps", "5", "--loop.workers", "1", "--schedule.steps", "8")
    finetune(recipe, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    (tmp_path / "part" / "checkpoints" / "checkpoint-00000008.pt").unlink()
    finetune(recipe, out=tmp_path / "part", resume=True)
    whole, part = (MetricsLog.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "part"))
    assert part == whole
    found, expected = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("part", "whole"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_missing_kornia_is_told_before_the_run_folder_is_touched(
    finetune_recipe: Finetune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    with pytest.raises(ConfigError, match=r"needs kornia, which cannot be imported .* 'videomae\[augment\]'"):
        finetune(finetune_recipe("--augment.rand_augment", "true"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_flip_is_switched_off_once_and_on_record_where_class_names_say_left_and_right(
    finetune_recipe: Finetune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = finetune_recipe("--schedule.steps", "4")
    assert recipe.augment.flip
    finetune(recipe, out=tmp_path / "run")
    line = (
        "augment.flip is switched off: a mirrored clip of left, right would be of another class; rename the classes"
    )
    assert line in capsys.readouterr().out
    assert not load_recipe(FinetuneRecipe, tmp_path / "run" / "recipe.yaml").augment.flip
    finetune(finetune_recipe("--schedule.steps", "4", "--augment.flip", "false"), out=tmp_path / "off")
    losses = [MetricsLog.read(tmp_path / name / "metrics.jsonl") for name in ("run", "off")]
    assert losses[0] == losses[1]
    shutil.rmtree(tmp_path / "run" / "model")
    (tmp_path / "run" / "checkpoints" / "checkpoint-00000004.pt").unlink()
    capsys.readouterr()
    finetune(recipe, out=tmp_path / "run", resume=True)
    assert "augment.flip" not in capsys.readouterr().out
    assert MetricsLog.read(tmp_path / "run" / "metrics.jsonl") == losses[0]


def test_a_run_that_has_flipped_directions_before_goes_on_as_it_has_started(
    finetune_recipe: Finetune, tmp_path: Path
) -> None:
    recipe = finetune_recipe()
    (tmp_path / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    assert settle_flip(recipe, ("left", "right"), out=tmp_path, resume=True) == recipe
    assert settle_flip(recipe, ("up", "down"), out=tmp_path, resume=False) == recipe
