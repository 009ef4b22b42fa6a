"""How far two computations of the same values may lie apart, on whatever processor.

Processors, matrix libraries and numbers of threads add the terms of a sum in different orders, and only some round a
product before they add it. A bound that was measured on one machine fails on the next, so a bound is made of what is
the same on all of them: the dtype, the number of terms added, and the size of the values.

A rounding is off by half an `eps` at most, `eps / sqrt(12)` in standard deviation. A sum of n terms has n of them,
the difference of two computations 2 n: together `sqrt(n / 6)` eps. Five of these standard deviations are allowed,
about `2 sqrt(n)` eps. The worst case grows with n instead and is not met in practice.

Source: Higham and Mary 2019, "A new approach to probabilistic rounding error analysis".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def tolerance(dtype: torch.dtype, *, terms: int, magnitude: float = 1.0) -> float:
    """Return the largest difference between two computations that rounding explains.

    Args:
        dtype: What is computed in; it may be coarser than the dtype of the result.
        terms: Lengths of the sums on the longest path from the inputs to a value, added up.
        magnitude: Size of what is added: a small difference of large values is off as the large ones are.
    """
    return 2 * terms**0.5 * torch.finfo(dtype).eps * magnitude


def model_terms(model: nn.Module, *, tokens: int) -> int:
    """Return the lengths of all sums in a model, added up: on its longest path everything comes once.

    Args:
        model: A model, a block or a layer.
        tokens: How many tokens its attention reads.
    """
    terms = 0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor):  # of a projection, or of a norm with its mean and variance
            terms += weight[0].numel() if weight.dim() > 1 else 2 * weight.numel()
        if hasattr(module, "attention_head_size"):
            terms += module.attention_head_size + 2 * tokens  # scores, then softmax and contexts
    return terms


def assert_near(actual: Tensor, expected: Tensor, *, terms: int, dtype: torch.dtype | None = None) -> None:
    """Compare two tensors that differ at most as `tolerance` allows values of the size of the largest one.

    Args:
        actual: Any shape.
        expected: The same shape and dtype.
        terms: As for `tolerance`.
        dtype: As for `tolerance`; None means that of the tensors.
    """
    bound = tolerance(dtype or expected.dtype, terms=terms, magnitude=expected.abs().max().item())
    torch.testing.assert_close(actual, expected, atol=bound, rtol=0)
