"""The settings of a dry run, without what carries it out: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError


@dataclass(frozen=True)
class PlanConfig:
    """What a dry run is told besides the recipe."""

    rate: float | None = None
    """Clips a second of all processes together, for the duration; docs/performance.md has measured ones."""
    num_videos: int | None = None
    """Training videos, where there are none here yet; null: those of data.train."""
    processes: int = 1
    """Devices that share a step."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in (("rate", self.rate), ("num_videos", self.num_videos), ("processes", self.processes)):
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"plan.{name} is {value:g}; use a number above 0")
