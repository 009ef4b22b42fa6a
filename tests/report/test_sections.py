"""Sections: what they say of results is what the results say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from videomae.data.datasets import BadVideo
from videomae.evaluation.metrics import compute_metrics
from videomae.evaluation.results import EvaluationConfig, EvaluationResult, VideoResult
from videomae.evaluation.views import ViewsConfig
from videomae.inference.reconstruction import Reconstruction
from videomae.masking import MaskConfig
from videomae.report.page import Chart, Facts, Gallery, Image, Section, Table, Text, render_report
from videomae.report.sections import (
    evaluation_section,
    monitor_section,
    predictions_section,
    reconstruction_section,
    training_section,
)
from videomae.video.sampling import ClipConfig
from videomae.video.write import write_video


def evaluation(root: Path, *, bad: int = 0) -> EvaluationResult:
    """Return ten videos of two classes: 0 to 6 right with 0.9, 0.8, ... , 7 to 9 wrong with 0.7, 0.8, 0.9."""
    fractions = [0.9, 0.8, 0.7, 0.6, 0.9, 0.8, 0.7, 0.7, 0.8, 0.9]
    labels = [number % 2 for number in range(10)]
    rows = []
    for number, (fraction, label) in enumerate(zip(fractions, labels, strict=True)):
        prediction = label if number < 7 else 1 - label
        probabilities = (fraction, 1 - fraction) if prediction == 0 else (1 - fraction, fraction)
        rows.append(VideoResult(f"{number}.mp4", label, prediction, probabilities))
    metrics = compute_metrics(np.array([row.probabilities for row in rows]), np.array(labels))
    return EvaluationResult(
        root=root.as_posix(),
        classes=("cut", "run"),
        rows=tuple(rows),
        metrics=metrics,
        bad=tuple(BadVideo(f"bad{number}.mp4", "is damaged") for number in range(bad)),
        clip=ClipConfig(num_frames=8, stride=2),
        config=EvaluationConfig(views=ViewsConfig(num_clips=5, num_crops=3)),
    )


def blocks(section: Section, kind: type) -> list:
    return [block for block in section.blocks if isinstance(block, kind)]


def test_evaluation_tells_accuracy_interval_views_and_every_class(tmp_path: Path) -> None:
    result = evaluation(tmp_path)
    section = evaluation_section(result)
    facts = dict(blocks(section, Facts)[0].rows)
    assert facts["top-1 accuracy"] == "70.00%"
    assert facts["95 % interval"] == "39.7% to 89.2%"
    assert "top-5 accuracy" not in facts
    assert facts["views of each video"] == "5 clips x 3 crops"
    assert facts["frames of a clip"] == "8, dense, stride 2"
    assert blocks(section, Table)[0].rows == [("cut", 5, "80.0%"), ("run", 5, "60.0%")]
    assert blocks(section, Chart)[0].svg.alt == "Confusion matrix of 2 classes: 7 of 10 right"
    assert blocks(section, Text) == []


def test_videos_left_out_are_a_warning_with_their_number_and_names(tmp_path: Path) -> None:
    section = evaluation_section(evaluation(tmp_path, bad=30))
    (warning,) = blocks(section, Text)
    assert warning.is_warning
    assert warning.text.startswith("30 of 40 videos could not be read.")
    table = blocks(section, Table)[0]
    assert table.caption == "The first 20 of them"
    assert table.rows[0] == ("bad0.mp4", "is damaged")
    assert len(table.rows) == 20


def test_predictions_show_confident_mistakes_and_then_right_ones(tmp_path: Path) -> None:
    colors = {number: 25 * number for number in range(9)}  # the tenth video is gone
    for number, grey in colors.items():
        write_video(tmp_path / f"{number}.mp4", np.full((4, 32, 48, 3), grey, dtype=np.uint8))
    (gallery,) = blocks(predictions_section(evaluation(tmp_path), num_cards=4), Gallery)
    assert [card.name for card in gallery.cards] == ["9.mp4", "8.mp4", "0.mp4", "3.mp4"]
    assert [card.verdict for card in gallery.cards] == ["wrong", "wrong", "right", "right"]
    assert [card.probability for card in gallery.cards] == [0.9, 0.8, 0.9, 0.6]
    assert gallery.cards[1].predicted == "run"
    assert gallery.cards[1].true_label == "cut"
    assert [card.thumbnail is not None for card in gallery.cards] == [False, True, True, True]
    assert gallery.caption.startswith("2 of 3 mistakes, the most confident first, then 2 of 7 right ones")


def test_predictions_fill_up_with_what_there_is(tmp_path: Path) -> None:
    (gallery,) = blocks(predictions_section(evaluation(tmp_path), num_cards=100), Gallery)
    assert sorted(card.name for card in gallery.cards) == [f"{number}.mp4" for number in range(10)]
    (few,) = blocks(predictions_section(evaluation(tmp_path), num_cards=9), Gallery)
    assert len(few.cards) == 9


def test_training_draws_the_records_that_have_a_loss() -> None:
    records = [{"step": step, "loss": 1.0 / step, "lr": 1e-3} for step in range(1, 3001)]
    section = training_section([*records, {"step": 3000, "evaluation": {"top1": 0.5}}])
    facts = dict(blocks(section, Facts)[0].rows)
    assert facts == {"steps": "3000", "first loss": "1", "last loss": "0.0003333"}
    loss, rate = blocks(section, Chart)
    assert loss.svg.alt.startswith("loss by step: loss from ")
    assert rate.svg.alt == "learning rate by step: learning rate from 0.001 to 0.001"
    assert len(loss.svg.light) < 40_000, "a long run must stay a light drawing"
    with pytest.raises(ValueError, match="no record has a step and a loss"):
        training_section([{"step": 1, "evaluation": {}}])


@pytest.mark.parametrize("has_true_statistics", [True, False])
def test_reconstruction_is_explained_where_a_row_leaks(has_true_statistics: bool) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    result = Reconstruction(
        path="videos/dog.mp4",
        original=frames,
        masked=frames,
        with_true_statistics=frames if has_true_statistics else None,
        prediction=frames,
        hidden=np.ones((2, 2, 2), dtype=bool),
        frame_indices=np.arange(4),
        frame_seconds=np.arange(4) / 25,
        mask=MaskConfig(),
        seed=0,
        loss=0.5,
    )
    section = reconstruction_section([("first", result), ("second", result)])
    explained = blocks(section, Text)
    assert bool(explained) == has_true_statistics
    assert not has_true_statistics or "looks good whatever the model has learnt" in explained[0].text
    images = blocks(section, Image)
    assert len(images) == 2
    assert images[0].address != images[1].address, "the strip names its model"
    assert "videos/dog.mp4" in images[0].alt


def test_sections_can_be_rendered(tmp_path: Path) -> None:
    html = render_report(
        "run", [evaluation_section(evaluation(tmp_path, bad=1)), predictions_section(evaluation(tmp_path))]
    )
    assert "70.00%" in html
    assert "bad0.mp4" in html
    assert html.count("<article") == 10


def monitored() -> list[dict]:
    """Return the lines of a run of two measurements, the second with an alarm."""
    beginning = {
        "step": 0,
        "total_steps": 100,
        "warmup_steps": 5,
        "batch_size": 8,
        "num_clips": 8,
        "unseen": True,
        "num_train": 160,
        "normalized": True,
        "mask_kind": "tube",
        "baselines": {"zero": 1.0, "visible_mean": 1.0, "copy_nearest": 1.8, "interpolate": 0.95},
        "data": {
            "num_clips": 16,
            "pixel_std": 40.0,
            "blank": 0.0,
            "still": 0.0,
            "twins": 0.0,
            "equal_files": 0.5,
            "order": 0.7,
        },
    }
    alarm = {"name": "duplicated clips", "evidence": "half are equal", "cause": "copies", "remedy": "keep one"}
    measured = {
        "num_skipped": 0,
        "effective_rank": 20.25,
        "width": 32,
        "content": 0.9,
        "explained": {"time": [0.1, 0.3], "position": [[0.2, None]]},
        "attention_distance": [2.5, 1.25],
        "leak": 0.0,
        "input_mean": 0.0,
        "input_std": 1.0,
        "norm_std": 1.0,
        "norm_name": "norm",
        "gradient_norms": {"early": 0.1, "decoder": 0.2},
        "neighbour_accuracy": 0.625,
    }
    rows = [(0, 1.02, None, []), (50, 0.9, 0.92, [alarm])]
    return [beginning] + [
        {"step": step, "held_out_loss": loss, "train_loss": train, "alarms": alarms, **measured}
        for step, loss, train, alarms in rows
    ]


def test_the_monitor_tells_where_the_run_stands_its_alarms_and_its_numbers() -> None:
    section = monitor_section(monitored())
    said, warning = blocks(section, Text)
    assert "below interpolation since step 50: learning" in said.text
    assert warning.is_warning
    assert warning.text == "duplicated clips (step 50): half are equal. Likely cause: copies. Try: keep one."
    facts = dict(blocks(section, Facts)[0].rows)
    assert facts["clips"] == "8, held out"
    assert facts["loss of copy-nearest"] == "1.8"
    assert facts["effective rank of the features"] == "20.2 of 32"
    assert facts["attention distance by layer, tokens"] == "2.5, 1.25"
    assert facts["nearest-neighbor accuracy"] == "62.5%"
    alts = [chart.svg.alt for chart in blocks(section, Chart)]
    assert "held-out clips from 1.02 to 0.9" in alts[0]
    assert "interpolation 0.95" in alts[0]
    assert "copy-nearest" not in alts[0], "a line far above the curves would flatten them"
    assert any("gradient norm by step: early from 0.1 to 0.1; decoder" in alt for alt in alts)
    assert "share of the variance explained" in render_report("run", [section])


def test_the_lowest_baseline_is_drawn_where_the_run_is_far_below_it() -> None:
    beginning, *measured = monitored()
    far = [{**one, "held_out_loss": 0.6, "train_loss": 0.61} for one in measured]
    alt = blocks(monitor_section([beginning, *far]), Chart)[0].svg.alt
    assert "interpolation 0.95" in alt
    assert "copy-nearest" not in alt


def test_a_monitor_without_measurements_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no record is a measurement: give the lines of a run's monitor.jsonl"):
        monitor_section(monitored()[:1])
