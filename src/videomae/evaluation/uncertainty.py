"""How sure a figure is: intervals over groups of videos, and calibration. Arithmetic alone.

`n` videos, `G` groups, `m` quantities measured on the same videos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

DRAWS = 2000
BINS = 10
Z_95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""


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


def wilson_interval(num_correct: int, num_total: int) -> Interval:
    """Return the 95 % confidence interval of a fraction.

    Args:
        num_correct: Successes.
        num_total: Trials, at least 1.

    Returns:
        The interval; it always holds the fraction itself and never leaves [0, 1].

    Raises:
        ValueError: If there are no trials, or more successes than trials.

    Source: E. B. Wilson 1927, without continuity correction.
    """
    if not 0 <= num_correct <= num_total or num_total < 1:
        raise ValueError(
            f"{num_correct} of {num_total} is no fraction: use 0 <= num_correct <= num_total, num_total >= 1"
        )
    rate = num_correct / num_total
    spread = Z_95**2 / num_total
    center = (rate + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * math.sqrt(rate * (1 - rate) / num_total + spread / (4 * num_total))
    # At a rate of 0 or 1 one end is the rate itself, which rounding would miss by an ulp.
    return Interval(low=min(max(center - half, 0.0), rate), high=max(min(center + half, 1.0), rate))


def group_numbers(groups: Sequence[str | None]) -> IntArray | None:
    """Return a number for each video's group, `[n]`; a video without a group is one of its own.

    None where no video has a group.
    """
    if not any(groups):
        return None
    names = [("group", name) if name else ("video", str(place)) for place, name in enumerate(groups)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


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


def bootstrap_interval(
    figure: Callable[[FloatArray], float],
    groups: IntArray,
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Interval:
    """Return the 95 % bootstrap interval of any figure over groups.

    Args:
        figure: Takes how often each video was drawn, `[n]` float64, as scikit-learn's `sample_weight`. A draw for
            which it is not defined, returned as NaN, does not count.
        groups: `[n]`; the videos of a group are drawn together.
        rng: Source of the samples.
        draws: How many; memory does not depend on it.
    """
    names, positions = np.unique(groups, return_inverse=True)
    chances = np.full(len(names), 1 / len(names))
    found = [figure(rng.multinomial(len(names), chances)[positions].astype(np.float64)) for _ in range(draws)]
    values = np.array([value for value in found if not math.isnan(value)])
    return percentiles(values if len(values) else np.array([math.nan]))


def accuracy_interval(correct: NDArray[np.bool_], groups: IntArray, *, rng: np.random.Generator) -> Interval:
    """Return the 95 % bootstrap interval of an accuracy over groups.

    Where all predictions are right, or all wrong, every sample is alike; then it is Wilson's, with as many trials as
    groups.
    """
    if correct.all() or not correct.any():
        count = len(np.unique(groups))
        return wilson_interval(count if correct.all() else 0, count)
    return percentiles(group_draws(correct[None].astype(np.float64), groups, rng=rng)[:, 0])


def reliability(confidence: FloatArray, correct: NDArray[np.bool_]) -> tuple[float, tuple[Bin, ...]]:
    """Return the expected calibration error and the table behind it.

    Args:
        confidence: `[n]` in [0, 1], such as the probability of the predicted class.
        correct: `[n]` whether what was predicted with it is so.

    Returns:
        The mean over videos of |accuracy - confidence| of their bin, in [0, 1]; and ten bins of equal width.

    Source: Guo et al. 2017, arXiv 1706.04599.
    """
    numbers = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for number in range(BINS):
        here = numbers == number
        count = int(here.sum())
        mean, right = (float(confidence[here].mean()), float(correct[here].mean())) if count else (None, None)
        bins.append(Bin(number / BINS, (number + 1) / BINS, count, mean, right))
        if mean is not None and right is not None:
            error += count / len(confidence) * abs(right - mean)
    return error, tuple(bins)
