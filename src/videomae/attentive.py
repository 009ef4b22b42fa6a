"""The attentive probe: learned queries pool the tokens, with a temporal position in each score, and a linear layer.

`n` videos, `t` time slices, `p` positions of a slice, `Q` queries, `D` channels, `K` classes. A query scores each
token, a softmax over all `t * p` tokens makes weights of the scores, and the Q weighted means are classified
together. A query starts as a soft window over one part of the clip, so that the order of events can be told from the
first step.

Source: attentive probing of V-JEPA (Bardes et al. 2024, arXiv 2404.08471), in the form without key and value
projections of Psomas et al. 2025 (arXiv 2506.10178), whose accuracy is that of the larger one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from videomae.engine.seeding import torch_generator

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

QUERIES = 4
STEPS = 100
BATCH_SIZE = 512  # videos in a step: bounds time and memory, whatever n is
LEARNING_RATE = 1e-2


class AttentivePool(nn.Module):
    """Queries, temporal positions and head.

    Args:
        tokens: `[n, t, p, D]` of the training videos, for the scale of what the head sees.
        num_classes: K.
    """

    def __init__(self, tokens: Tensor, num_classes: int) -> None:
        super().__init__()
        num_slices, dim = tokens.shape[1], tokens.shape[3]
        self.query = nn.Parameter(torch.zeros(QUERIES, dim))
        self.time = nn.Parameter(_windows(num_slices))  # [Q, t]
        # Draws nothing from the global generator: a probe during training must not change the training.
        self.head = nn.utils.skip_init(nn.Linear, QUERIES * dim, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            pooled = torch.cat([self.pool(part) for part in tokens.split(BATCH_SIZE)])
            std, mean = torch.std_mean(pooled, dim=0, correction=0)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std.clamp_min(1e-4 * float(std.max()) + 1e-12))

    def pool(self, tokens: Tensor) -> Tensor:
        """Return the weighted means `[b, Q * D]` of tokens `[b, t, p, D]`."""
        flat = tokens.flatten(1, 2)  # [b, t * p, D]
        # Matrix multiplications: as einsum over four axes the same took twice as long.
        scores = (flat @ self.query.mT / math.sqrt(tokens.shape[3])).unflatten(1, tokens.shape[1:3])  # [b, t, p, Q]
        weights = (scores + self.time.mT[:, None]).flatten(1, 2).softmax(dim=1)  # [b, t * p, Q]
        pooled: Tensor = (weights.mT @ flat).flatten(1)  # [b, Q * D]
        return pooled

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits `[b, K]`."""
        logits: Tensor = self.head((self.pool(tokens) - self.mean) / self.std)
        return logits


@dataclass(frozen=True)
class AttentiveProbe:
    """A fitted probe and the standardization of its tokens."""

    pool: AttentivePool
    """Takes standardized tokens."""
    mean: Tensor
    """`[D]`."""
    std: Tensor
    """`[D]`."""

    @torch.inference_mode()
    def probabilities(self, tokens: Tensor) -> FloatArray:
        """Return `[n, K]` for tokens `[n, t, p, D]`."""
        parts = [self.pool((part.float() - self.mean) / self.std) for part in tokens.split(BATCH_SIZE)]
        result: FloatArray = torch.cat(parts).double().softmax(dim=-1).numpy()
        return result


def fit_attentive(
    tokens: Tensor, labels: IntArray, *, penalty: float, num_classes: int, seed: int, steps: int = STEPS
) -> AttentiveProbe:
    """Fit by Adam: few steps, a cosine schedule, batches of everything where it fits.

    Args:
        tokens: `[n, t, p, D]`.
        labels: `[n]` class ids.
        penalty: C, as for a linear probe: the L2 penalty on the head is 1 / (2 C n).
        num_classes: K.
        seed: Of the batches.
        steps: Updates.
    """
    flat = tokens.flatten(0, 2).float()
    std, mean = torch.std_mean(flat, dim=0, correction=0)
    std = std.clamp_min(1e-4 * float(std.max()) + 1e-12)
    scaled = (tokens.float() - mean) / std  # [n, t, p, D]
    pool, targets = AttentivePool(scaled, num_classes), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(pool.parameters(), lr=LEARNING_RATE)
    generator, count = torch_generator(seed, "attentive"), len(targets)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        if count > BATCH_SIZE:
            rows = torch.randperm(count, generator=generator)[:BATCH_SIZE]
            loss = F.cross_entropy(pool(scaled[rows]), targets[rows])
        else:
            loss = F.cross_entropy(pool(scaled), targets)
        loss = loss + pool.head.weight.square().sum() / (2 * penalty * count)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return AttentiveProbe(pool.eval(), mean, std)


def _windows(num_slices: int) -> Tensor:
    """Return scores `[Q, t]` of Q soft windows side by side over the clip."""
    centers = (torch.arange(QUERIES) + 0.5) / QUERIES  # [Q]
    times = (torch.arange(num_slices) + 0.5) / num_slices  # [t]
    return -((times - centers[:, None]) * QUERIES).square() / 2
