"""Metrics of a choice between classes, from labels and probabilities alone. `n` videos, `K` classes.

What is computed from both is scikit-learn's. Those of several labels at once are in `label_metrics.py`, those of a
regression in `value_metrics.py`; `results.py` chooses between the three. All three import scikit-learn where they
compute: with what it brings along it takes as long as torch, and a training run has nothing to evaluate for hours.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.evaluation.uncertainty import Bin as Bin
from videomae.evaluation.uncertainty import Interval as Interval
from videomae.evaluation.uncertainty import accuracy_interval, bootstrap_interval, reliability
from videomae.evaluation.uncertainty import wilson_interval as wilson_interval

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TOP_K = 5


@dataclass(frozen=True)
class Metrics:
    """How good the predictions on a set of videos are. Accuracies are fractions in [0, 1]."""

    num_videos: int
    """n, videos that were classified."""
    top1: float
    """Fraction of videos whose most probable class is the true one."""
    top1_interval: Interval
    """95 % interval of `top1`: the chance in which videos were drawn, not the seed of the training. A bootstrap over
    groups where there are groups, else Wilson's."""
    top5: float | None
    """Fraction of videos with the true class among the five most probable; None where K <= 5, it would be 1."""
    per_class: tuple[float | None, ...]
    """`[K]` top-1 accuracy of the videos of each class, its recall; None for a class without videos."""
    precision: tuple[float | None, ...]
    """`[K]` fraction of the videos predicted as a class that are of it; None for a class that is never predicted."""
    mean_class: float
    """Mean of `per_class` over the classes that have videos."""
    mean_class_interval: Interval
    """95 % bootstrap interval of `mean_class`, over groups where there are groups, else over videos."""
    confusion: tuple[tuple[int, ...], ...]
    """`[K, K]` numbers of videos: row = true class, column = predicted class."""
    calibration_error: float
    """Expected calibration error of the most probable class, in [0, 1]."""
    reliability: tuple[Bin, ...]
    """Ten equal bins of the probability of the most probable class."""
    num_groups: int | None = None
    """Groups that the intervals are over; None: the videos have none, each counts as independent of the others."""

    @property
    def score(self) -> float:
        """One figure to compare models by, the larger the better."""
        return self.top1

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values, without those that grow with K."""
        return {
            "num_videos": self.num_videos,
            "top1": self.top1,
            "top1_interval_95": [self.top1_interval.low, self.top1_interval.high],
            "top5": self.top5,
            "mean_class": self.mean_class,
            "mean_class_interval_95": [self.mean_class_interval.low, self.mean_class_interval.high],
            "calibration_error": self.calibration_error,
            "num_groups": self.num_groups,
        }

    def details(self) -> dict[str, list[Any]]:
        """Return what grows with K, one entry a class, as plain JSON values."""
        pairs = [[[column, count] for column, count in enumerate(row) if count] for row in self.confusion]
        return {"per_class": list(self.per_class), "precision": list(self.precision), "confusion": pairs}

    def lines(self) -> list[str]:
        """Return the figures for people."""
        interval, mean = self.top1_interval, self.mean_class_interval
        over = "" if self.num_groups is None else f" over {self.num_groups} groups"
        return [
            f"top-1 {self.top1:.2%} (95 % interval{over} {interval.low:.1%} to {interval.high:.1%})",
            f"videos {self.num_videos}",
            *([] if self.top5 is None else [f"top-5 {self.top5:.2%}"]),
            f"mean over classes {self.mean_class:.2%} (95 % interval{over} {mean.low:.1%} to {mean.high:.1%})",
            f"calibration error {self.calibration_error:.2%}",
        ]

    def table(self, names: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Return columns and rows of what is known of each class."""
        counts = [sum(row) for row in self.confusion]
        predicted = np.sum(self.confusion, axis=0).tolist()
        rows = zip(names, counts, self.per_class, predicted, self.precision, strict=True)
        return ("class", "videos", "accuracy", "predicted", "precision"), list(rows)


def compute_metrics(probabilities: FloatArray, labels: IntArray, groups: IntArray | None = None) -> Metrics:
    """Compare predictions with true classes.

    Args:
        probabilities: `[n, K]` float64, one row a video; any score that grows with the class's probability will do
            for all figures but the calibration.
        labels: `[n]` int64, true classes in [0, K).
        groups: `[n]` numbers of the groups that intervals are over, see `group_numbers`; None: each video is its own.

    Returns:
        The figures. Of equally probable classes the one with the smaller id counts as more probable. The same
        videos give the same intervals: their random samples do not depend on anything else.

    Raises:
        ValueError: If the shapes do not fit, there is no video, or a label is out of range.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

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
    predictions, ids = ranking[:, 0], np.arange(num_classes)
    confusion = confusion_matrix(labels, predictions, labels=ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without videos, whose figures become None here
        precision, recall, _, _ = precision_recall_fscore_support(
            labels, predictions, labels=ids, zero_division=np.nan
        )
    correct = predictions == labels
    num_correct = int(correct.sum())
    units = np.arange(num_videos) if groups is None else groups
    present = [value for value in recall.tolist() if not math.isnan(value)]
    error, bins = reliability(np.clip(probabilities.max(axis=1), 0.0, 1.0), correct)
    return Metrics(
        num_videos=num_videos,
        top1=num_correct / num_videos,
        top1_interval=wilson_interval(num_correct, num_videos)
        if groups is None
        else accuracy_interval(correct, groups, rng=np.random.default_rng(0)),
        top5=_top_k_accuracy(ranking, labels, TOP_K) if num_classes > TOP_K else None,
        per_class=defined(recall),
        precision=defined(precision),
        mean_class=sum(present) / len(present),
        mean_class_interval=_mean_class_interval(correct, labels, units, num_classes=num_classes),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        calibration_error=error,
        reliability=bins,
        num_groups=None if groups is None else len(np.unique(groups)),
    )


def rank_classes(probabilities: FloatArray) -> IntArray:
    """Return the class ids from most to least probable, `[n, K]`; ties by ascending id."""
    return np.argsort(-probabilities, axis=1, kind="stable").astype(np.int64)


def defined(values: FloatArray) -> tuple[float | None, ...]:
    """Return figures with None for those that are not defined."""
    return tuple(None if math.isnan(value) else value for value in values.tolist())


def _top_k_accuracy(ranking: IntArray, labels: IntArray, count: int) -> float:
    from sklearn.metrics import top_k_accuracy_score

    ids = np.arange(ranking.shape[1])
    places = np.empty_like(ranking)
    np.put_along_axis(places, ranking, ids[None], axis=1)
    return float(top_k_accuracy_score(labels, -places, k=count, labels=ids))  # of places none are equal


def _mean_class_interval(
    correct: NDArray[np.bool_], labels: IntArray, units: IntArray, *, num_classes: int
) -> Interval:
    """Return the bootstrap interval of the mean over classes; a class that is not drawn does not count.

    As scikit-learn's balanced accuracy with sample weights, which takes 30 times as long for thousands of draws.
    """
    if correct.all() or not correct.any():
        count = len(np.unique(units))
        return wilson_interval(count if correct.all() else 0, count)

    def figure(weights: FloatArray) -> float:
        drawn = np.bincount(labels, weights, num_classes)
        right = np.bincount(labels, weights * correct, num_classes)
        return float((right[drawn > 0] / drawn[drawn > 0]).mean())

    return bootstrap_interval(figure, units, rng=np.random.default_rng(0))
