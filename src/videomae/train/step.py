"""What one optimizer step of either loop needs: how many there are, their learning rates, and the update itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.engine.optim import scaled_lr, update_if_finite
from videomae.engine.schedule import learning_rates, set_learning_rate, step_counts
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe


@dataclass(frozen=True)
class StepPlan:
    """The steps of a run; they are counted from 1."""

    batch_size: int
    """Clips of a step: the recipe's, or the number of videos where that is smaller."""
    steps_per_epoch: int
    """Whole batches in one pass over the videos."""
    total: int
    """Steps of the whole run."""
    rates: NDArray[np.float64]
    """`[total]` learning rate of each step."""

    def lr(self, step: int) -> float:
        """Return the learning rate of a step."""
        return float(self.rates[step - 1])

    def epoch(self, step: int) -> float:
        """Return the passes over the videos that are done after a step."""
        return step / self.steps_per_epoch


def plan_steps(recipe: PretrainRecipe | FinetuneRecipe, *, num_videos: int) -> StepPlan:
    """Work out the steps of a run.

    Raises:
        ConfigError: If the warm-up is longer than the run.
    """
    batch_size = min(recipe.loop.batch_size, num_videos)
    steps_per_epoch = num_videos // batch_size
    total, warmup = step_counts(recipe.schedule, steps_per_epoch=steps_per_epoch)
    peak, final = scaled_lr(recipe.optim.base_lr, batch_size), scaled_lr(recipe.optim.min_lr, batch_size)
    return StepPlan(batch_size, steps_per_epoch, total, learning_rates(total, warmup, peak=peak, final=final))


def update_weights(optimizer: torch.optim.AdamW, *, lr: float, loss: Tensor, grad_norm: Tensor) -> None:
    """Update the weights by their gradients, unless loss or gradient norm is not finite, and clear the gradients.

    Args:
        optimizer: From `build_optimizer`.
        lr: Learning rate of this step.
        loss: 0-d.
        grad_norm: 0-d, from `clip_and_norm`.
    """
    set_learning_rate(optimizer, lr)
    update_if_finite(optimizer, loss=loss, grad_norm=grad_norm)
    optimizer.zero_grad(set_to_none=True)
