"""What outputs mean: softmax, sigmoid or neither, the same in prediction, pipeline and evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae.compat.pipeline import pipeline
from videomae.errors import ConfigError
from videomae.inference.predict_files import predict_files
from videomae.inference.predictor import Predictor
from videomae.inference.scores import settled_thresholds, usual_activation
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord, load_record
from videomae.video.sampling import ClipConfig

LOGITS = (4.0, 3.5, -6.0)
SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"num_labels": 3, "problem_type": "multi_label_classification"}, "sigmoid"),
    ({"num_labels": 1}, "sigmoid"),
    ({"num_labels": 1, "problem_type": "single_label_classification"}, "sigmoid"),
    ({"num_labels": 1, "problem_type": "regression"}, "none"),
    ({"num_labels": 3, "problem_type": "regression"}, "none"),
    ({"num_labels": 3}, "softmax"),
    ({"num_labels": 3, "problem_type": "single_label_classification"}, "softmax"),
]


def saved(folder: Path, settings: dict[str, Any], thresholds: dict[str, float] | None = None) -> Path:
    """Write a tiny classifier that gives `LOGITS` for every video."""
    sizes = {"image_size": 32, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = VideoMAEForVideoClassification(VideoMAEConfig(**sizes, intermediate_size=32, **settings))
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor(LOGITS[: model.config.num_labels]))
    record = ModelRecord(sampling=ClipConfig(4, 2), thresholds=thresholds)
    processor = VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model.save_pretrained(folder, processor=processor, record=record)
    return folder


@pytest.mark.parametrize(("settings", "activation"), SETTINGS)
def test_predictor_and_pipeline_give_the_scores_of_the_problem(
    tmp_path: Path, video: Path, settings: dict[str, Any], activation: str
) -> None:
    folder = saved(tmp_path / "model", settings)
    raw = torch.tensor(LOGITS[: settings["num_labels"]], dtype=torch.float64)
    wanted = {"softmax": raw.softmax(0), "sigmoid": raw.sigmoid(), "none": raw}[activation]
    prediction = Predictor(folder, device="cpu").predict(video, num_views=2)
    assert prediction.activation == activation == usual_activation(VideoMAEConfig(**settings))
    assert prediction.probabilities == pytest.approx(tuple(wanted.tolist()), abs=1e-6)
    piped = pipeline("video-classification", folder, device="cpu")(str(video))
    assert [one["score"] for one in piped] == pytest.approx(list(prediction.probabilities), abs=1e-6)
    assert [one["label"] for one in piped] == list(prediction.labels)


def test_thresholds_of_the_folder_say_which_labels_are_present(
    tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "model", SETTINGS[0][0], {"LABEL_1": 0.98, "LABEL_2": 0.001})
    assert load_record(folder).thresholds == {"LABEL_1": 0.98, "LABEL_2": 0.001}
    predictor = Predictor(folder, device="cpu")
    prediction = predictor.predict(video)  # scores 0.982, 0.971 and 0.0025
    assert prediction.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert prediction.present == (True, False, True)
    assert predictor.predict(video, top_k=1).present == (True,)
    predict_files(predictor, [video])
    printed = capsys.readouterr().out
    assert printed.count("(present)") == 2
    assert "LABEL_1 (present)" not in printed
    again = tmp_path / "again"
    VideoMAEForVideoClassification.from_pretrained(folder).save_pretrained(again)
    assert load_record(again).thresholds == load_record(folder).thresholds


def test_only_sigmoids_have_thresholds_and_a_half_is_usual(tmp_path: Path, video: Path) -> None:
    assert Predictor(saved(tmp_path / "a", SETTINGS[0][0]), device="cpu").predict(video).present == (
        True,
        True,
        False,
    )
    assert Predictor(saved(tmp_path / "b", {"num_labels": 3}), device="cpu").predict(video).present is None


def test_values_of_a_regression_are_printed_as_they_are(
    tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_files(Predictor(saved(tmp_path / "a", SETTINGS[4][0]), device="cpu"), [video])
    printed = capsys.readouterr().out
    assert "-6" in printed
    assert "%" not in printed


def test_thresholds_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="thresholds names 'rain', which is none of the classifier's 1 labels: name"
    ):
        settled_thresholds({"rain": 0.5}, ("sun",))
    for entry in ({"sun": 1.5}, {"sun": None}):
        with pytest.raises(ConfigError, match=r"thresholds\.sun is .*; a score from which a label counts is in"):
            ModelRecord.from_dict(json.loads(json.dumps({"thresholds": entry})))
