"""From the scores of a stream's newest clips to events that are told once each."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from videomae.live.configs import StreamConfig
from videomae.timeline.configs import DEFAULT_HIGH, LOW_OF_HIGH
from videomae.timeline.events import FloatArray, Hysteresis, Stretch


@dataclass(frozen=True)
class LiveEvent:
    """Something that begins or is over in a stream."""

    event: Literal["start", "end"]
    """Which of both."""
    label: str
    """The class."""
    label_id: int
    """Its id."""
    seconds: float
    """When it began or was over, from the first frame of the stream."""
    time: str
    """The same by this computer's clock, ISO 8601 with its time zone."""
    score: float
    """Smoothed score of the decision that told it; at the end the highest of the event."""
    duration: float | None
    """At the end: how long it lasted, seconds."""
    latency: float
    """Seconds from the arrival of the newest frame that it was decided from until it was told."""
    why: str = ""
    """At the end: empty, or that the stream was lost or has ended."""

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


@dataclass
class _Label:
    """What is remembered of a class."""

    finder: Hysteresis | None = None  # None: it begins with the next score
    started: Stretch | None = None  # the stretch that was told of
    quiet_until: float = float("-inf")


class DecisionMaker:
    """Smooths scores and tells events: hysteresis, least length, cool-down."""

    def __init__(
        self,
        labels: dict[int, str],
        config: StreamConfig,
        *,
        thresholds: Sequence[float] | None,
        start_time: float,
    ) -> None:
        """Begin.

        Args:
            labels: Classes to look for, by id.
            config: Smoothing and thresholds.
            thresholds: Of each class, where the model has its own; None: 0.5.
            start_time: When the stream began, seconds since 1970.
        """
        self._labels, self._config, self._start_time = labels, config, start_time
        self._scores: deque[tuple[float, FloatArray]] = deque(maxlen=config.smooth)
        self._thresholds = thresholds
        self._found: dict[int, _Label] = {}
        self.suppressed = 0
        """Events that were not told, because they came in a cool-down or were too short."""
        self.smoothed: FloatArray | None = None
        """`[K]`, the last smoothed scores."""

    def decide(self, scores: FloatArray, *, seconds: float, latency: float) -> list[LiveEvent]:
        """Take the scores of a clip.

        Args:
            scores: float64 `[K]`.
            seconds: What time the clip is about, from the first frame of the stream.
            latency: Seconds since its newest frame arrived.

        Returns:
            What began or is over by it.
        """
        self._scores.append((seconds, scores))
        self.smoothed = np.mean([one for _, one in self._scores], axis=0)
        seconds = sum(time for time, _ in self._scores) / len(self._scores)  # what time the mean is about
        events: list[LiveEvent] = []
        for label_id in self._labels:
            known = self._found.setdefault(label_id, _Label())
            if known.finder is None:
                known.finder = self._finder(label_id, seconds)
            score = float(self.smoothed[label_id])
            ended = known.finder.update(seconds, score)
            if ended is not None:
                events += self._told_end(label_id, known, ended, latency, "")
            stretch = known.finder.stretch
            if stretch is None or known.started is not None or stretch.start < known.quiet_until:
                continue
            if stretch.end - stretch.start >= self._config.min_seconds:
                known.started = stretch
                events.append(self._event("start", label_id, stretch.start, score, latency))
        return events

    def on(self) -> dict[str, float]:
        """Return the labels whose events are on, with their last scores; may be called from another thread."""
        smoothed = self.smoothed
        if smoothed is None:
            return {}
        known = list(self._found.items())
        return {self._labels[label_id]: float(smoothed[label_id]) for label_id, one in known if one.started}

    def finish(self, seconds: float, why: str) -> list[LiveEvent]:
        """End all events, because the stream was lost or has ended; what follows begins anew."""
        events: list[LiveEvent] = []
        for label_id, known in self._found.items():
            ended = None if known.finder is None else known.finder.finish(seconds)
            if ended is not None:
                events += self._told_end(label_id, known, ended, 0.0, why)
            known.finder = None
        self._scores.clear()
        return events

    def _finder(self, label_id: int, seconds: float) -> Hysteresis:
        own = DEFAULT_HIGH if self._thresholds is None else self._thresholds[label_id]
        high = own if self._config.high is None else self._config.high
        low = LOW_OF_HIGH * high if self._config.low is None else min(self._config.low, high)
        return Hysteresis(high=high, low=low, begin=seconds)

    def _told_end(self, label_id: int, known: _Label, ended: Stretch, latency: float, why: str) -> list[LiveEvent]:
        was_told, known.started = known.started is not None, None
        if not was_told:
            self.suppressed += 1
            return []
        known.quiet_until = ended.end + self._config.cooldown if self._config.cooldown else float("-inf")
        duration = ended.end - ended.start
        return [self._event("end", label_id, ended.end, ended.peak, latency, duration, why)]

    def _event(
        self,
        kind: Literal["start", "end"],
        label_id: int,
        seconds: float,
        score: float,
        latency: float,
        duration: float | None = None,
        why: str = "",
    ) -> LiveEvent:
        moment = datetime.fromtimestamp(self._start_time + seconds, UTC).astimezone()
        return LiveEvent(
            kind,
            self._labels[label_id],
            label_id,
            round(seconds, 3),
            moment.isoformat(timespec="milliseconds"),
            round(score, 6),
            None if duration is None else round(duration, 3),
            round(latency, 4),
            why,
        )
