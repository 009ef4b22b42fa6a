"""Metrics: against numbers worked out by hand or published, and against a slow second way."""

from __future__ import annotations

import json

import numpy as np
import pytest

from videomae.evaluation.metrics import class_accuracies, compute_metrics, confusion_matrix, wilson_interval


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
    matrix = confusion_matrix(np.array([2]), np.array([0]), num_classes=3)
    assert matrix[2, 0] == 1
    assert matrix.sum() == 1


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


@pytest.mark.parametrize(
    ("num_correct", "num_total", "low", "high"),
    [
        (15, 148, 0.0624, 0.1605),  # Newcombe 1998, table I, method 3 (Wilson)
        (81, 263, 0.2553, 0.3662),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 1 - 0.1170, 1.0),
    ],
)
def test_wilson_interval_equals_published_values(num_correct: int, num_total: int, low: float, high: float) -> None:
    interval = wilson_interval(num_correct, num_total)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_interval_holds_the_fraction_and_stays_in_range() -> None:
    for total in (1, 2, 3, 10, 997):
        for correct in range(0, total + 1, max(total // 7, 1)):
            interval = wilson_interval(correct, total)
            assert 0.0 <= interval.low <= correct / total <= interval.high <= 1.0
            assert interval.high - interval.low > 0.0


def test_wilson_interval_holds_the_true_fraction_in_about_95_percent_of_draws() -> None:
    draws = np.random.default_rng(1).binomial(80, 0.7, size=4000)
    covered = np.mean([(lambda i: i.low <= 0.7 <= i.high)(wilson_interval(int(draw), 80)) for draw in draws])
    assert 0.93 < covered < 0.97


@pytest.mark.parametrize(("num_correct", "num_total"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_interval_of_no_fraction_is_refused(num_correct: int, num_total: int) -> None:
    with pytest.raises(ValueError, match=f"{num_correct} of {num_total} is no fraction: use 0 <= num_correct"):
        wilson_interval(num_correct, num_total)


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


def test_class_accuracies_are_fractions_of_rows() -> None:
    assert class_accuracies(np.array([[3, 1], [0, 0]])) == (0.75, None)
