"""What one optimizer step of either loop needs: how many there are, their learning rates, and the update itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from videomae.data.loader import steps_per_epoch
from videomae.engine.configs import OptimConfig
from videomae.engine.optim import RunOptimizer, build_optimizer, param_groups, scaled_lr, update_if_finite
from videomae.engine.schedule import constant_rates, learning_rates, set_learning_rate, step_counts
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe

_IN_A_LAYER = re.compile(r"\b(encoder\.layer|decoder_layers)\.\d+\.")


@dataclass(frozen=True)
class StepPlan:
    """The steps of a run; they are counted from 1."""

    batch_size: int
    """Clips of a step: the recipe's, or the number of videos where that is smaller."""
    steps_per_epoch: int
    """Batches in one pass over the videos, in which each is decoded once."""
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
    passed = steps_per_epoch(num_videos, batch_size=batch_size, repeats=recipe.augment.repeats)
    total, warmup = step_counts(recipe.schedule, steps_per_epoch=passed)
    peak, final = scaled_lr(recipe.optim.base_lr, batch_size), scaled_lr(recipe.optim.min_lr, batch_size)
    schedule = recipe.schedule
    if schedule.shape == "constant":
        fraction = schedule.cooldown_fraction
        rates = constant_rates(total, warmup, peak=peak, final=final, cooldown_fraction=fraction)
    else:
        rates = learning_rates(total, warmup, peak=peak, final=final)
    return StepPlan(batch_size, passed, total, rates)


def model_optimizer(
    model: VideoMAEPreTrainedModel,
    config: OptimConfig,
    *,
    dtype: torch.dtype,
    layer_id: Callable[[str], int] | None = None,
    num_layer_ids: int = 0,
) -> RunOptimizer:
    """Return the optimizer of a run.

    Args:
        model: On the run's device, spread over the processes.
        config: Rates, decays.
        dtype: That of the run's matrix multiplications.
        layer_id: As for `param_groups`; None: all layers learn alike.
        num_layer_ids: Likewise.
    """
    groups = param_groups(
        model.named_parameters(),
        weight_decay=config.weight_decay,
        no_decay=model.no_weight_decay(),
        layer_decay=1.0 if layer_id is None else config.layer_decay,
        layer_id=layer_id,
        num_layer_ids=num_layer_ids,
        matrices=muon_matrices(model, config),
    )
    return build_optimizer(groups, config, dtype=dtype)


def update_weights(optimizer: RunOptimizer, *, lr: float, loss: Tensor, grad_norm: Tensor) -> None:
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


def muon_matrices(model: nn.Module, config: OptimConfig) -> frozenset[str]:
    """Return the names of what Muon updates, the weight matrices of all layers; none without Muon."""
    if config.optimizer != "muon":
        return frozenset()
    named = ((name, one.ndim) for name, one in model.named_parameters())
    return frozenset(name for name, ndim in named if ndim == 2 and _IN_A_LAYER.search(name))
