"""Metrics of a classifier: arithmetic on labels and probabilities alone. `n` videos, `K` classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Z_95 = 1.959963984540054  # two-sided 95 % point of the normal distribution
TOP_K = 5


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval of a fraction."""

    low: float
    """Lower end, in [0, 1]."""
    high: float
    """Upper end, in [0, 1]."""


@dataclass(frozen=True)
class Metrics:
    """How good the predictions on a set of videos are. Accuracies are fractions in [0, 1]."""

    num_videos: int
    """n, videos that were classified."""
    top1: float
    """Fraction of videos whose most probable class is the true one."""
    top1_interval: Interval
    """Wilson's 95 % interval of `top1`: the chance in which videos were drawn, not the seed of the training."""
    top5: float | None
    """Fraction of videos with the true class among the five most probable; None where K <= 5, it would be 1."""
    per_class: tuple[float | None, ...]
    """`[K]` top-1 accuracy of the videos of each class; None for a class without videos."""
    mean_class: float
    """Mean of `per_class` over the classes that have videos."""
    confusion: tuple[tuple[int, ...], ...]
    """`[K, K]` numbers of videos: row = true class, column = predicted class."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values, without those that grow with K: `per_class` and `confusion`."""
        return {
            "num_videos": self.num_videos,
            "top1": self.top1,
            "top1_interval_95": [self.top1_interval.low, self.top1_interval.high],
            "top5": self.top5,
            "mean_class": self.mean_class,
        }


def compute_metrics(probabilities: FloatArray, labels: IntArray) -> Metrics:
    """Compare predictions with true classes.

    Args:
        probabilities: `[n, K]` float64, one row a video; any score that grows with the class's probability will do.
        labels: `[n]` int64, true classes in [0, K).

    Returns:
        The figures. Of equally probable classes the one with the smaller id counts as more probable.

    Raises:
        ValueError: If the shapes do not fit, there is no video, or a label is out of range.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"probabilities have shape {list(probabilities.shape)} and labels {list(labels.shape)}; "
            "they must be [n, K] and [n]"
        )
    num_videos, num_classes = probabilities.shape
    if num_videos == 0:
        raise ValueError("there are no videos: metrics need at least one")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}; they must be in [0, {num_classes})")
    ranking = rank_classes(probabilities)
    predictions = ranking[:, 0]
    confusion = confusion_matrix(labels, predictions, num_classes=num_classes)
    num_correct = int(np.trace(confusion))
    per_class = class_accuracies(confusion)
    present = [accuracy for accuracy in per_class if accuracy is not None]
    return Metrics(
        num_videos=num_videos,
        top1=num_correct / num_videos,
        top1_interval=wilson_interval(num_correct, num_videos),
        top5=_top_k_accuracy(ranking, labels, TOP_K) if num_classes > TOP_K else None,
        per_class=per_class,
        mean_class=sum(present) / len(present),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def rank_classes(probabilities: FloatArray) -> IntArray:
    """Return the class ids from most to least probable, `[n, K]`; ties by ascending id."""
    return np.argsort(-probabilities, axis=1, kind="stable").astype(np.int64)


def confusion_matrix(labels: IntArray, predictions: IntArray, *, num_classes: int) -> IntArray:
    """Count the videos of each true class (row) that were predicted as each class (column), `[K, K]`."""
    counts = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def class_accuracies(confusion: IntArray) -> tuple[float | None, ...]:
    """Return the fraction of each row that lies on the diagonal, `[K]`; None for an empty row."""
    totals = confusion.sum(axis=1)
    return tuple(int(confusion[label, label]) / int(total) if total else None for label, total in enumerate(totals))


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


def _top_k_accuracy(ranking: IntArray, labels: IntArray, count: int) -> float:
    hits = (ranking[:, :count] == labels[:, None]).any(axis=1)
    return int(hits.sum()) / len(labels)
