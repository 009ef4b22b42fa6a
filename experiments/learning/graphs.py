"""Training steps that replay as one CUDA graph, with weights in bfloat16 beside float32 masters.

On the CPU the same functions run without a graph, in float32; that is for rehearsal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # torch.optim.Muon's defaults
MUON_STEPS = 5


def capture(step: Callable[[], Any], device: torch.device, *, warmup: int = 3) -> Callable[[], Any]:
    """Return a function that runs `step`: on CUDA the replay of its graph. `step` must read and write in place."""
    if device.type != "cuda":
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warmup):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def gradients(tensors: list[Tensor]) -> list[Tensor]:
    """Return the gradients of tensors that all have one."""
    found = [one.grad for one in tensors if one.grad is not None]
    assert len(found) == len(tensors), "a parameter got no gradient"
    return found


class MasterWeights:
    """Float32 copies of a model's parameters, which the optimizer steps; the model computes with bfloat16 ones."""

    def __init__(self, model: nn.Module) -> None:
        self.working: list[Tensor] = list(model.parameters())
        self.names = [name for name, _ in model.named_parameters()]
        self.masters: list[Tensor] = [Parameter(one.detach().float().clone()) for one in self.working]
        for one in self.masters:
            one.grad = torch.zeros_like(one)

    def take_gradients(self) -> None:
        """Copy the working gradients to the masters."""
        torch._foreach_copy_(gradients(self.masters), gradients(self.working))

    def give_weights(self) -> None:
        """Copy the masters to the working weights."""
        with torch.no_grad():
            torch._foreach_copy_(self.working, self.masters)

    def load(self, tensors: Iterable[Tensor]) -> None:
        """Set all weights."""
        with torch.no_grad():
            for master, tensor in zip(self.masters, tensors, strict=True):
                master.copy_(tensor)
        self.give_weights()


class Adam:
    """AdamW with a learning rate on the device and state that can be reset, so that a graph serves many runs."""

    def __init__(
        self, parameters: list[Tensor], *, betas: tuple[float, float], weight_decay: float, scales: list[float]
    ) -> None:
        self.parameters = parameters
        self.betas = betas
        self.first = [torch.zeros_like(one) for one in parameters]
        self.second = [torch.zeros_like(one) for one in parameters]
        self.decays = [weight_decay if one.ndim >= 2 else 0.0 for one in parameters]
        self.scales = scales
        device = parameters[0].device
        self.count = torch.zeros((), device=device)
        self.lr = torch.zeros((), device=device)

    @torch.no_grad()
    def reset(self) -> None:
        """Forget all moments."""
        torch._foreach_zero_(self.first)
        torch._foreach_zero_(self.second)
        self.count.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters by their gradients."""
        low, high = self.betas
        slopes = gradients(self.parameters)
        self.count += 1
        torch._foreach_lerp_(self.first, slopes, 1 - low)
        torch._foreach_mul_(self.second, high)
        torch._foreach_addcmul_(self.second, slopes, slopes, 1 - high)
        roots = torch._foreach_sqrt(self.second)
        torch._foreach_div_(roots, torch.sqrt(1 - high**self.count))
        torch._foreach_add_(roots, 1e-8)
        updates = torch._foreach_div(self.first, roots)
        torch._foreach_div_(updates, 1 - low**self.count)
        decayed = torch._foreach_mul(self.parameters, self.decays)
        torch._foreach_add_(updates, decayed)
        torch._foreach_mul_(updates, self.scales)
        torch._foreach_mul_(updates, self.lr)
        torch._foreach_sub_(self.parameters, list(updates))


class Muon:
    """torch.optim.Muon's arithmetic, with matrices of one shape orthogonalized in one batch."""

    def __init__(self, parameters: list[Tensor], *, weight_decay: float, momentum: float = 0.95) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for one in parameters:
            by_shape.setdefault(one.shape, []).append(one)
        self.groups = list(by_shape.values())
        self.buffers = [torch.zeros(len(group), *group[0].shape, device=group[0].device) for group in self.groups]
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.lr = torch.zeros((), device=parameters[0].device)

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters by their gradients."""
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradient = torch.stack(gradients(group))  # [n, r, c]
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonalized(gradient.lerp(buffer, self.momentum))  # Nesterov
            rows, columns = update.shape[-2:]
            rate = self.lr * max(1.0, rows / columns) ** 0.5
            torch._foreach_mul_(group, 1 - self.lr * self.weight_decay)
            torch._foreach_sub_(group, list((update * rate).unbind(0)))


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return about the nearest orthogonal matrices of a batch `[n, r, c]`, by Newton-Schulz steps in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    wide = x.shape[-2] > x.shape[-1]
    if wide:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(MUON_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if wide else x).float()
