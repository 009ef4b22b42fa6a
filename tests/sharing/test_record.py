"""One typed record of a model, written and read in one place; it stays small, and old files are still read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomae.errors import ConfigError, WeightsError
from videomae.evaluation.evaluator import EvaluationConfig, EvaluationResult
from videomae.evaluation.metrics import compute_metrics
from videomae.sharing.record import (
    MAX_NAMED_VIDEOS,
    MAX_WRITTEN_BYTES,
    EvaluationSummary,
    ModelRecord,
    TrainingRecord,
    as_record,
    load_record,
    save_record,
)
from videomae.video.sampling import ClipConfig
from videomae.weights.json_files import MAX_JSON_BYTES

CLIP = ClipConfig(num_frames=8, stride=2, kind="segment")


def evaluation(num_classes: int, num_videos: int = 50) -> EvaluationResult:
    """Return a real evaluation result over random predictions."""
    rng = np.random.default_rng(0)
    labels = rng.integers(num_classes, size=num_videos)
    return EvaluationResult(
        root="clips",
        classes=tuple(f"class {number}" for number in range(num_classes)),
        rows=(),
        metrics=compute_metrics(rng.random((num_videos, num_classes)), labels),
        bad=(),
        clip=CLIP,
        config=EvaluationConfig(),
    )


def full_record() -> ModelRecord:
    """Return a record of which every field is set."""
    return ModelRecord(
        sampling=CLIP,
        training=TrainingRecord(
            stage="fine-tuning",
            steps=30,
            data_fingerprint="9f86",
            recipe={"loop": {"seed": 1}},
            videos_left_out={"a.mp4": "is cut off"},
            num_videos_left_out=1,
            videomae_version="0.1.0",
            torch_version="2.13.0",
            python_version="3.11.9",
            extra={"gpu_hours": 2.5},
        ),
        evaluation=EvaluationSummary.from_dict(evaluation(7).metrics_dict()),
        licence="mit",
        extra={"converted": {"source": "x.pth", "layout": "videomae"}},
    )


def test_a_record_is_read_back_equal(tmp_path: Path) -> None:
    save_record(tmp_path, full_record())
    assert load_record(tmp_path) == full_record()


def test_unknown_entries_are_kept_at_every_level(tmp_path: Path) -> None:
    values = {
        "later": [1, 2],
        "training": {"steps": 3, "cluster": "x", "evaluation": {"top1": 0.5, "calibration_error": 0.1}},
    }
    save_record(tmp_path, values)
    assert json.loads((tmp_path / "videomae.json").read_text(encoding="utf-8")) == values
    assert load_record(tmp_path).to_dict() == values


def test_the_summary_is_that_of_a_real_evaluation() -> None:
    result = evaluation(7)
    summary = EvaluationSummary.from_dict(result.metrics_dict())
    assert summary == EvaluationSummary(
        num_videos=50,
        num_bad_videos=0,
        top1=result.choice.top1,
        top1_interval=(result.choice.top1_interval.low, result.choice.top1_interval.high),
        top5=result.choice.top5,
        mean_class=result.choice.mean_class,
        extra=summary.extra,
    )
    assert set(summary.extra) == {"mean_class_interval_95", "calibration_error", "num_groups"}


def bulky_metrics() -> dict[str, Any]:
    """Return what earlier versions kept of an evaluation: the confusion matrix and each class too."""
    metrics = evaluation(1300).choice
    return {**metrics.to_dict(), "confusion": metrics.confusion, "per_class": metrics.per_class}


@pytest.mark.parametrize("as_mapping", [False, True])
def test_the_file_does_not_grow_with_the_number_of_classes(tmp_path: Path, as_mapping: bool) -> None:
    metrics = bulky_metrics()
    assert len(json.dumps(metrics)) > 4 * 2**20, "this evaluation would not show the fault"
    if as_mapping:
        save_record(tmp_path, {"training": {"evaluation": metrics}})
    else:
        save_record(tmp_path, ModelRecord(evaluation=EvaluationSummary.from_dict(metrics)))
    assert (tmp_path / "videomae.json").stat().st_size < 1000
    assert load_record(tmp_path).evaluation == EvaluationSummary.from_dict(metrics)


def test_a_large_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    metrics = bulky_metrics()
    old = {"clip": {"num_frames": 8, "stride": 2, "kind": "segment"}, "training": {"steps": 9, "evaluation": metrics}}
    path = tmp_path / "videomae.json"
    path.write_text(json.dumps(old, indent=2, sort_keys=True), encoding="utf-8")
    assert path.stat().st_size > MAX_JSON_BYTES
    record = load_record(tmp_path)
    assert record.sampling == CLIP
    assert record.training == TrainingRecord(steps=9)
    assert record.evaluation is not None
    assert record.evaluation.top1_interval == tuple(metrics["top1_interval_95"])


def test_a_record_that_is_no_record_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"the record has \d+ bytes; the most is {MAX_WRITTEN_BYTES}: keep results"
    ):
        save_record(tmp_path, {"embeddings": "x" * MAX_WRITTEN_BYTES})
    with pytest.raises(ConfigError, match="the record holds what is no JSON value: "):
        as_record({"when": object()})
    assert not list(tmp_path.iterdir())


def test_of_very_many_unreadable_videos_the_first_are_named_and_all_are_counted(tmp_path: Path) -> None:
    bad = {f"{number:06d}.mp4": "is cut off" for number in range(3 * MAX_NAMED_VIDEOS)}
    save_record(tmp_path, {"training": {"videos_left_out": bad}})
    training = load_record(tmp_path).training
    assert training is not None
    assert training.videos_left_out == dict(list(bad.items())[:MAX_NAMED_VIDEOS])
    assert training.num_videos_left_out == 3 * MAX_NAMED_VIDEOS
    again = TrainingRecord.from_dict(training.to_dict())
    assert again == training


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip": {"stride": 3}}, r"the clip entry is \{'stride': 3\}; it must be an object with num_frames, stride"),
        ({"clip": {"num_frames": "8", "stride": 2, "kind": "dense"}}, "clip.num_frames is '8'; it must be a whole"),
        ({"training": "long"}, "training is 'long'; it must be an object"),
        ({"training": {"steps": "9"}}, "training.steps is '9'; it must be a whole number"),
        ({"training": {"stage": 2}}, "training.stage is 2; it must be a text"),
        ({"training": {"recipe": []}}, r"training.recipe is \[\]; it must be an object"),
        ({"training": {"evaluation": {"top1": "good"}}}, "evaluation.top1 is 'good'; it must be a number"),
        ({"evaluation": {"top1_interval_95": 0.3}}, "evaluation.top1_interval_95 is 0.3; it must be the two ends"),
        ({"licence": 3}, "licence is 3; it must be a text, such as 'apache-2.0'"),
    ],
)
def test_an_entry_of_the_wrong_type_is_named(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        save_record(tmp_path, values)
    (tmp_path / "videomae.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(WeightsError, match=rf"videomae\.json: {message}"):
        load_record(tmp_path)


def test_a_folder_without_the_file_has_an_empty_record(tmp_path: Path) -> None:
    assert load_record(tmp_path) == ModelRecord()
    assert ModelRecord().to_dict() == {}
