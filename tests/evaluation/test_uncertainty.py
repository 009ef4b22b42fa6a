"""Intervals that cover, calibration by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score

from videomae.evaluation.metrics import compute_metrics
from videomae.evaluation.uncertainty import (
    accuracy_interval,
    bootstrap_interval,
    group_draws,
    group_numbers,
    percentiles,
    reliability,
    wilson_interval,
)


def test_the_interval_over_groups_covers_the_accuracy_and_one_over_videos_does_not() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 8)
    covered = {"groups": 0, "videos": 0}
    runs = 120
    for _ in range(runs):
        rates = rng.beta(0.7, 0.3, 40)  # of each group; 0.7 in the mean
        correct = rng.random(320) < rates[groups]
        for name, units in (("groups", groups), ("videos", np.arange(320))):
            draws = group_draws(correct[None].astype(np.float64), units, rng=rng, draws=300)
            interval = percentiles(draws[:, 0])
            covered[name] += interval.low <= 0.7 <= interval.high
    assert covered["groups"] / runs >= 0.89
    assert covered["videos"] / runs <= 0.8


def test_a_perfect_result_has_the_interval_of_its_number_of_groups() -> None:
    groups = np.repeat(np.arange(10), 20)
    perfect = accuracy_interval(np.ones(200, np.bool_), groups, rng=np.random.default_rng(0))
    assert perfect == wilson_interval(10, 10)


def test_draws_are_means_of_whole_groups() -> None:
    values, groups = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 4.0]]), np.array([0, 0, 1])
    draws = group_draws(values, groups, rng=np.random.default_rng(0))
    assert set(draws[:, 0].round(6)) == {0.0, round(2 / 3, 6), 1.0}
    np.testing.assert_allclose(draws[:, 1], 4 - 2 * draws[:, 0])


def test_calibration_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.55, 0.45], [0.4, 0.6]])
    correct = probabilities.argmax(axis=1) == np.array([0, 1, 0, 1])
    error, bins = reliability(probabilities.max(axis=1), correct)
    assert [one.num_videos for one in bins] == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2]
    assert (bins[9].confidence, bins[9].accuracy) == (pytest.approx(0.93), 0.5)
    assert (bins[5].confidence, bins[5].accuracy) == (pytest.approx(0.575), 1.0)
    assert error == pytest.approx(0.5 * 0.43 + 0.5 * 0.425)


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


def test_bins_hold_what_the_calibration_curve_of_scikit_learn_holds() -> None:
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.01, 0.99, 500)
    correct = rng.random(500) < confidence**2
    error, bins = reliability(confidence, correct)
    accuracies, confidences = calibration_curve(correct, confidence, n_bins=10)
    filled = [one for one in bins if one.num_videos]
    np.testing.assert_allclose([one.accuracy for one in filled], accuracies)
    np.testing.assert_allclose([one.confidence for one in filled], confidences)
    counts = np.array([one.num_videos for one in filled])
    assert error == pytest.approx((counts * np.abs(accuracies - confidences)).sum() / 500)


def test_the_bootstrap_of_any_figure_is_that_of_means_for_a_mean() -> None:
    values, groups = np.random.default_rng(0).random(60), np.repeat(np.arange(12), 5)
    quick = percentiles(group_draws(values[None], groups, rng=np.random.default_rng(1))[:, 0])
    slow = bootstrap_interval(lambda w: float(np.average(values, weights=w)), groups, rng=np.random.default_rng(1))
    assert (slow.low, slow.high) == (pytest.approx(quick.low), pytest.approx(quick.high))


def test_the_interval_of_the_mean_over_classes_is_that_of_balanced_accuracy() -> None:
    rng = np.random.default_rng(2)
    labels, groups = rng.integers(3, size=90), np.repeat(np.arange(30), 3)
    probabilities = rng.dirichlet(np.ones(3), size=90) + 0.3 * np.eye(3)[labels]
    metrics = compute_metrics(probabilities, labels, groups)
    predictions = probabilities.argmax(axis=1)
    assert metrics.mean_class == pytest.approx(balanced_accuracy_score(labels, predictions))
    expected = bootstrap_interval(
        lambda weights: float(balanced_accuracy_score(labels, predictions, sample_weight=weights)),
        groups,
        rng=np.random.default_rng(0),
        draws=2000,
    )
    found = metrics.mean_class_interval
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert metrics.num_groups == 30


def test_a_video_without_a_group_is_one_of_its_own_and_none_at_all_are_no_groups() -> None:
    numbers = group_numbers(["a", None, "a", "b", None])
    assert numbers is not None
    assert numbers.tolist() == [0, 1, 0, 2, 3]
    assert group_numbers([None, None]) is None
