"""An exponential moving average of a model's weights, updated after every step.

Every process averages what it has: all weights with DDP, its parts with FSDP2.

Source: Polyak and Juditsky 1992; with a constant decay as in the fine-tuning of DeiT and its successors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from videomae.engine.parallel import own_part


class WeightAverage:
    """The average, which begins with the weights that are there.

    Args:
        model: On the run's device, spread over its processes; frozen weights are left out.
        decay: Of the average in each step, in (0, 1). It looks back over some 1 / (1 - decay) steps.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self.values: dict[str, Tensor] = {name: one.detach().clone() for name, one in self._weights.items()}
        """By the weights' names, sharded as they are."""

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights; also after a step that was skipped."""
        averages = [own_part(one) for one in self.values.values()]
        torch._foreach_lerp_(averages, [own_part(one.detach()) for one in self._weights.values()], 1.0 - self.decay)

    @torch.no_grad()
    def install(self) -> None:
        """Write the average into the model, whose own weights are lost."""
        for name, weight in self._weights.items():
            own_part(weight.detach()).copy_(own_part(self.values[name]))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have the average in the model for the block, and its own weights back after it."""
        own = {name: own_part(weight.detach()).clone() for name, weight in self._weights.items()}
        self.install()
        try:
            yield
        finally:
            for name, weight in self._weights.items():
                own_part(weight.detach()).copy_(own[name])

    @torch.no_grad()
    def load(self, values: dict[str, Tensor]) -> None:
        """Go on from saved values, whole ones.

        Raises:
            KeyError: If one is missing.
            RuntimeError: If one has another shape.
        """
        for name, average in self.values.items():
            average.copy_(values[name])
