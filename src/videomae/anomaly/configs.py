"""Settings of anomaly detection, on their own: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError


@dataclass(frozen=True)
class AnomalyConfig:
    """How a detector is fitted."""

    false_alarms: float = 0.01
    """Fraction of the windows of ordinary footage that may be reported as unusual."""
    masks: int = 4
    """Masks drawn for each window; the reconstruction error is averaged over them."""
    window: float | None = None
    """Window length in seconds; null: that of the model's clips."""
    step: float | None = None
    """Seconds from the start of one window to the next; null: half a window."""
    batch_size: int = 4
    """Windows per forward pass; each is repeated once per mask."""
    seed: int = 0
    """Random seed for the masks; a detector draws the same masks for every window."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 < self.false_alarms < 1.0:
            raise ConfigError(
                f"false_alarms is {self.false_alarms:g}; it is a fraction of ordinary windows, between 0 and 1, "
                "such as 0.01"
            )
        for name, value in (("masks", self.masks), ("batch_size", self.batch_size)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it is a number of at least 1")
        for name, seconds in (("window", self.window), ("step", self.step)):
            if seconds is not None and not 0 < seconds < float("inf"):
                raise ConfigError(f"{name} is {seconds:g}; it is in seconds, above 0, such as --{name} 2")
