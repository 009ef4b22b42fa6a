"""What the training loops share: their settings, the count of bad videos, and losses read late.

Knows nothing of models or videos: a bad video is a name and a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from videomae.engine.precision import DeviceName, Precision
from videomae.errors import ConfigError, RunError

MIN_SAMPLES_TO_JUDGE = 40  # below this, a share of bad videos says nothing yet


@dataclass(frozen=True)
class LoopConfig:
    """How a loop runs, whatever it trains."""

    batch_size: int = 8
    """Clips in an optimiser step."""
    seed: int = 0
    """Source of every random draw: order, frames, crops, masks, fresh weights."""
    device: DeviceName = "auto"
    """auto takes CUDA where there is one, then MPS, then the CPU."""
    precision: Precision = "auto"
    """auto computes in bf16 where the processor has it; weights stay float32."""
    workers: int = 1
    """Processes that read videos; 0 reads in the training process."""
    checkpoint_steps: int = 200
    """Optimiser steps between checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints that stay."""
    log_steps: int = 10
    """Steps between readings of the losses from the device; every step is logged all the same."""
    max_bad_fraction: float = 0.05
    """Largest share of unreadable videos before the run stops."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("batch_size", "checkpoint_steps", "keep_checkpoints", "log_steps"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"loop.{name} is {value}; it must be at least 1")
        if self.workers < 0:
            raise ConfigError(f"loop.workers is {self.workers}; use 0 to read in the training process, or more")
        if not 0.0 <= self.max_bad_fraction <= 1.0:
            raise ConfigError(f"loop.max_bad_fraction is {self.max_bad_fraction:g}; it is a fraction in [0, 1]")


class BadVideoCount:
    """Counts videos that could not be read, remembers their names, and stops a run that has too many."""

    def __init__(self, max_fraction: float) -> None:
        self.max_fraction = max_fraction
        self.num_seen = 0
        self.reasons: dict[str, str] = {}
        self._num_bad = 0

    def add(self, num_samples: int, bad: Mapping[str, str]) -> None:
        """Count a batch.

        Args:
            num_samples: Samples asked for, bad ones included.
            bad: Reason by path.

        Raises:
            RunError: If more than `max_fraction` of all samples so far, and at least 40 samples, were bad.
        """
        self.num_seen += num_samples
        self._num_bad += len(bad)
        self.reasons.update(bad)
        share = self._num_bad / max(self.num_seen, 1)
        if share > self.max_fraction and (self.num_seen >= MIN_SAMPLES_TO_JUDGE or self._num_bad == self.num_seen):
            path, reason = next(iter(self.reasons.items()))
            raise RunError(
                f"{self._num_bad} of {self.num_seen} videos ({share:.0%}) cannot be read, more than "
                f"loop.max_bad_fraction {self.max_fraction:g} allows; the first is {path} ({reason}): mend or remove "
                "them, or raise loop.max_bad_fraction"
            )

    def summary(self) -> list[str]:
        """Return one line for each bad video, after a line with their number; empty where all were good."""
        if not self.reasons:
            return []
        head = f"{len(self.reasons)} videos could not be read and were left out:"
        return [head, *(f"  {path}: {reason}" for path, reason in sorted(self.reasons.items()))]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"num_seen": self.num_seen, "num_bad": self._num_bad, "reasons": dict(self.reasons)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.num_seen = state["num_seen"]
        self._num_bad = state["num_bad"]
        self.reasons = dict(state["reasons"])


class PendingLosses:
    """Losses and gradient norms that stay on the device until they are read, many steps at once."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._values: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: dict[str, Any], *, loss: Tensor, grad_norm: Tensor) -> None:
        """Keep the loss and norm, 0-d tensors, of one step; `record` holds what is known without waiting."""
        self._records.append(record)
        self._values.append(torch.stack((loss.detach().float(), grad_norm.detach().float())))

    def read(self) -> list[dict[str, Any]]:
        """Wait for the device once, return the records completed with `loss` and `grad_norm`, and forget them.

        Raises:
            RunError: If a loss is not finite.
        """
        if not self._records:
            return []
        values = torch.stack(self._values).tolist()
        records = [
            {**record, "loss": loss, "grad_norm": norm}
            for record, (loss, norm) in zip(self._records, values, strict=True)
        ]
        self._records, self._values = [], []
        for record in records:
            if not torch.isfinite(torch.tensor(record["loss"])):
                raise RunError(
                    f"the loss of step {record['step']} is {record['loss']}: resume from the last checkpoint with a "
                    "lower optim.base_lr or optim.clip_grad 1.0"
                )
        return records
