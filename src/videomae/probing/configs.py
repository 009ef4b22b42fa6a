"""The settings of a probe, without what carries them out: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe measures and runs."""

    folds: int = 5
    """Number of outer folds; each video is predicted by a probe that has seen no video of its group."""
    seed: int = 0
    """Random seed for the folds, the label subsets, the bootstrap and the attentive probe."""
    attentive: bool = True
    """Whether to measure the attentive probe too; it takes most of the compute after the features."""
    workers: int = 2
    """Number of threads that read videos."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.folds < 2:
            raise ConfigError(
                f"folds is {self.folds}; each video needs a fold that is trained without it, so 2 or more"
            )
        if self.workers < 1:
            raise ConfigError(f"workers is {self.workers}; it is a number of threads, at least 1")
