"""Muon for the matrices of a model and AdamW for the rest, behind the interface of one optimizer.

Muon orthogonalizes the momentum of a matrix before it is applied, so that all directions are learned at one rate.

Source: Jordan et al. 2024; `torch.optim.Muon`, which takes matrices only.
"""

from __future__ import annotations

from typing import Any

import torch

from videomae.engine.configs import OptimConfig
from videomae.errors import ConfigError


class MuonWithAdamW:
    """Two optimizers that step, save and resume together.

    Args:
        matrices: Groups of `param_groups` for Muon.
        others: The other groups.
        config: Rates, betas, eps.

    Raises:
        ConfigError: If no other parameter is left for AdamW.
    """

    def __init__(self, matrices: list[dict[str, Any]], others: list[dict[str, Any]], config: OptimConfig) -> None:
        if not others:
            raise ConfigError("optim.optimizer is 'muon' and every parameter is a matrix: use 'adamw' for this model")
        # One schedule serves both: `set_learning_rate` multiplies a rate by each group's own scale.
        ratio = config.muon_lr / config.base_lr
        self.muon = torch.optim.Muon(
            [
                {**group, "lr_scale": ratio * group["lr_scale"], "lr": config.muon_lr * group["lr_scale"]}
                for group in matrices
            ],
            lr=config.muon_lr,
            weight_decay=config.weight_decay,
        )
        self.adamw = torch.optim.AdamW(
            [{**group, "lr": config.base_lr * group["lr_scale"]} for group in others],
            lr=config.base_lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """All groups, Muon's first; changes to them take effect."""
        return [*self.muon.param_groups, *self.adamw.param_groups]

    def step(self) -> None:
        """Update the weights by their gradients."""
        self.muon.step()
        self.adamw.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.muon.zero_grad(set_to_none)
        self.adamw.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs to go on exactly."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError: If it is another kind of optimizer's.
            ValueError: If it is another model's.
        """
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
