"""The settings of an evaluation, without what carries them out: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from videomae.engine.configs import InferencePrecision
from videomae.errors import ConfigError


@dataclass(frozen=True)
class ViewsConfig:
    """Which views of a video are classified; their probabilities are averaged.

    Published protocols: 5 clips and 3 crops on Kinetics, 2 and 3 on Something-Something. One clip is the middle of
    the video and one crop the center of the frame, which together are the published validation view.
    """

    num_clips: int = 5
    """Clips spread over the video; 1 is the middle."""
    num_crops: int = 3
    """Square crops along the longer side of the frame; 1 is the processor's own center crop."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("num_clips", "num_crops"):
            if getattr(self, name) < 1:
                raise ConfigError(f"views.{name} is {getattr(self, name)}; at least one view is needed")


@dataclass(frozen=True)
class EvaluationConfig:
    """How an evaluation samples the videos and runs."""

    views: ViewsConfig = field(default_factory=ViewsConfig)
    """Clips and crops of each video; the published Kinetics protocol unless given."""
    batch_size: int = 8
    """Views in one forward pass, and clips of one video in memory."""
    workers: int = 1
    """Processes that read videos; 0 reads in this process."""
    precision: InferencePrecision = "auto"
    """auto computes in bf16 where the processor has it; int8, on a CPU, is faster and rounds more."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.batch_size < 1:
            raise ConfigError(f"evaluation.batch_size is {self.batch_size}; it must be at least 1")
        if self.workers < 0:
            raise ConfigError(f"evaluation.workers is {self.workers}; use 0 to read in this process, or more")
