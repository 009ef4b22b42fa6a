"""The learning rate of every step, as a table made before the run: linear warm-up, then a half cosine.

Pure arithmetic, but for `set_learning_rate`. Scaling by batch size is `optim.scaled_lr`, which the loop
applies to the peak and to the final rate alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from videomae.errors import ConfigError


@dataclass(frozen=True)
class ScheduleConfig:
    """How long to train and to warm up."""

    epochs: float | None = None
    """Length of the run in epochs, > 0; not used where steps is given."""
    steps: int | None = None
    """Length of the run in optimizer steps, > 0."""
    warmup_fraction: float = 0.05
    """Fraction of the run that is warm-up, in [0, 1]; not used where one of the next two is given."""
    warmup_epochs: float | None = None
    """Length of the warm-up in epochs, >= 0."""
    warmup_steps: int | None = None
    """Length of the warm-up in optimizer steps, >= 0."""

    def __post_init__(self) -> None:
        """Check that there is one length of each kind, in range."""
        if self.epochs is None and self.steps is None:
            raise ConfigError("schedule has neither epochs nor steps; the run needs a length: set one of them")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise ConfigError(
                f"schedule.warmup_epochs is {self.warmup_epochs:g} and schedule.warmup_steps is {self.warmup_steps}; "
                "only one of them may be given: set the other to null"
            )
        for name in ("epochs", "steps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"schedule.{name} is {value:g}; a run has a length: use a number above 0")
        for name in ("warmup_epochs", "warmup_steps"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"schedule.{name} is {value:g}; use 0 for no warm-up, or a number above 0")
        if not 0.0 <= self.warmup_fraction <= 1.0:
            raise ConfigError(f"schedule.warmup_fraction is {self.warmup_fraction:g}; it is a fraction in [0, 1]")


class StepCounts(NamedTuple):
    """Lengths in optimizer steps."""

    total: int
    """Steps of the whole run, warm-up included."""
    warmup: int
    """Steps of the warm-up."""


def step_counts(config: ScheduleConfig, *, steps_per_epoch: int) -> StepCounts:
    """Turn the configured lengths into steps.

    Args:
        config: Lengths in epochs or steps.
        steps_per_epoch: Whole batches in one pass over the training data, >= 1.

    Returns:
        Steps of the run (at least 1) and of the warm-up; parts of an epoch are rounded to the nearest step.

    Raises:
        ConfigError: If an epoch has no step, or the warm-up is longer than the run.
    """
    if steps_per_epoch < 1:
        raise ConfigError(
            f"an epoch has {steps_per_epoch} steps; one whole batch is needed: use a smaller batch or more videos"
        )
    total = config.steps if config.steps is not None else max(round((config.epochs or 0.0) * steps_per_epoch), 1)
    if config.warmup_steps is not None:
        warmup = config.warmup_steps
    elif config.warmup_epochs is not None:
        warmup = round(config.warmup_epochs * steps_per_epoch)
    else:
        warmup = round(config.warmup_fraction * total)
    counts = StepCounts(total, warmup)
    _check_warmup(counts.total, counts.warmup)
    return counts


def learning_rates(total_steps: int, warmup_steps: int, *, peak: float, final: float) -> NDArray[np.float64]:
    """Return the learning rate of every step.

    The warm-up rises from exactly 0 and includes the peak; the cosine starts at the peak again, so that the
    peak comes twice, and never quite reaches `final`.

    Args:
        total_steps: Steps of the run, >= 1.
        warmup_steps: Steps of the warm-up, 0 to `total_steps`.
        peak: Highest learning rate, already scaled by the batch size.
        final: Rate that the cosine approaches, already scaled by the batch size.

    Returns:
        float64 `[total_steps]`; entry `i` is for step `i`, counted from 0.

    Raises:
        ConfigError: If the warm-up is longer than the run.

    Source: VideoMAE's per-iteration table; MAE instead evaluates the cosine at the fractional epoch.
    """
    _check_warmup(total_steps, warmup_steps)
    warmup = np.linspace(0.0, peak, warmup_steps)
    num_cosine = total_steps - warmup_steps
    angles = np.pi * np.arange(num_cosine) / max(num_cosine, 1)
    return np.concatenate([warmup, final + 0.5 * (peak - final) * (1.0 + np.cos(angles))])


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group the rate `lr` times its own `lr_scale` (1 where it has none)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def _check_warmup(total_steps: int, warmup_steps: int) -> None:
    if warmup_steps > total_steps:
        raise ConfigError(
            f"the warm-up has {warmup_steps} steps and the whole run {total_steps}; the warm-up is a part "
            "of the run: shorten schedule.warmup_epochs or schedule.warmup_steps, or train longer"
        )
