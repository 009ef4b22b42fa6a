"""The learning curve of a probe: what more labels are expected to add. Arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

EXPONENTS = tuple(float(value) for value in np.linspace(0.2, 1.0, 9))
"""c of the learning curve; published curves of classifiers lie in this range (Hestness et al. 2017, 1712.00409)."""


@dataclass(frozen=True)
class LearningCurve:
    """The error as a function of the number of labels N: limit + scale * N ** -exponent."""

    limit: float
    """Error that no number of labels ends."""
    scale: float
    """Size of what labels end."""
    exponent: float
    """How fast."""

    def error(self, num_labels: float) -> float:
        """Return the error expected of this number of labels."""
        error: float = self.limit + self.scale * num_labels**-self.exponent
        return error


def fit_curve(num_labels: FloatArray, errors: FloatArray) -> LearningCurve:
    """Fit a power law with a limit to errors by least squares, both terms at least zero.

    Args:
        num_labels: `[k]` numbers of labels, at least two different ones.
        errors: `[k]`, in [0, 1].
    """
    best: tuple[float, LearningCurve] | None = None
    for exponent in EXPONENTS:
        powers = num_labels**-exponent
        slope = float(np.cov(powers, errors, bias=True)[0, 1] / max(float(powers.var()), 1e-300))
        candidates = [
            (float(errors.mean()) - slope * float(powers.mean()), slope),
            (0.0, float(powers @ errors / (powers @ powers))),
            (float(errors.mean()), 0.0),
        ]
        for limit, scale in candidates:  # the unconstrained minimum, and those on the two borders
            if limit < 0 or scale < 0:
                continue
            residual = float(((limit + scale * powers - errors) ** 2).sum())
            if best is None or residual < best[0] - 1e-15:
                best = residual, LearningCurve(limit, scale, exponent)
    assert best is not None  # the mean is always a candidate
    return best[1]


def doubling_gain(curve: LearningCurve, num_labels: int) -> float:
    """Return the accuracy that twice as many labels are expected to add."""
    return curve.error(num_labels) - curve.error(2 * num_labels)
