"""The settings of checking and of preparing a collection, for which `--help` must not wait."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError


@dataclass(frozen=True)
class CheckConfig:
    """How a collection is checked."""

    num_frames: int = 16
    """Frames of a clip: a video with fewer frames than a clip spans is too short."""
    stride: int = 4
    """Distance of neighbouring frames of a clip, in frames of the video."""
    workers: int | None = None
    """Processes that decode; null: one for each processor."""
    clips_per_second: float | None = None
    """What training reads: says how many workers that needs."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in (("num_frames", self.num_frames), ("stride", self.stride)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it is a number of frames, at least 1")
        check_workers(self.workers)
        if self.clips_per_second is not None and not self.clips_per_second > 0:
            raise ConfigError(f"clips_per_second is {self.clips_per_second:g}; it is a rate above 0")

    @property
    def span(self) -> int:
        """Frames of a video from the first frame of a clip to its last."""
        return (self.num_frames - 1) * self.stride + 1


def check_workers(workers: int | None) -> None:
    """Check a number of processes.

    Raises:
        ConfigError: If it is below 1.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; it is a number of processes, at least 1")
