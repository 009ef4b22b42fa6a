"""The settings of a dry run, without what carries it out: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError


@dataclass(frozen=True)
class PlanConfig:
    """Settings of a dry run."""

    rate: float | None = None
    """Clips per second over all processes, to estimate the duration; docs/performance.md has measured rates."""
    num_videos: int | None = None
    """Number of training videos, if they are not on this machine yet; null: those of data.train."""
    processes: int = 1
    """Number of devices that share a step."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in (("rate", self.rate), ("num_videos", self.num_videos), ("processes", self.processes)):
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"plan.{name} is {value:g}; use a number above 0")
