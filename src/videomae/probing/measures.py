"""What predictions on held-out groups say: intervals over groups, calibration, the learning curve. Arithmetic alone.

`n` videos, `G` groups, `m` quantities measured on the same videos.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videomae.evaluation.metrics import Interval, wilson_interval

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

DRAWS = 2000
BINS = 10
EXPONENTS = tuple(float(value) for value in np.linspace(0.2, 1.0, 9))
"""c of the learning curve; published curves of classifiers lie in this range (Hestness et al. 2017, 1712.00409)."""


@dataclass(frozen=True)
class Bin:
    """Predictions of about the same confidence."""

    low: float
    """Least confidence."""
    high: float
    """Greatest confidence."""
    num_videos: int
    """Videos in it."""
    confidence: float | None
    """Their mean confidence; None without videos."""
    accuracy: float | None
    """Fraction of them that is right; None without videos."""


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


def group_draws(values: FloatArray, groups: IntArray, *, rng: np.random.Generator, draws: int = DRAWS) -> FloatArray:
    """Return means of values over bootstrap samples of groups.

    Args:
        values: `[m, n]`.
        groups: `[n]`; the videos of a group are drawn together, as videos of one recording are no independent ones.
        rng: Source of the samples.
        draws: How many.

    Returns:
        `[draws, m]`.
    """
    names, positions = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(positions, row, len(names)) for row in values], axis=1)  # [G, m]
    sizes = np.bincount(positions, minlength=len(names)).astype(np.float64)  # [G]
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)  # [draws, G]
    result: FloatArray = (counts @ sums) / (counts @ sizes)[:, None]
    return result


def percentiles(draws: FloatArray) -> Interval:
    """Return the interval that holds the middle 95 % of bootstrap values `[draws]`."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(float(low), float(high))


def accuracy_interval(correct: NDArray[np.bool_], groups: IntArray, *, rng: np.random.Generator) -> Interval:
    """Return the 95 % bootstrap interval of an accuracy over groups.

    Where all predictions are right, or all wrong, every sample is alike; then it is Wilson's, with as many trials as
    groups.
    """
    if correct.all() or not correct.any():
        count = len(np.unique(groups))
        return wilson_interval(count if correct.all() else 0, count)
    return percentiles(group_draws(correct[None].astype(np.float64), groups, rng=rng)[:, 0])


def reliability(probabilities: FloatArray, labels: IntArray) -> tuple[float, tuple[Bin, ...]]:
    """Return the expected calibration error and the table behind it.

    Args:
        probabilities: `[n, K]`.
        labels: `[n]`.

    Returns:
        The mean over videos of |accuracy - confidence| of their bin, in [0, 1]; and ten bins of equal width.

    Source: Guo et al. 2017, arXiv 1706.04599.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    numbers = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for number in range(BINS):
        here = numbers == number
        count = int(here.sum())
        mean, right = (float(confidence[here].mean()), float(correct[here].mean())) if count else (None, None)
        bins.append(Bin(number / BINS, (number + 1) / BINS, count, mean, right))
        if mean is not None and right is not None:
            error += count / len(labels) * abs(right - mean)
    return error, tuple(bins)


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
