"""Metrics of a regression, in the units of its values. `n` videos, `K` values of each.

All figures are scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.evaluation.uncertainty import Interval, group_draws, percentiles

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ValueMetrics:
    """How far predicted values are from the true ones."""

    num_videos: int
    """n, videos that values were predicted for."""
    mean_absolute_error: tuple[float, ...]
    """`[K]` in units of the value."""
    mean_absolute_error_interval: tuple[Interval, ...]
    """`[K]` its 95 % bootstrap interval, over groups where there are groups, else over videos."""
    root_mean_squared_error: tuple[float, ...]
    """`[K]` in units of the value."""
    r2: tuple[float | None, ...]
    """`[K]` fraction of the variance that is explained, below 0 where the mean of the true values is nearer to them;
    None where all true values are equal."""
    num_groups: int | None = None
    """Groups that the interval is over; None: each video counts as independent of the others."""

    @property
    def score(self) -> float:
        """One figure to compare models by, the larger the better: mean R2; minus the error of equal true values."""
        pairs = zip(self.r2, self.root_mean_squared_error, strict=True)
        return float(np.mean([-error if r2 is None else r2 for r2, error in pairs]))

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {
            "num_videos": self.num_videos,
            "mean_absolute_error": list(self.mean_absolute_error),
            "root_mean_squared_error": list(self.root_mean_squared_error),
            "r2": list(self.r2),
            "num_groups": self.num_groups,
        }

    def details(self) -> dict[str, list[Any]]:
        """Return what is known of each value besides, as plain JSON values."""
        return {"mean_absolute_error_interval_95": [[one.low, one.high] for one in self.mean_absolute_error_interval]}

    def lines(self) -> list[str]:
        """Return the figures for people."""
        over = "" if self.num_groups is None else f" over {self.num_groups} groups"
        errors, spreads = self.mean_absolute_error, self.mean_absolute_error_interval
        absolute = "; ".join(
            f"{error:.4g} (95 % interval{over} {one.low:.4g} to {one.high:.4g})"
            for error, one in zip(errors, spreads, strict=True)
        )
        squared = ", ".join(f"{error:.4g}" for error in self.root_mean_squared_error)
        explained = ", ".join("none" if one is None else f"{one:.3f}" for one in self.r2)
        return [
            f"mean absolute error {absolute}",
            f"videos {self.num_videos}",
            f"root mean squared error {squared}",
            f"R2 {explained}",
        ]

    def table(self, names: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Return columns and rows of what is known of each value."""
        ends = [f"{one.low:.4g} to {one.high:.4g}" for one in self.mean_absolute_error_interval]
        figures = (self.mean_absolute_error, ends, self.root_mean_squared_error, self.r2)
        columns = ("value", "mean absolute error", "95 % interval", "root mean squared error", "R2")
        return columns, list(zip(names, *figures, strict=True))


def compute_value_metrics(values: FloatArray, targets: FloatArray, groups: IntArray | None = None) -> ValueMetrics:
    """Compare predicted values with the true ones.

    Args:
        values: `[n, K]`, one row a video.
        targets: `[n, K]`.
        groups: `[n]` numbers of the groups that intervals are over; None: each video is its own.

    Raises:
        ValueError: If the shapes do not fit, or there is no video.
    """
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    if values.ndim != 2 or values.shape != targets.shape or not len(values):
        raise ValueError(
            f"values have shape {list(values.shape)} and targets {list(targets.shape)}; they must be [n, K], and n "
            "at least 1"
        )
    units = np.arange(len(values)) if groups is None else groups
    draws = group_draws(np.abs(values - targets).T, units, rng=np.random.default_rng(0))  # [draws, K]
    constant = (targets == targets[:1]).all(axis=0)
    explained = [
        None if same else float(r2_score(true, found))
        for same, true, found in zip(constant, targets.T, values.T, strict=True)
    ]
    return ValueMetrics(
        num_videos=len(values),
        mean_absolute_error=tuple(mean_absolute_error(targets, values, multioutput="raw_values").tolist()),
        mean_absolute_error_interval=tuple(percentiles(column) for column in draws.T),
        root_mean_squared_error=tuple(root_mean_squared_error(targets, values, multioutput="raw_values").tolist()),
        r2=tuple(explained),
        num_groups=None if groups is None else len(np.unique(groups)),
    )
