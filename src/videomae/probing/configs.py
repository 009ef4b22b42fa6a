"""The settings of a probe, without what carries them out: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe measures and runs."""

    folds: int = 5
    """Outer folds; every video is predicted by a probe that has seen no video of its group."""
    seed: int = 0
    """Of the folds, the label subsets, the bootstrap and the attentive probe."""
    attentive: bool = True
    """Whether the attentive probe, most of the computing after the features, is measured too."""
    workers: int = 2
    """Threads that read videos."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.folds < 2:
            raise ConfigError(
                f"folds is {self.folds}; each video needs a fold that is trained without it, so 2 or more"
            )
        if self.workers < 1:
            raise ConfigError(f"workers is {self.workers}; it is a number of threads, at least 1")
