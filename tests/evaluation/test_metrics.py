"""Metrics: against numbers worked out by hand or published, and against a slow second way."""

from __future__ import annotations

import json

import numpy as np
import pytest

from videomae.evaluation.metrics import compute_metrics


def one_hot(predictions: list[int], num_classes: int) -> np.ndarray:
    return np.eye(num_classes)[predictions]


def test_hand_made_case_has_the_figures_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    metrics = compute_metrics(one_hot([0, 0, 1, 1, 0, 2], 3), labels)
    assert metrics.num_videos == 6
    assert metrics.top1 == 4 / 6
    assert metrics.per_class == (2 / 3, 1 / 2, 1.0)
    assert metrics.mean_class == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert metrics.confusion == ((2, 1, 0), (1, 1, 0), (0, 0, 1))


def test_confusion_rows_are_true_classes_and_columns_predicted_ones() -> None:
    matrix = compute_metrics(one_hot([0], 3), np.array([2])).confusion
    assert matrix == ((0, 0, 0), (0, 0, 0), (1, 0, 0))


def test_class_without_videos_has_no_accuracy_and_does_not_lower_the_mean() -> None:
    metrics = compute_metrics(one_hot([0, 2], 3), np.array([0, 2]))
    assert metrics.per_class == (1.0, None, 1.0)
    assert metrics.mean_class == 1.0


def test_top5_counts_exactly_the_five_most_probable() -> None:
    falling = np.arange(7, 0, -1.0)[None] / 28  # class 0 most probable, class 6 least
    fifth = compute_metrics(falling, np.array([4]))
    sixth = compute_metrics(falling, np.array([5]))
    assert (fifth.top1, fifth.top5) == (0.0, 1.0)
    assert (sixth.top1, sixth.top5) == (0.0, 0.0)


def test_top5_is_left_out_where_it_would_always_be_one() -> None:
    assert compute_metrics(one_hot([0], 5), np.array([0])).top5 is None
    assert compute_metrics(one_hot([0], 6), np.array([0])).top5 == 1.0


def test_ties_go_to_the_smaller_class_id() -> None:
    equal = np.full((1, 8), 1 / 8)
    assert compute_metrics(equal, np.array([0])).top1 == 1.0
    assert compute_metrics(equal, np.array([1])).top1 == 0.0
    assert [compute_metrics(equal, np.array([label])).top5 for label in (4, 5)] == [1.0, 0.0]


def test_random_cases_agree_with_counting_one_video_at_a_time() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        num_classes = int(rng.integers(2, 9))
        probabilities = rng.dirichlet(np.ones(num_classes), size=int(rng.integers(1, 30)))
        labels = rng.integers(num_classes, size=len(probabilities))
        metrics = compute_metrics(probabilities, labels)
        right = sum(
            max(range(num_classes), key=row.__getitem__) == label
            for row, label in zip(probabilities, labels, strict=True)
        )
        assert metrics.top1 == right / len(labels)
        if num_classes > 5:
            among = sum(
                label in sorted(range(num_classes), key=lambda k: -row[k])[:5]
                for row, label in zip(probabilities, labels, strict=True)
            )
            assert metrics.top5 == among / len(labels)
        assert np.sum(metrics.confusion) == len(labels)
        assert [sum(row) for row in metrics.confusion] == np.bincount(labels, minlength=num_classes).tolist()


def test_empty_and_misshapen_input_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="there are no videos: metrics need at least one"):
        compute_metrics(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))
    with pytest.raises(ValueError, match=r"shape \[2, 3\] and labels \[3\]; they must be \[n, K\] and \[n\]"):
        compute_metrics(np.zeros((2, 3)), np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match=r"from 0 to 3; they must be in \[0, 3\)"):
        compute_metrics(np.zeros((2, 3)), np.array([0, 3]))


def test_dictionary_is_strict_json() -> None:
    metrics = compute_metrics(one_hot([0, 2], 3), np.array([0, 2]))
    again = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert again["top1_interval_95"] == [metrics.top1_interval.low, 1.0]
    assert (again["num_videos"], again["top1"], again["top5"], again["mean_class"]) == (2, 1.0, None, 1.0)
