"""The settings of a timeline on their own: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError

DEFAULT_HIGH = 0.5  # of a softmax: more probable than all other classes together
LOW_OF_HIGH = 0.8  # the lower threshold as a part of the upper one
SMOOTHED_WINDOWS = 3  # where no length is given: one window that differs from both its neighbours makes no event


@dataclass(frozen=True)
class TimelineConfig:
    """How windows lie in a video, and what of their scores makes an event."""

    window: float | None = None
    """Window length in seconds, over which the model's frames are spread; null: the model's own sampling."""
    step: float | None = None
    """Seconds from the start of one window to the next; null: half a window."""
    smooth: float | None = None
    """Seconds over which scores are averaged, centred; 0: no smoothing; null: three windows."""
    high: float | None = None
    """Score at which an event begins and ends, in (0, 1]; null: 0.5, or each label's own threshold if it has one."""
    low: float | None = None
    """A dip below high that stays at or above this, in (0, high], does not end an event; null: 0.8 times high."""
    min_seconds: float = 0.0
    """Events shorter than this many seconds are dropped."""
    merge_seconds: float = 0.0
    """Events of the same label with a gap of at most this many seconds are merged."""
    batch_size: int = 8
    """Windows per forward pass."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("window", "step"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {value:g}; it is in seconds, above 0, such as --{name} 2")
        for name in ("smooth", "min_seconds", "merge_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"{name} is {value:g}; it is in seconds, at least 0")
        check_thresholds(self.high, self.low)
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; it is a number of windows, at least 1")


def check_thresholds(high: float | None, low: float | None) -> None:
    """Check the two thresholds of events, where they are given.

    Raises:
        ConfigError: If one is out of range, or the lower is above the upper.
    """
    for name, value in (("high", high), ("low", low)):
        if value is not None and not 0 < value <= 1:
            raise ConfigError(f"{name} is {value:g}; it is a score above 0 and at most 1, such as --{name} 0.5")
    if low is not None and low > (DEFAULT_HIGH if high is None else high):
        upper = DEFAULT_HIGH if high is None else high
        raise ConfigError(
            f"low is {low:g} and high is {upper:g}; low says how far the score of an event may dip below high: give "
            "a --low of at most --high"
        )
