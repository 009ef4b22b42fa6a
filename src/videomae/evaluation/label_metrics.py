"""Metrics where a video may have several labels or none, and the thresholds from which a label counts as present.

`n` videos, `K` labels. All figures are scikit-learn's, but for the intervals.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.evaluation.metrics import defined
from videomae.evaluation.uncertainty import Bin, Interval, bootstrap_interval, reliability
from videomae.inference.scores import DEFAULT_THRESHOLD

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class LabelMetrics:
    """How good the scores of several labels are. All figures are fractions in [0, 1]."""

    num_videos: int
    """n, videos that were scored."""
    mean_average_precision: float | None
    """Mean of `average_precision` over the labels that some video has; None where no video has a label."""
    mean_average_precision_interval: Interval | None
    """Its 95 % bootstrap interval, over groups where there are groups, else over videos."""
    average_precision: tuple[float | None, ...]
    """`[K]` of each label; None where no video has it."""
    num_positive: tuple[int, ...]
    """`[K]` videos that have the label."""
    thresholds: tuple[float, ...]
    """`[K]` score from which a label counts as present in the next three."""
    precision: tuple[float | None, ...]
    """`[K]` fraction of the videos said to have a label that have it; None where it is never said."""
    recall: tuple[float | None, ...]
    """`[K]` fraction of the videos with a label that are said to have it; None where no video has it."""
    micro_f1: float
    """Harmonic mean of precision and recall over all pairs of video and label."""
    macro_f1: float
    """Mean over the labels of that of each; a label that no video has and none is said to have is left out."""
    calibration_error: float
    """Expected calibration error over all pairs of video and label."""
    reliability: tuple[Bin, ...]
    """Ten equal bins of the score; their counts are of pairs."""
    num_groups: int | None = None
    """Groups that the interval is over; None: each video counts as independent of the others."""

    @property
    def score(self) -> float:
        """One figure to compare models by, the larger the better."""
        return self.mean_average_precision or 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values, without those that grow with K."""
        interval = self.mean_average_precision_interval
        return {
            "num_videos": self.num_videos,
            "mean_average_precision": self.mean_average_precision,
            "mean_average_precision_interval_95": None if interval is None else [interval.low, interval.high],
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
            "num_groups": self.num_groups,
        }

    def details(self) -> dict[str, list[Any]]:
        """Return what grows with K, one entry a label, as plain JSON values."""
        names = ("average_precision", "num_positive", "thresholds", "precision", "recall")
        return {name: list(getattr(self, name)) for name in names}

    def lines(self) -> list[str]:
        """Return the figures for people."""
        interval = self.mean_average_precision_interval
        over = "" if self.num_groups is None else f" over {self.num_groups} groups"
        spread = "" if interval is None else f" (95 % interval{over} {interval.low:.1%} to {interval.high:.1%})"
        mean = "none" if self.mean_average_precision is None else f"{self.mean_average_precision:.2%}"
        return [
            f"mean average precision {mean}{spread}",
            f"videos {self.num_videos}",
            f"F1 {self.micro_f1:.2%} over all pairs, {self.macro_f1:.2%} mean over labels",
            f"calibration error {self.calibration_error:.2%}",
        ]

    def table(self, names: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Return columns and rows of what is known of each label."""
        figures = (self.num_positive, self.average_precision, self.thresholds, self.precision, self.recall)
        columns = ("label", "videos", "average precision", "threshold", "precision", "recall")
        return columns, list(zip(names, *figures, strict=True))


def compute_label_metrics(
    scores: FloatArray, targets: FloatArray, thresholds: Sequence[float], groups: IntArray | None = None
) -> LabelMetrics:
    """Compare scores with the labels that videos have.

    Args:
        scores: `[n, K]` in [0, 1], one row a video.
        targets: `[n, K]` 0 or 1.
        thresholds: `[K]` score from which a label counts as present.
        groups: `[n]` numbers of the groups that the interval is over; None: each video is its own.

    Raises:
        ValueError: If the shapes do not fit, or there is no video.
    """
    if scores.ndim != 2 or scores.shape != targets.shape or len(thresholds) != scores.shape[1] or not len(scores):
        raise ValueError(
            f"scores have shape {list(scores.shape)}, targets {list(targets.shape)} and thresholds "
            f"{len(thresholds)}; they must be [n, K], [n, K] and K, and n at least 1"
        )
    truth, said = targets > 0.5, scores >= np.asarray(thresholds)
    columns = [_judged(truth[:, number], said[:, number]) for number in range(truth.shape[1])]
    precision, recall, each = (np.array(one, dtype=np.float64) for one in zip(*columns, strict=True))
    _, _, micro = _judged(truth.ravel(), said.ravel())
    each = each[~np.isnan(each)]
    found = _average_precisions(scores, truth)
    units = np.arange(len(scores)) if groups is None else groups
    error, bins = reliability(scores.ravel(), truth.ravel())
    interval = None
    if not np.isnan(found).all():
        weighted = weighted_average_precisions(scores, truth)
        interval = bootstrap_interval(lambda one: _mean(weighted(one)), units, rng=np.random.default_rng(0))
    mean = _mean(found)
    return LabelMetrics(
        num_videos=len(scores),
        mean_average_precision=None if math.isnan(mean) else mean,
        mean_average_precision_interval=interval,
        average_precision=defined(found),
        num_positive=tuple(truth.sum(axis=0).tolist()),
        thresholds=tuple(thresholds),
        precision=defined(precision),
        recall=defined(recall),
        micro_f1=0.0 if math.isnan(micro) else micro,
        macro_f1=float(each.mean()) if len(each) else 0.0,
        calibration_error=error,
        reliability=bins,
        num_groups=None if groups is None else len(np.unique(groups)),
    )


def best_thresholds(scores: FloatArray, targets: FloatArray) -> tuple[float, ...]:
    """Return for each label the threshold with the largest F1 on these videos, `[K]`.

    It lies halfway between the score from which F1 is largest and the next lower one, so that a score that rounding
    moves a little stays on its side. A label that no video has, or all have, keeps 0.5.

    Args:
        scores: `[n, K]` in [0, 1], of videos that the model is not tested on.
        targets: `[n, K]` 0 or 1.
    """
    from sklearn.metrics import precision_recall_curve

    chosen = []
    for column, truth in zip(scores.T, targets.T > 0.5, strict=True):
        if truth.all() or not truth.any():
            chosen.append(DEFAULT_THRESHOLD)
            continue
        precision, recall, levels = precision_recall_curve(truth, column)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        level = float(levels[int(np.argmax(f1[:-1]))])  # the last point has no level
        below = column[column < level]
        chosen.append((level + float(below.max())) / 2 if len(below) else level / 2)
    return tuple(chosen)


def _judged(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of one label; NaN where they are not defined."""
    from sklearn.metrics import precision_recall_fscore_support

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, said, average="binary", zero_division=np.nan
        )
    return float(precision), float(recall), float(f1)


def _average_precisions(scores: FloatArray, truth: NDArray[np.bool_]) -> FloatArray:
    """Return the average precision of each label, `[K]`; NaN where no video has it."""
    from sklearn.metrics import average_precision_score

    columns = zip(scores.T, truth.T, strict=True)
    return np.array([average_precision_score(here, one) if here.any() else math.nan for one, here in columns])


def weighted_average_precisions(scores: FloatArray, truth: NDArray[np.bool_]) -> Callable[[FloatArray], FloatArray]:
    """Return what gives the average precision of each label for weights of the videos.

    As scikit-learn's with `sample_weight`, which takes 50 times as long, since it sorts and checks anew each time.

    Args:
        scores: `[n, K]`.
        truth: `[n, K]`.

    Returns:
        A function from `[n]` weights, at least 0, to `[K]`; NaN where no video with a weight has the label.
    """
    order = np.argsort(-scores, axis=0, kind="stable")  # [n, K]
    falling = np.take_along_axis(scores, order, axis=0)
    there = np.take_along_axis(truth, order, axis=0)
    places = np.arange(len(scores))[:, None]
    is_last = np.vstack([falling[1:] != falling[:-1], np.ones((1, scores.shape[1]), dtype=np.bool_)])
    # Of equal scores all count at once: the precision of each is that after the last of them.
    last = np.flip(np.minimum.accumulate(np.flip(np.where(is_last, places, len(scores)), axis=0), axis=0), axis=0)

    def figure(weights: FloatArray) -> FloatArray:
        drawn = weights[order]
        hits = drawn * there
        precision = np.cumsum(hits, axis=0) / np.maximum(np.cumsum(drawn, axis=0), 1e-300)
        total = hits.sum(axis=0)
        summed = (hits * np.take_along_axis(precision, last, axis=0)).sum(axis=0)
        return np.where(total > 0, summed / np.maximum(total, 1e-300), np.nan)

    return figure


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
