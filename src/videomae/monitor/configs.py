"""The settings of the monitor, without what carries them out: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError


@dataclass(frozen=True)
class MonitorConfig:
    """What is measured during pre-training beside the loss; see docs/monitor.md."""

    enabled: bool = True
    """Hold out videos and measure on them; false: train on all videos."""
    held_out: float = 0.05
    """Fraction of the videos to hold out of training for measuring, in [0, 0.5]."""
    max_clips: int = 64
    """Maximum number of held-out videos, at least 4."""
    max_cost: float = 0.02
    """Maximum fraction of the run's computation to spend on measuring, in (0, 0.5]."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 <= self.held_out <= 0.5:
            hint = f": did you mean {self.held_out / 100:g}?" if 1.0 < self.held_out <= 50.0 else ""
            raise ConfigError(
                f"monitor.held_out is {self.held_out:g}; it is a fraction of the videos in [0, 0.5]{hint}"
            )
        if self.max_clips < 4:
            raise ConfigError(f"monitor.max_clips is {self.max_clips}; use at least 4, or --monitor.enabled false")
        if not 0.0 < self.max_cost <= 0.5:
            hint = f": did you mean {self.max_cost / 100:g}?" if 1.0 <= self.max_cost <= 50.0 else ""
            raise ConfigError(f"monitor.max_cost is {self.max_cost:g}; it is a fraction of the run in (0, 0.5]{hint}")
