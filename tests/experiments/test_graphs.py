"""The experiments' optimizers do the arithmetic of torch's."""

from __future__ import annotations

import torch
from experiments.learning.graphs import Adam, Muon
from torch.nn import Parameter


def drawn(*shapes: tuple[int, ...]) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def set_gradients(step: int, parameters: list[Parameter]) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for one in parameters:
        one.grad = torch.randn(one.shape, generator=generator)


def test_batched_muon_equals_torchs() -> None:
    shapes = ((8, 4), (4, 8), (8, 4), (6, 6))
    ours, theirs = drawn(*shapes), drawn(*shapes)
    batched = Muon(ours, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    batched.lr.fill_(0.02)
    for step in range(4):
        set_gradients(step, ours)
        set_gradients(step, theirs)
        batched.step()
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 2e-3  # bfloat16 sums in another order; a step moves a value by about 0.01


def test_adam_equals_torchs_adamw() -> None:
    ours, theirs = drawn((8, 4), (5,)), drawn((8, 4), (5,))
    adam = Adam(ours, betas=(0.9, 0.95), weight_decay=0.1, scales=[1.0, 1.0])
    groups = [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    adam.lr.fill_(0.01)
    for step in range(4):
        set_gradients(step, ours)
        set_gradients(step, theirs)
        adam.step()
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 1e-6
