"""The model card says what the record says and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import yaml

from tiny_models import tiny_config
from videomae.evaluation.evaluator import EvaluationConfig, EvaluationResult
from videomae.evaluation.metrics import compute_metrics
from videomae.sharing.card import render_card, shareable
from videomae.sharing.record import EvaluationSummary, ModelRecord
from videomae.video.sampling import ClipConfig
from videomae.weights.kinds import KINDS

RECORD: dict[str, Any] = {
    "clip": {"num_frames": 4, "stride": 3, "kind": "dense"},
    "licence": "apache-2.0",
    "training": {
        "videomae_version": "0.1.0",
        "torch_version": "2.13.0",
        "data_fingerprint": "9f86d081884c7d65",
        "stage": "fine-tuning",
        "steps": 1200,
        "videos_left_out": {"/home/ann/clips/run/7.mp4": "is cut off"},
        "recipe": {
            "data": {"train": "/home/ann/clips", "val": None, "val_fraction": 0.2},
            "init": "/home/ann/runs/pretrain",
            "optim": {"base_lr": 1e-3},
            "evaluation": {"views": {"num_clips": 5, "num_crops": 3}, "speed": 2.0},
        },
        "evaluation": {
            "top1": 0.875,
            "top1_interval_95": [0.8, 0.93],
            "mean_class": 0.86,
            "num_videos": 120,
            "num_bad_videos": 1,
        },
    },
}
CLASSIFIER = "classification"


def card(record: dict[str, Any] | ModelRecord, kind: str = CLASSIFIER, **settings: Any) -> str:
    """Render the card of a tiny network."""
    labels = {0: "cut", 1: "jump", 2: "run"}
    config = tiny_config(**{"id2label": labels, **settings})
    record = record if isinstance(record, ModelRecord) else ModelRecord.from_dict(record)
    return render_card(record, config, kind=KINDS[kind], name="ann/clips-classifier", num_parameters=1_234_567)


def front_matter(text: str) -> dict[str, Any]:
    """Return the Hub's metadata of a card."""
    match = re.match(r"---\n(.*?)\n---\n\n# ", text, flags=re.DOTALL)
    assert match, text
    values = yaml.safe_load(match[1])
    assert isinstance(values, dict)
    return values


def test_the_card_tells_data_sampling_recipe_metrics_protocol_and_licence() -> None:
    text = card(RECORD)
    for fact in (
        "# clips-classifier",
        "A VideoMAE video classifier of 3 classes: 24 wide, 3 deep, 2 heads, patch 4; 1.2 million parameters",
        "clips of 4 frames of 16 x 16 pixels, 3 channel(s). Trained with videomae 0.1.0.",
        "VideoMAEForVideoClassification.from_pretrained('ann/clips-classifier')",
        "Trained on clips of 4 frames, one in 3, from one stretch of the video.",
        "| data | `clips` |",
        "| data fingerprint (SHA-256 of names, sizes and labels) | `9f86d081884c7d65` |",
        "| optimizer steps | `1200` |",
        "| videos that could not be read | 1 |",
        '"base_lr": 0.001',
        "Protocol: 5 clip(s) and 3 crop(s) of each video, 2 times fewer operations, 4 frames, stride 3.",
        "| top-1 accuracy | 87.50% |",
        "| top-1 accuracy, 95 % interval | 80.0% to 93.0% |",
        "| mean class accuracy | 86.00% |",
        "| videos | 120 |",
        "`cut`, `jump`, `run`",
        "## Licence\n\n`apache-2.0`",
    ):
        assert fact in text, fact


def test_the_hubs_metadata_can_be_read_by_programs() -> None:
    values = front_matter(card(RECORD))
    assert values["license"] == "apache-2.0"
    assert values["pipeline_tag"] == "video-classification"
    assert values["library_name"] == "videomae"
    [result] = values["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.875}]
    assert result["dataset"]["name"] == "clips"


def test_the_authors_machine_is_not_on_the_card() -> None:
    text = card(RECORD)
    assert "/home" not in text
    assert "ann/runs" not in text


@pytest.mark.parametrize(
    "record", [{}, {"training": {}}, {"clip": None, "training": None}, {"licence": "mit"}, RECORD]
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_known_is_left_out_and_nothing_is_left_to_fill_in(record: Any, kind: str) -> None:
    text = card(record, kind)
    front_matter(text)
    for empty in ("More information needed", "[More", "TODO", "None", "nan", "\n\n\n"):
        assert empty not in re.sub(r"```json.*?```", "(recipe)", text, flags=re.DOTALL), empty
    for title, body in re.findall(r"^## (.+)\n\n(.*)$", text, flags=re.MULTILINE):
        assert body.strip(), f"the section {title} is empty"
    assert ("## Training" in text) == (record is RECORD)
    assert ("## Results" in text) == (record is RECORD)
    assert ("## Classes" in text) == (kind == CLASSIFIER)


def test_without_a_licence_the_card_says_that_there_is_none() -> None:
    text = card({})
    assert "license" not in front_matter(text)
    assert "Its author has stated none. Without one, ask before you use it." in text


def test_many_classes_are_cut_short() -> None:
    text = card({}, id2label={number: f"class {number}" for number in range(400)})
    assert "`class 59`, and 340 more in `config.json`" in text


def test_a_shared_record_keeps_everything_but_places() -> None:
    record = ModelRecord.from_dict(RECORD)
    shared = shareable(record).to_dict()
    assert shared["training"]["recipe"]["data"] == {"train": "clips", "val": None, "val_fraction": 0.2}
    assert shared["training"]["recipe"]["init"] == "pretrain"
    assert shared["training"]["videos_left_out"] == {"7.mp4": "could not be read"}
    assert shared["training"]["evaluation"] == RECORD["training"]["evaluation"]
    assert "/home" not in json.dumps(shared)
    assert record == ModelRecord.from_dict(RECORD), "the record itself was changed"


def test_a_shared_record_counts_unreadable_videos_of_one_name() -> None:
    record = ModelRecord.from_dict({"training": {"videos_left_out": {"/a/1.mp4": "x", "/b/1.mp4": "y"}}})
    assert "| videos that could not be read | 2 |" in card(shareable(record))


def test_the_interval_of_a_real_evaluation_is_on_the_card() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=40)
    result = EvaluationResult(
        root="clips",
        classes=("cut", "jump", "run"),
        rows=(),
        metrics=compute_metrics(rng.random((40, 3)), labels),
        bad=(),
        clip=ClipConfig(num_frames=4, stride=3),
        config=EvaluationConfig(),
    )
    text = card(ModelRecord(evaluation=EvaluationSummary.from_dict(result.metrics_dict())))
    interval = result.choice.top1_interval
    assert f"| top-1 accuracy, 95 % interval | {interval.low:.1%} to {interval.high:.1%} |" in text
    assert f"| top-1 accuracy | {result.choice.top1:.2%} |" in text
