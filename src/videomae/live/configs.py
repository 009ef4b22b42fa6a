"""The settings of a live stream on their own: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError
from videomae.timeline.configs import check_thresholds


@dataclass(frozen=True)
class StreamConfig:
    """How often a stream is classified, what makes an event, and how a lost connection is met."""

    rate: float = 2.0
    """Decisions a second; fewer where the model is slower, which is counted."""
    smooth: int = 3
    """Decisions over which scores are averaged; 1: none."""
    high: float | None = None
    """An event begins at this score, in (0, 1]; null: 0.5, or each label's own threshold where there are."""
    low: float | None = None
    """An event is over below this score, in (0, high]; null: 0.8 of high."""
    min_seconds: float = 0.0
    """An event is told once it has lasted this long."""
    cooldown: float = 0.0
    """Seconds after an event in which none of its label is told."""
    max_latency: float = 1.0
    """Seconds that reading may lag behind the source before frames are dropped to catch up."""
    timeout: float = 5.0
    """Seconds without a frame after which the connection counts as lost."""
    connect_timeout: float = 10.0
    """Seconds in which the first frame has to come; else the command ends with an error."""
    max_backoff: float = 30.0
    """Longest wait between two tries to connect again, seconds; the first is half a second, each next twice that."""
    give_up: float | None = None
    """Seconds without a connection after which to end; null: never."""
    playback_speed: float = 1.0
    """How fast a file is played; 1: as it was recorded."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("rate", "max_latency", "timeout", "connect_timeout", "max_backoff", "playback_speed"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {value:g}; it must be above 0, such as --{name} 2")
        for name in ("min_seconds", "cooldown", "give_up"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"{name} is {value:g}; it is in seconds, at least 0")
        if self.smooth < 1:
            raise ConfigError(f"smooth is {self.smooth}; it is a number of decisions, at least 1")
        check_thresholds(self.high, self.low)
