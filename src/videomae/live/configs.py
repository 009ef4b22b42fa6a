"""The settings of a live stream on their own: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError
from videomae.timeline.configs import check_thresholds


@dataclass(frozen=True)
class StreamConfig:
    """How often a stream is classified, what makes an event, and how a lost connection is met."""

    rate: float = 2.0
    """Decisions per second; if the model is slower, decisions are skipped and counted."""
    smooth: int = 3
    """Number of decisions over which scores are averaged; 1: no smoothing."""
    high: float | None = None
    """Score at which an event begins, in (0, 1]; null: 0.5, or each label's own threshold if it has one."""
    low: float | None = None
    """Score, in (0, high], below which an event is over; null: 0.8 times high."""
    min_seconds: float = 0.0
    """Seconds that an event must last before it is reported."""
    cooldown: float = 0.0
    """Seconds after an event in which no other event of its label is reported."""
    max_latency: float = 1.0
    """Seconds that reading may lag behind the source before frames are dropped to catch up."""
    timeout: float = 5.0
    """Seconds without a frame after which the connection counts as lost."""
    connect_timeout: float = 10.0
    """Seconds to wait for the first frame before the command exits with an error."""
    max_backoff: float = 30.0
    """Longest wait between attempts to reconnect, in seconds; the first wait is half a second, then it doubles."""
    give_up: float | None = None
    """Seconds without a connection after which the command gives up and exits; null: never."""
    playback_speed: float = 1.0
    """Playback speed of a file; 1: as recorded."""

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
