"""Results of an evaluation: a file of their own, and a summary whose size does not grow with the classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.data.datasets import BadVideo
from videomae.data.manifest import Manifest, VideoRow
from videomae.errors import RunError
from videomae.evaluation.evaluator import evaluate
from videomae.evaluation.metrics import compute_metrics
from videomae.evaluation.results import EvaluationConfig, EvaluationResult, VideoResult, load_evaluation
from videomae.evaluation.views import ViewsConfig
from videomae.inference.predictor import Predictor
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import EvaluationSummary, ModelRecord, load_record, save_record
from videomae.video.sampling import ClipConfig

MANY_CLASSES = 1200
CONFIG = EvaluationConfig(views=ViewsConfig(num_clips=2, num_crops=1), workers=0, precision="fp32")


def result_of(probabilities: np.ndarray, labels: list[int], *, bad: int = 0) -> EvaluationResult:
    """Return a result with these probabilities `[n, K]`."""
    rows = tuple(
        VideoResult(f"{number}.mp4", label, int(row.argmax()), tuple(row.tolist()))
        for number, (row, label) in enumerate(zip(probabilities, labels, strict=True))
    )
    return EvaluationResult(
        root="/videos",
        classes=tuple(f"class {number}" for number in range(probabilities.shape[1])),
        rows=rows,
        metrics=compute_metrics(probabilities, np.array(labels)),
        bad=tuple(BadVideo(f"bad{number}.mp4", 'is "damaged"\u2028') for number in range(bad)),
        clip=ClipConfig(8, 2),
        config=CONFIG,
    )


def test_a_saved_result_is_read_back_equal(tmp_path: Path) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(7), size=9)
    result = result_of(probabilities, [0, 0, 1, 2, 3, 4, 5, 5, 5], bad=2)
    result.save(tmp_path / "evaluation.json")
    assert load_evaluation(tmp_path / "evaluation.json") == result


def test_the_file_has_a_line_for_each_class_and_video_and_no_zeros_of_the_confusion(tmp_path: Path) -> None:
    result = result_of(np.eye(40)[[0, 0, 7]], [0, 0, 2], bad=1)
    text = result.to_json()
    assert len(text.splitlines()) < 40 + 3 + 1 + 20
    values = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    confusion = np.zeros((40, 40), dtype=int)
    for label, row in enumerate(values["confusion"]):
        for predicted, count in row:
            confusion[label, predicted] = count
    assert confusion.tolist() == [list(row) for row in result.choice.confusion]
    assert sum(map(len, values["confusion"])) == 2
    assert values["per_class"] == [1.0, None, 0.0, *[None] * 37]
    assert values["metrics"]["num_bad_videos"] == len(values["bad_videos"]) == 1


def test_the_summary_does_not_grow_with_the_number_of_classes() -> None:
    sizes = [len(json.dumps(result_of(np.eye(count)[[0, 1]], [0, 0]).metrics_dict())) for count in (6, 600)]
    assert sizes[0] == sizes[1] < 600


def test_a_classifier_of_many_classes_is_evaluated_saved_and_loaded_again(
    model: VideoMAEForVideoClassification,
    videos: Path,
    processor: VideoMAEImageProcessor,
    clip: ClipConfig,
    tmp_path: Path,
) -> None:
    names = {number: f"class {number}" for number in range(MANY_CLASSES)}
    classifier = VideoMAEForVideoClassification(model.config.replace(id2label=names)).eval()
    paths = sorted(videos.rglob("*.mp4"))[:2]
    rows = tuple(VideoRow(path, label) for path, label in zip(paths, (0, 1), strict=True))
    manifest = Manifest(videos, rows, (names[3], names[1199]))
    result = evaluate(classifier, manifest, processor=processor, clip=clip, config=CONFIG)
    assert [row.label for row in result.rows] == [3, 1199]

    folder = tmp_path / "model"
    classifier.save_pretrained(folder)
    processor.save_pretrained(folder)
    summary = EvaluationSummary.from_dict(result.metrics_dict())
    save_record(folder, ModelRecord(sampling=clip, evaluation=summary))
    result.save(tmp_path / "evaluation.json")

    assert (folder / "videomae.json").stat().st_size < 2000
    assert (tmp_path / "evaluation.json").stat().st_size < 200_000
    assert load_evaluation(tmp_path / "evaluation.json") == result
    record = load_record(folder).evaluation
    assert record is not None
    assert record.top1 == result.choice.top1
    predictor = Predictor(folder, device="cpu")
    assert predictor.classes == result.classes
    assert torch.equal(predictor.model.classifier.weight, classifier.classifier.weight)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"videos": 3}'])
def test_a_file_of_something_else_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"other\.json is no result of an evaluation .*: give a file that videomae"):
        load_evaluation(path)
    with pytest.raises(RunError, match=r"cannot read .*none\.json: No such file"):
        load_evaluation(tmp_path / "none.json")


def test_a_result_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*folder: Is a directory"):
        result_of(np.eye(2), [0, 1]).save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
