"""Histories made by hand: a healthy run, and what a test changes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from videomae.monitor.data_checks import DataStatistics
from videomae.monitor.history import Beginning, History, Measurement

DATA = DataStatistics(num_clips=32, pixel_std=50.0, blank=0.0, still=0.0, twins=0.0, equal_files=0.0, order=0.7)
BEGINNING = Beginning(
    total_steps=1000,
    warmup_steps=30,
    batch_size=128,
    num_clips=16,
    unseen=True,
    num_train=300,
    normalized=True,
    mask_kind="tube",
    baselines={"zero": 1.0, "visible_mean": 1.0, "copy_nearest": 1.8, "interpolate": 0.95},
    data=DATA,
)
STEPS = (0, 10, 50, 100, 300, 1000)
LOSSES = (1.05, 1.01, 0.98, 0.94, 0.9, 0.85)


def measurement(step: int, loss: float, **fields: Any) -> Measurement:
    values: dict[str, Any] = {
        "step": step,
        "held_out_loss": loss,
        "train_loss": loss,
        "num_skipped": 0,
        "effective_rank": 30.0,
        "width": 96,
        "content": 0.8,
        "explained": {"time": [0.1, 0.2], "position": [[0.1, None], [-0.1, 0.3]]},
        "attention_distance": [3.0, 2.5],
        "leak": 0.0,
        "input_mean": 0.1,
        "input_std": 1.0,
        "norm_std": 0.9,
        "norm_name": "videomae.layernorm",
        "gradient_norms": {"embeddings": 0.1, "early": 0.1, "middle": 0.1, "late": 0.1, "decoder": 0.2},
        "step_ratios": {"embeddings": 0.01, "early": 0.01, "middle": 0.01, "late": 0.01, "decoder": 0.01},
        "rate_fraction": 1.0,
        "rate_sum": 900.0,
    }
    return Measurement(**{**values, **fields})


def history(
    losses: tuple[float, ...] = LOSSES,
    *,
    steps: tuple[int, ...] = STEPS,
    data: dict[str, Any] | None = None,
    beginning: dict[str, Any] | None = None,
    **last: Any,
) -> History:
    """Return a healthy run, with other losses, other facts of the data or the run, or another last measurement."""
    measurements = [measurement(step, loss) for step, loss in zip(steps, losses, strict=False)]
    measurements[-1] = replace(measurements[-1], **last)
    start = replace(BEGINNING, data=replace(DATA, **(data or {})), **(beginning or {}))
    return History(start, tuple(measurements))
