"""Figures of several labels: against scikit-learn on the whole, and thresholds that generalize to nothing but F1."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from videomae.evaluation.label_metrics import best_thresholds, compute_label_metrics, weighted_average_precisions


def made_up(num_videos: int = 60, num_labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = (rng.random((num_videos, num_labels)) < 0.3).astype(np.float64)
    return np.clip(0.5 * targets + 0.6 * rng.random(targets.shape), 0.0, 1.0), targets


def test_figures_are_those_of_scikit_learn_on_the_whole() -> None:
    scores, targets = made_up()
    metrics = compute_label_metrics(scores, targets, [0.5] * 4)
    assert metrics.mean_average_precision == pytest.approx(average_precision_score(targets, scores, average="macro"))
    said = scores >= 0.5
    assert metrics.micro_f1 == pytest.approx(f1_score(targets, said, average="micro"))
    assert metrics.macro_f1 == pytest.approx(f1_score(targets, said, average="macro"))
    interval = metrics.mean_average_precision_interval
    assert interval is not None
    assert interval.low < metrics.mean_average_precision < interval.high
    json.dumps({**metrics.to_dict(), **metrics.details()}, allow_nan=False)


def test_weighted_average_precisions_are_those_of_scikit_learn_with_equal_scores_too() -> None:
    scores, targets = made_up()
    scores = scores.round(1)
    rng = np.random.default_rng(1)
    figure = weighted_average_precisions(scores, targets > 0.5)
    for _ in range(5):
        weights = rng.integers(0, 3, size=60).astype(np.float64)
        columns = zip(scores.T, targets.T, strict=True)
        expected = [average_precision_score(truth, one, sample_weight=weights) for one, truth in columns]
        np.testing.assert_allclose(figure(weights), expected)


def test_videos_of_one_group_are_drawn_together_so_that_the_interval_is_wider() -> None:
    scores, targets = made_up()
    copies = np.repeat(np.arange(60), 6)
    alone, grouped = (
        compute_label_metrics(scores[copies], targets[copies], [0.5] * 4, groups).mean_average_precision_interval
        for groups in (None, copies)
    )
    assert alone is not None
    assert grouped is not None
    assert grouped.high - grouped.low > 1.8 * (alone.high - alone.low)


def test_a_label_of_no_video_has_no_average_precision_and_does_not_lower_the_mean() -> None:
    scores, targets = made_up()
    targets[:, 2] = 0
    metrics = compute_label_metrics(scores, targets, [0.5] * 4)
    assert metrics.average_precision[2] is None
    assert metrics.recall[2] is None
    others = [0, 1, 3]
    expected = average_precision_score(targets[:, others], scores[:, others], average="macro")
    assert metrics.mean_average_precision == pytest.approx(expected)


def test_one_label_alone_is_measured_too() -> None:
    scores, targets = made_up(num_labels=1)
    metrics = compute_label_metrics(scores, targets, [0.5])
    assert metrics.average_precision == (pytest.approx(average_precision_score(targets[:, 0], scores[:, 0])),)
    assert metrics.num_positive == (int(targets.sum()),)


def test_no_threshold_has_a_larger_f1_than_the_chosen_ones() -> None:
    scores, targets = made_up()
    for chosen, column, truth in zip(best_thresholds(scores, targets), scores.T, targets.T, strict=True):
        best = max(f1_score(truth, column >= level) for level in column)
        assert f1_score(truth, column >= chosen) == pytest.approx(best)
        assert np.abs(column - chosen).min() > 0, "a score on the threshold would be moved by rounding"


def test_a_label_that_all_or_none_have_keeps_a_half() -> None:
    scores, targets = made_up()
    targets[:, 0], targets[:, 1] = 0, 1
    assert best_thresholds(scores, targets)[:2] == (0.5, 0.5)


def test_misshapen_input_is_refused_with_the_shapes() -> None:
    with pytest.raises(ValueError, match=r"scores have shape \[2, 3\], targets \[2, 2\] and thresholds 3; they must"):
        compute_label_metrics(np.zeros((2, 3)), np.zeros((2, 2)), [0.5] * 3)
