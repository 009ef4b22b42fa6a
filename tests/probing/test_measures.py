"""Learning curves that are known."""

from __future__ import annotations

import numpy as np
import pytest

from videomae.probing.measures import doubling_gain, fit_curve


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
