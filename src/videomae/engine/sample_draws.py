"""Random numbers inside a model that belong to a sample of the step's batch, whoever computes it.

A generator hands out numbers in order, so a process that computes half of a batch would draw other ones than a
process that computes all of it. Here every process draws for the whole batch and keeps the rows of its samples: for
stochastic depth one number a sample, for the dropout before a classifier one a feature, some microseconds each. So
the numbers are a function of the seed, the step and the sample's place in the step, and one process draws what it
always drew. A generator for each sample would cost a kernel launch each, counters hashed on the device several.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class _Rows:
    """Which rows of the step's batch are being computed."""

    places: Tensor
    """`[b]` int64, on the model's device."""
    batch_size: int
    """B, of the whole batch."""


_rows: _Rows | None = None  # None: a batch is computed as a whole


@contextmanager
def rows_of_batch(places: Tensor, *, batch_size: int) -> Iterator[None]:
    """Say that the models in the block compute some rows of a batch: in the forward and in the backward pass.

    Args:
        places: `[b]` int64, on the models' device.
        batch_size: B, of the whole batch.
    """
    global _rows
    before, _rows = _rows, _Rows(places, batch_size)
    try:
        yield
    finally:
        _rows = before


def drop_path(branch: Tensor, rate: float) -> Tensor:
    """Set whole samples of a residual branch to zero, and scale the rest to keep the mean.

    Args:
        branch: `[b, N, D]`.
        rate: Fraction of the samples, in [0, 1).

    Source: Huang et al. 2016, stochastic depth, drawn per sample.
    """
    keep = 1.0 - rate
    if _rows is None:
        kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) < keep
    else:
        kept = (torch.rand(_rows.batch_size, 1, 1, device=branch.device) < keep)[_rows.places]
    return branch * (kept.to(branch.dtype) / keep)


def dropout(features: Tensor, rate: float, training: bool) -> Tensor:
    """Set some features to zero, and scale the rest to keep the mean, where a model is being trained.

    Args:
        features: `[b, D]`.
        rate: Fraction of the features, in [0, 1].
        training: False returns the features as they are.
    """
    if _rows is None or not training or rate == 0.0:
        return F.dropout(features, rate, training)
    ones = torch.ones(_rows.batch_size, *features.shape[1:], dtype=features.dtype, device=features.device)
    return features * F.dropout(ones, rate)[_rows.places]
