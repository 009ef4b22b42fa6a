"""What fewer tokens of a clip change and gain: decisions beside those from all tokens, and the time of both.

`n` videos, `K` outputs, `b` clips of a forward pass.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from videomae.data.configs import ProblemType
from videomae.errors import ConfigError
from videomae.evaluation.metrics import rank_classes
from videomae.evaluation.uncertainty import Interval, accuracy_interval, group_numbers
from videomae.inference.token_merging import MergingClassifier
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.patches import TokenGrid

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Decisions from fewer tokens beside those from all, on the same clips."""

    speed: float
    """What was asked for."""
    tokens: int
    """N, tokens of a clip."""
    merged: int
    """r, of which each block merged so many."""
    fewer_operations: float
    """Operations of a forward pass with all tokens over those with fewer."""
    measured: float
    """The same of the time that forward passes took, the search for tokens alike included: the median over batches,
    in each of which both were done. The first batch, which warms up, counts only where it is the only one."""
    agreement: float
    """Fraction of the videos of which both decide the same: class, or labels that are present."""
    interval: Interval
    """95 % interval of `agreement`, over groups where there are groups."""
    num_videos: int
    """n."""
    top1: float | None
    """Accuracy of a choice between classes with all tokens."""

    def lines(self) -> list[str]:
        """Return the figures for people."""
        also = "" if self.top1 is None else f"; top-1 with all tokens {self.top1:.2%}"
        interval = f"95 % interval {self.interval.low:.1%} to {self.interval.high:.1%}"
        merged = f"{self.merged} of {self.tokens} tokens merged in every block"
        fewer = f"{merged}, {self.fewer_operations:.2f} times fewer operations"
        return [
            f"speed {self.speed:g}: {fewer}; forward passes measured {self.measured:.2f} times as fast",
            f"decided as with all tokens {self.agreement:.2%} ({interval}) of {self.num_videos} videos{also}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return what `to_dict` was called on."""
        return cls(**{**values, "interval": Interval(**values["interval"])})


class Comparison:
    """Classifies clips from fewer tokens and from all, and times both.

    Args:
        model: The classifier, as it is called for all tokens.
        speed: Above 1.
        problem: What the outputs are.
        num_videos: n.

    Raises:
        ConfigError: If the model has too few tokens for the speed, or its outputs are no decisions.
    """

    def __init__(
        self, model: VideoMAEForVideoClassification, speed: float, *, problem: ProblemType, num_videos: int
    ) -> None:
        if problem == "regression":
            raise ConfigError(
                f"speed is {speed:g}, and the model predicts values: what can agree are decisions; use speed 1 "
                "here, and compare the values of videomae predict with and without --speed"
            )
        self.merging = MergingClassifier(model, speed)
        self.probabilities: FloatArray = np.zeros((num_videos, model.config.num_labels))
        """`[n, K]` float64, from all tokens."""
        self._problem = problem
        self._grid: TokenGrid | None = None
        self._ratios: list[float] = []

    def logits(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[b, K]` on the CPU, from fewer tokens and from all, for clips `[b, T, C, H, W]`."""

        def call(classifier: Callable[[Tensor], Any]) -> tuple[Tensor, float]:
            start = time.perf_counter()
            logits: Tensor = classifier(pixel_values).logits.cpu()
            return logits, time.perf_counter() - start

        model = self.merging.model
        self._grid = model.videomae.embeddings.grid_of(pixel_values)
        # By turns first, since the second finds the clips in the processor's cache.
        if len(self._ratios) % 2:
            (long, long_seconds), (short, short_seconds) = call(model), call(self.merging)
        else:
            (short, short_seconds), (long, long_seconds) = call(self.merging), call(model)
        self._ratios.append(long_seconds / short_seconds)
        return short, long

    def result(
        self,
        fewer: FloatArray,
        numbers: Sequence[int],
        labels: Sequence[int],
        groups: Sequence[str | None],
        thresholds: Sequence[float],
    ) -> Agreement:
        """Compare the decisions.

        Args:
            fewer: `[n, K]` probabilities from fewer tokens.
            numbers: Rows of both that count, at least one.
            labels: True class of each of them, for a choice between classes.
            groups: Their groups.
            thresholds: `[K]` scores from which labels are present, for several of them.
        """
        assert self._grid is not None  # a video was classified
        short, long = fewer[list(numbers)], self.probabilities[list(numbers)]
        top1 = None
        if self._problem == "single_label_classification":
            first, second = (rank_classes(one)[:, 0] for one in (short, long))
            same, top1 = first == second, float((second == np.array(labels)).mean())
        else:
            same = ((short >= np.array(thresholds)) == (long >= np.array(thresholds))).all(axis=1)
        known = group_numbers(groups)
        units = np.arange(len(same)) if known is None else known
        return Agreement(
            speed=self.merging.speed,
            tokens=self._grid.num_tokens,
            merged=self.merging.merged(self._grid),
            fewer_operations=self.merging.fewer_operations(self._grid),
            measured=statistics.median(self._ratios[1:] or self._ratios),
            agreement=float(same.mean()),
            interval=accuracy_interval(same, units, rng=np.random.default_rng(0)),
            num_videos=len(same),
            top1=top1,
        )
