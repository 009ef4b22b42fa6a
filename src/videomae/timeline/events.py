"""From scores over time to events: hysteresis, merging, least length.

An event begins where the score reaches the upper threshold and ends where it last falls below it, each time on the
line between two scores. A dip that stays at or above the lower threshold does not end it. Scores are taken one by
one, so that a file and a live stream give the same events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from videomae.errors import ConfigError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Event:
    """Something that happens in a video."""

    label: str
    """The class."""
    label_id: int
    """Its id."""
    start_seconds: float
    """When it begins, from the beginning of the video."""
    end_seconds: float
    """When it is over."""
    mean: float
    """Mean score of its windows, in [0, 1]."""
    peak: float
    """Highest score."""
    peak_seconds: float
    """The centre of the window with that score."""

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.end_seconds - self.start_seconds


@dataclass
class Stretch:
    """A stretch of time in which a score is high."""

    start: float
    """When it began, seconds."""
    end: float
    """When it was over, or the time of the last high score so far."""
    total: float = 0.0
    """Sum of its scores."""
    count: int = 0
    """Their number."""
    peak: float = 0.0
    """The highest of them."""
    peak_seconds: float = 0.0
    """Its time."""

    def add(self, seconds: float, score: float) -> None:
        """Take one more score."""
        self.total, self.count, self.end = self.total + score, self.count + 1, seconds
        if self.count == 1 or score > self.peak:
            self.peak, self.peak_seconds = score, seconds

    def event(self, label: str, label_id: int) -> Event:
        """Return it as an event of a class."""
        mean = self.total / self.count
        return Event(label, label_id, self.start, self.end, mean, self.peak, self.peak_seconds)

    def joined(self, later: Stretch) -> Stretch:
        """Return both as one."""
        peak, peak_seconds = max((self.peak, -self.peak_seconds), (later.peak, -later.peak_seconds))
        return Stretch(self.start, later.end, self.total + later.total, self.count + later.count, peak, -peak_seconds)


class Hysteresis:
    """Finds the stretches of one label in scores that come one by one."""

    def __init__(self, *, high: float, low: float, begin: float) -> None:
        """Begin below both thresholds.

        Args:
            high: A stretch begins where the score reaches this.
            low: It is over once the score falls below this.
            begin: When the first score counts from: the beginning of the video.
        """
        self._high, self._low = high, low
        self._begin: float | None = begin
        self._before = (begin, 0.0)
        self._dip: list[tuple[float, float]] = []  # scores since the last one that was high
        self._fall = begin  # when the dip began
        self.stretch: Stretch | None = None
        """The stretch that is not over yet; None without one."""

    def update(self, seconds: float, score: float) -> Stretch | None:
        """Take the next score; returns the stretch that it ended."""
        before, self._before = self._before, (seconds, score)
        begin, self._begin = self._begin, None
        if score >= self._high:
            if self.stretch is None:
                start = begin if begin is not None else self._crossing(before, seconds, score)
                self.stretch = Stretch(start, seconds)
            for point in (*self._dip, (seconds, score)):
                self.stretch.add(*point)
            self._dip = []
            return None
        if self.stretch is None:
            return None
        if not self._dip:
            self._fall = self._crossing(before, seconds, score)
        self._dip.append((seconds, score))
        return self._over(self._fall) if score < self._low else None

    def finish(self, seconds: float) -> Stretch | None:
        """End at a time; returns the stretch that was not over."""
        return self._over(self._fall if self._dip else seconds)

    def _over(self, seconds: float) -> Stretch | None:
        ended, self.stretch, self._dip = self.stretch, None, []
        if ended is not None:
            ended.end = seconds
        return ended

    def _crossing(self, before: tuple[float, float], seconds: float, score: float) -> float:
        """Return when the line from the score before to this one crosses the upper threshold."""
        then, earlier = before
        return then + (seconds - then) * (self._high - earlier) / (score - earlier)


def smoothed(scores: FloatArray, *, width: int) -> FloatArray:
    """Average `[W, K]` scores over `width` windows around each, an odd number; at the ends over those there are."""
    if width <= 1 or not len(scores):
        return scores
    half = width // 2
    sums = np.concatenate([np.zeros((1, scores.shape[1])), np.cumsum(scores, axis=0)])
    firsts = np.maximum(np.arange(len(scores)) - half, 0)
    lasts = np.minimum(np.arange(len(scores)) + half + 1, len(scores))
    means: FloatArray = (sums[lasts] - sums[firsts]) / (lasts - firsts)[:, None]
    return means


def find_events(
    seconds: FloatArray,
    scores: FloatArray,
    labels: Mapping[int, str],
    *,
    high: Sequence[float],
    low: Sequence[float],
    begin: float,
    end: float,
    min_seconds: float = 0.0,
    merge_seconds: float = 0.0,
) -> tuple[Event, ...]:
    """Find the events of a video.

    Args:
        seconds: `[W]`, the centres of the windows, ascending.
        scores: `[W, K]`, smoothed, in [0, 1].
        labels: Names of the classes to look for, by id.
        high: Upper threshold of each of the K classes.
        low: Lower threshold of each.
        begin: When the first window begins; an event that it belongs to begins there.
        end: When the last one is over.
        min_seconds: Shorter events are left out, after merging.
        merge_seconds: Events of one label with at most this much time between them are one.

    Returns:
        The events by start, then label id.
    """
    found: list[Event] = []
    for label_id, label in labels.items():
        column = scores[:, label_id]
        if not len(column) or column.max() < high[label_id]:
            continue
        finder = Hysteresis(high=high[label_id], low=low[label_id], begin=begin)
        stretches = [finder.update(*point) for point in zip(seconds.tolist(), column.tolist(), strict=True)]
        ended = [one for one in (*stretches, finder.finish(end)) if one is not None]
        events = [one.event(label, label_id) for one in _merged(ended, merge_seconds)]
        found += [event for event in events if event.seconds >= min_seconds]
    return tuple(sorted(found, key=lambda event: (event.start_seconds, event.label_id)))


def chosen_labels(wanted: Sequence[str] | None, classes: Sequence[str]) -> dict[int, str]:
    """Return the classes to look for by id: those that are named, or all.

    Raises:
        ConfigError: If the model has no such class.
    """
    if not wanted:
        return dict(enumerate(classes))
    for name in wanted:
        if name not in classes:
            close = get_close_matches(name, classes, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(classes[:12])}"
            more = f" and {len(classes) - 12} others" if not close and len(classes) > 12 else ""
            raise ConfigError(f"label {name!r} is none of the model's {len(classes)} classes: {hint}{more}")
    return {classes.index(name): name for name in wanted}


def _merged(stretches: Iterable[Stretch], gap_seconds: float) -> list[Stretch]:
    merged: list[Stretch] = []
    for one in stretches:
        if merged and gap_seconds > 0 and one.start - merged[-1].end <= gap_seconds:
            merged[-1] = merged[-1].joined(one)
        else:
            merged.append(one)
    return merged
