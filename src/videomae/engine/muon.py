"""Muon for the matrices of a model and AdamW for the rest, behind the interface of one optimizer.

Muon orthogonalizes the momentum of a matrix before it is applied, so that all directions are learned at one rate.

Source: Jordan et al. 2024; `torch.optim.Muon`, which takes matrices only.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from videomae.engine.configs import OptimConfig
from videomae.engine.precision import has_bf16
from videomae.errors import ConfigError


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` that orthogonalizes in a dtype which the processor multiplies in hardware.

    torch's takes bfloat16 always, which is emulated on a CPU with AVX2 alone: there it made a step of a model of 5
    million parameters take 12 s where 1 s is enough in float32.

    Args:
        groups: Of matrices.
        lr: Rate of groups that have none of their own.
        weight_decay: Likewise.
        dtype: For the products; None: bfloat16 where the device has it in hardware, else float32.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, weight_decay: float, dtype: torch.dtype | None
    ) -> None:
        super().__init__(groups, lr=lr, weight_decay=weight_decay)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the matrices that have a gradient; a closure is not called."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group)

    def _update(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, lr = self.state[matrix], group["lr"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"]
        average.lerp_(gradient, 1 - group["momentum"])
        change = gradient.lerp(average, group["momentum"]) if group["nesterov"] else average
        dtype = self._dtype or (torch.bfloat16 if has_bf16(matrix.device) else torch.float32)
        change = orthogonalized(change.to(dtype), group["ns_coefficients"], group["ns_steps"], eps=group["eps"])
        matrix.mul_(1 - lr * group["weight_decay"])
        rows, columns = matrix.shape
        matrix.add_(change, alpha=-lr * math.sqrt(max(1, rows / columns)))


def orthogonalized(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, *, eps: float) -> Tensor:
    """Return a matrix of the same singular vectors whose singular values are about 1, by Newton-Schulz iterations.

    Args:
        matrix: `[m, n]`.
        coefficients: Of `X`, `(X X^T) X` and `(X X^T)^2 X` in each iteration.
        steps: Iterations.
        eps: Smallest norm to divide by.

    Source: Jordan et al. 2024.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=eps)  # no singular value above 1
    a, b, c = coefficients
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


class MuonWithAdamW:
    """Two optimizers that step, save and resume together.

    Args:
        matrices: Groups of `param_groups` for Muon.
        others: The other groups.
        config: Rates, betas, eps.
        dtype: As for `Muon`.

    Raises:
        ConfigError: If no other parameter is left for AdamW.
    """

    def __init__(
        self,
        matrices: list[dict[str, Any]],
        others: list[dict[str, Any]],
        config: OptimConfig,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not others:
            raise ConfigError("optim.optimizer is 'muon' and every parameter is a matrix: use 'adamw' for this model")
        # One schedule serves both: `set_learning_rate` multiplies a rate by each group's own scale.
        ratio = config.muon_lr / config.base_lr
        self.muon = Muon(
            [
                {**group, "lr_scale": ratio * group["lr_scale"], "lr": config.muon_lr * group["lr_scale"]}
                for group in matrices
            ],
            lr=config.muon_lr,
            weight_decay=config.weight_decay,
            dtype=dtype,
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
