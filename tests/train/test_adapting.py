"""Frozen blocks, adapters, several labels and values: each as a whole run, and what its model folder then says."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.engine.runlog import MetricsLog
from videomae.errors import ConfigError, ManifestError
from videomae.evaluation.label_metrics import LabelMetrics
from videomae.evaluation.value_metrics import ValueMetrics
from videomae.inference.predictor import Predictor
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.recipes.schema import FinetuneRecipe, LoraConfig
from videomae.sharing.record import load_record
from videomae.train.finetune import build_classifier, finetune

Finetune = Callable[..., FinetuneRecipe]


@pytest.fixture
def listed(labelled_folder: Path, tmp_path: Path) -> Path:
    """The videos with a manifest of several labels and of a value, 100 for `left` and 140 for `right`."""
    folder = tmp_path / "listed"
    shutil.copytree(labelled_folder, folder)
    several, values = ["path,labels,group,split"], ["path,speed,group"]
    for number, path in enumerate(sorted(folder.rglob("*.mp4"))):
        name = path.relative_to(folder).as_posix()
        label = path.parent.name
        several.append(
            f"{name},{label}{';even' if number % 2 == 0 else ''},g{number},{'val' if number % 3 == 2 else 'train'}"
        )
        values.append(f"{name},{100 if label == 'left' else 140},g{number}")
    (folder / "several.csv").write_text("\n".join(several) + "\n")
    (folder / "values.csv").write_text("\n".join(values) + "\n")
    return folder


def test_frozen_blocks_stay_what_they_were_and_the_rest_is_trained(
    finetune_recipe: Finetune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = finetune_recipe("--head.freeze", "1", "--schedule.steps", "2", "--optim.base_lr", "0.1")
    before = build_classifier(recipe, ("left", "right"))[0].state_dict()
    result = finetune(recipe, out=tmp_path / "run")
    after = VideoMAEForVideoClassification.from_pretrained(result.model_folder).state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    frozen = {name for name in after if "embeddings" in name or "layer.0." in name}
    assert frozen
    assert changed.isdisjoint(frozen)
    assert any("layer.1." in name for name in changed)
    assert "classifier.weight" in changed
    assert "trained: the lower 1 of 2 blocks are frozen; " in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"head\.freeze is 3, but the encoder has 2 blocks: use 0 to 2"):
        finetune(finetune_recipe("--head.freeze", "3"), out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_adapters_are_trained_alone_resumed_exactly_and_merged_into_a_model_like_any_other(
    finetune_recipe: Finetune, labelled_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    words = ("--lora.rank", "4", "--lora.dropout", "0.1", "--optim.base_lr", "0.1", "--validation.every_steps", "2")
    recipe = finetune_recipe(*words, "--schedule.steps", "4")
    before = build_classifier(recipe, ("left", "right"))[0].state_dict()
    result = finetune(recipe, out=tmp_path / "run")
    after = VideoMAEForVideoClassification.from_pretrained(result.model_folder).state_dict()
    assert after.keys() == before.keys()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    heads = {"classifier.weight", "classifier.bias", "fc_norm.weight", "fc_norm.bias"}
    assert all(name in heads or name.endswith(("query.weight", "value.weight")) for name in changed)
    assert any(name.endswith("query.weight") for name in changed)
    prediction = Predictor(result.model_folder, device="cpu").predict(labelled_folder / "left" / "0.mp4")
    assert set(prediction.labels) == {"left", "right"}
    shutil.copytree(tmp_path / "run", tmp_path / "part")
    (tmp_path / "part" / "checkpoints" / "checkpoint-00000004.pt").unlink()
    shutil.rmtree(tmp_path / "part" / "model")
    finetune(recipe, out=tmp_path / "part", resume=True)
    whole, part = (MetricsLog.read(tmp_path / name / "metrics.jsonl") for name in ("run", "part"))
    assert part == whole


def test_a_missing_peft_is_told_before_the_run_folder_is_touched(
    finetune_recipe: Finetune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"needs peft, which cannot be imported .* 'videomae\[lora\]'"):
        finetune(finetune_recipe("--lora.rank", "4"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"lora\.targets is 'queries'; name some of query, key, value, dense"):
        LoraConfig(rank=4, targets="queries")


def test_several_labels_are_learnt_with_thresholds_that_predict_uses(
    finetune_recipe: Finetune, listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--data.train", str(listed / "several.csv"), "--head.class_weights", "balanced")
    recipe = finetune_recipe(*words, "--mix.mixup_alpha", "0.8", "--optim.base_lr", "0.05")
    result = finetune(recipe, out=tmp_path / "run")
    assert re.search(r"labels: 3, 1\.\d+ a video in the mean; binary cross entropy", capsys.readouterr().out)
    metrics = result.evaluation.metrics
    assert isinstance(metrics, LabelMetrics)
    config = json.loads((result.model_folder / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    thresholds = load_record(result.model_folder).thresholds
    assert thresholds is not None
    assert tuple(thresholds) == ("even", "left", "right")
    assert metrics.thresholds == tuple(thresholds.values())
    assert set(thresholds.values()) != {0.5}
    prediction = Predictor(result.model_folder, device="cpu").predict(listed / "left" / "0.mp4")
    assert prediction.present == tuple(
        score >= thresholds[label] for label, score in zip(prediction.labels, prediction.probabilities, strict=True)
    )


def test_thresholds_are_not_chosen_on_videos_of_the_split_test(
    finetune_recipe: Finetune, listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (listed / "several.csv").read_text().splitlines()
    for name, split in (("fit", "train"), ("judge", "test")):
        rows = [line.rpartition(",")[0] + f",{split}" for line in (lines[1:5] if split == "train" else lines[5:])]
        (listed / f"{name}.csv").write_text("\n".join([lines[0], *rows]) + "\n")
        (listed / f"{name}.classes.txt").write_text("even\nleft\nright\n")
    words = ("--data.train", str(listed / "fit.csv"), "--data.val", str(listed / "judge.csv"))
    result = finetune(finetune_recipe(*words, "--schedule.steps", "2"), out=tmp_path / "run")
    assert "thresholds stay at 0.5: the validation videos are of the split test" in capsys.readouterr().out
    assert load_record(result.model_folder).thresholds is None


def test_values_are_learnt_standardized_and_predicted_in_their_units(
    finetune_recipe: Finetune, listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = finetune_recipe("--data.train", str(listed / "values.csv"), "--data.values", "speed")
    result = finetune(recipe, out=tmp_path / "run")
    assert "values: speed 1" in capsys.readouterr().out
    assert isinstance(result.evaluation.metrics, ValueMetrics)
    losses = [one["loss"] for one in MetricsLog.read(tmp_path / "run" / "metrics.jsonl") if "loss" in one]
    assert 0.2 < np.mean(losses) < 3.0, "the loss is of standardized values, of variance 1"
    model = VideoMAEForVideoClassification.from_pretrained(result.model_folder)
    assert (model.config.problem_type, model.config.id2label) == ("regression", {0: "speed"})
    prediction = Predictor(result.model_folder, device="cpu").predict(listed / "left" / "0.mp4")
    assert prediction.activation == "none"
    assert 80 < prediction.probabilities[0] < 160, "near the mean of the values from the start"


def test_what_cannot_be_learnt_is_refused_before_anything_is_written(
    finetune_recipe: Finetune, listed: Path, tmp_path: Path
) -> None:
    several, values = ("--data.train", str(listed / "several.csv")), ("--data.train", str(listed / "values.csv"))
    cases: list[tuple[tuple[str, ...], type[Exception], str]] = [
        (
            (*several, "--head.problem_type", "single_label_classification"),
            ManifestError,
            "has 2 labels, and a",
        ),
        (
            (*several, "--data.sampling", "balanced"),
            ConfigError,
            "data.sampling is balanced, and the",
        ),
        (
            (*values, "--data.values", "weight"),
            ManifestError,
            "no column weight of values .further columns: speed",
        ),
        ((*several, "--data.values", "path"), ManifestError, "no column path of values"),
        ((*values, "--head.problem_type", "regression"), ManifestError, "no column label"),
    ]
    for words, kind, message in cases:
        with pytest.raises(kind, match=message):
            finetune(finetune_recipe(*words), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
