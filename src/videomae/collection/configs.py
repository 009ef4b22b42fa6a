"""The settings of checking and of preparing a collection, for which `--help` must not wait."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError


@dataclass(frozen=True)
class CheckConfig:
    """Settings of the check."""

    num_frames: int = 16
    """Frames per clip; videos with fewer frames than a clip spans are too short."""
    stride: int = 4
    """Distance between consecutive frames of a clip, in frames of the video."""
    workers: int | None = None
    """Number of decoding processes; null: one per processor."""
    clips_per_second: float | None = None
    """Clips per second that training reads, to report how many workers that needs."""

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


@dataclass(frozen=True)
class PrepareConfig:
    """Encoding for training; docs/collections.md has the measurements behind the defaults."""

    short_side: int = 256
    """Shorter side of the frames in pixels; smaller frames keep their size."""
    crf: float = 26.0
    """H.264 constant rate factor, from 0 (lossless) to 51 (worst)."""
    gop: int = 1
    """GOP size, frames from keyframe to keyframe; 1: every frame can be decoded independently."""
    split_seconds: float | None = None
    """Maximum length in seconds of the parts that videos are split into; null: no splitting."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.short_side < 16:
            raise ConfigError(f"short_side is {self.short_side}; it is in pixels, at least 16")
        if not 0 <= self.crf <= 51:
            raise ConfigError(f"crf is {self.crf:g}; it goes from 0 (lossless) to 51 (worst)")
        if self.gop < 1:
            raise ConfigError(f"gop is {self.gop}; it is a number of frames, at least 1")
        if self.split_seconds is not None and not self.split_seconds > 0:
            raise ConfigError(f"split_seconds is {self.split_seconds:g}; it is a time above 0")
