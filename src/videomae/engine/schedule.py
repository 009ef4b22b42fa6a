"""The learning rate of every step, as a table made before the run.

Linear warm-up, then a half cosine, or a constant rate with a linear cool-down. Pure arithmetic, but for
`set_learning_rate`. Scaling by batch size is `optim.scaled_lr`, which the loop applies to the peak and to the final
rate alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from videomae.engine.configs import ScheduleConfig as ScheduleConfig
from videomae.engine.muon import MuonWithAdamW
from videomae.errors import ConfigError


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


def constant_rates(
    total_steps: int, warmup_steps: int, *, peak: float, final: float, cooldown_fraction: float
) -> NDArray[np.float64]:
    """Return the learning rate of every step: warm-up as in `learning_rates`, constant, then a linear cool-down.

    Args:
        total_steps: Steps of the run, >= 1.
        warmup_steps: Steps of the warm-up, 0 to `total_steps`.
        peak: Highest learning rate, already scaled by the batch size.
        final: Rate that the cool-down approaches, likewise, and never quite reaches.
        cooldown_fraction: Fraction of the run at its end, in [0, 1]; the warm-up wins where the two overlap.

    Returns:
        float64 `[total_steps]`; entry `i` is for step `i`, counted from 0.

    Raises:
        ConfigError: If the warm-up is longer than the run.

    Source: the trapezoid of Zhai et al. 2022 (Scaling Vision Transformers), section 3.5.
    """
    _check_warmup(total_steps, warmup_steps)
    num_falling = min(round(cooldown_fraction * total_steps), total_steps - warmup_steps)
    falling = np.arange(num_falling) / max(num_falling, 1)
    return np.concatenate(
        [
            np.linspace(0.0, peak, warmup_steps),
            np.full(total_steps - warmup_steps - num_falling, peak),
            peak + (final - peak) * falling,
        ]
    )


def set_learning_rate(optimizer: torch.optim.Optimizer | MuonWithAdamW, lr: float) -> None:
    """Give every parameter group the rate `lr` times its own `lr_scale` (1 where it has none)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def _check_warmup(total_steps: int, warmup_steps: int) -> None:
    if warmup_steps > total_steps:
        raise ConfigError(
            f"the warm-up has {warmup_steps} steps and the whole run {total_steps}; the warm-up is a part "
            "of the run: shorten schedule.warmup_epochs or schedule.warmup_steps, or train longer"
        )
