"""Figures of a regression, worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from videomae.evaluation.value_metrics import compute_value_metrics


def test_hand_made_values_have_the_figures_worked_out_by_hand() -> None:
    targets = np.array([[1.0, 7.0], [3.0, 7.0], [5.0, 7.0]])
    metrics = compute_value_metrics(np.array([[1.0, 8.0], [4.0, 7.0], [3.0, 7.0]]), targets)
    assert metrics.mean_absolute_error == (1.0, pytest.approx(1 / 3))
    assert metrics.root_mean_squared_error == (pytest.approx((5 / 3) ** 0.5), pytest.approx((1 / 3) ** 0.5))
    assert metrics.r2 == (pytest.approx(1 - 5 / 8), None)
    assert metrics.score == pytest.approx((3 / 8 - (1 / 3) ** 0.5) / 2)
    assert metrics.mean_absolute_error_interval[0].low <= 1.0 <= metrics.mean_absolute_error_interval[0].high
    json.dumps({**metrics.to_dict(), **metrics.details()}, allow_nan=False)


def test_videos_of_a_group_are_drawn_together() -> None:
    targets = np.zeros((40, 1))
    values = np.repeat(np.random.default_rng(0).random((8, 1)), 5, axis=0)
    alone, grouped = (
        compute_value_metrics(values, targets, groups).mean_absolute_error_interval[0]
        for groups in (None, np.repeat(np.arange(8), 5))
    )
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_misshapen_input_is_refused_with_the_shapes() -> None:
    with pytest.raises(ValueError, match=r"values have shape \[2, 1\] and targets \[2, 2\]; they must be"):
        compute_value_metrics(np.zeros((2, 1)), np.zeros((2, 2)))
