"""Intervals that cover, calibration by hand, learning curves that are known."""

from __future__ import annotations

import numpy as np
import pytest

from videomae.evaluation.metrics import wilson_interval
from videomae.probing.measures import (
    accuracy_interval,
    doubling_gain,
    fit_curve,
    group_draws,
    percentiles,
    reliability,
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
    error, bins = reliability(probabilities, np.array([0, 1, 0, 1]))
    assert [one.num_videos for one in bins] == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2]
    assert (bins[9].confidence, bins[9].accuracy) == (pytest.approx(0.93), 0.5)
    assert (bins[5].confidence, bins[5].accuracy) == (pytest.approx(0.575), 1.0)
    assert error == pytest.approx(0.5 * 0.43 + 0.5 * 0.425)


@pytest.mark.parametrize(("limit", "scale", "exponent"), [(0.1, 1.5, 0.5), (0.0, 0.8, 0.3), (0.25, 0.0, 1.0)])
def test_a_known_curve_is_found_and_its_gain_foretold(limit: float, scale: float, exponent: float) -> None:
    numbers = np.array([15.0, 30, 60, 120, 240])
    curve = fit_curve(numbers, limit + scale * numbers**-exponent)
    assert doubling_gain(curve, 300) == pytest.approx(scale * (300**-exponent - 600**-exponent), abs=1e-9)


def test_a_curve_never_goes_below_no_error_or_rises() -> None:
    numbers = np.array([10.0, 20, 40, 80])
    rising = fit_curve(numbers, np.array([0.1, 0.2, 0.3, 0.4]))
    assert doubling_gain(rising, 80) == 0.0
    steep = fit_curve(numbers, np.array([0.6, 0.3, 0.1, 0.0]))
    assert steep.error(1e9) >= 0.0
