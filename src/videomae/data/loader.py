"""Deterministic batches: batch k of a run is a function of (data set, seed, k) alone.

The number of workers, a resume in the middle, or another run before it change nothing. One pass of the loader goes
over the whole run, so that workers start once; `engine.workers.running_workers` starts and ends them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from videomae.data.datasets import BadVideo, ClipSample, FinetuningDataset, PretrainingDataset, SampleKey
from videomae.data.procedural_source import ProceduralDataset
from videomae.engine.seeding import numpy_generator
from videomae.engine.workers import start_worker
from videomae.errors import ConfigError

TrainingDataset = PretrainingDataset | FinetuningDataset | ProceduralDataset
PREFETCH_BATCHES = 2  # ready batches that each worker keeps: torch's own default, made visible


@dataclass
class Batch:
    """Clips of one step. With bad videos it is smaller than asked for, perhaps empty (B = 0)."""

    clips: Tensor
    """`[B, T, C, S, S]` uint8; `[B, 0]` where the clips are drawn on the device."""
    labels: Tensor
    """`[B]` int64; -1 where there is no label."""
    indices: Tensor
    """`[B]` int64, rows of the manifest."""
    visible: Tensor | None
    """`[B, V]` int64, tokens that the encoder sees; None without masks or without clips."""
    decoded: Tensor | None
    """`[B, M]` int64, tokens that the decoder predicts; None without masks or without clips."""
    bad: list[BadVideo]
    """Videos of this step that could not be read; nothing stands in for them."""
    epoch: int
    """Pass over the data set, from 0."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the batch with all tensors on a device; non_blocking helps from pinned memory only."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch with all tensors in page-locked memory; torch's loader calls this."""
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            clips=change(self.clips),
            labels=change(self.labels),
            indices=change(self.indices),
            visible=None if self.visible is None else change(self.visible),
            decoded=None if self.decoded is None else change(self.decoded),
        )


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of one pass over the data set, `[num_samples]` int64, a permutation."""
    return numpy_generator(seed, epoch, "order").permutation(num_samples).astype(np.int64, copy=False)


def steps_per_epoch(num_samples: int, *, batch_size: int) -> int:
    """Return the number of whole batches in one pass; the samples left over differ from pass to pass.

    Raises:
        ConfigError: If there is not even one.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    if num_samples < batch_size:
        raise ConfigError(
            f"batch_size is {batch_size}, but the data set has only {num_samples} videos: "
            f"use a batch_size of at most {num_samples}"
        )
    return num_samples // batch_size


def train_loader(
    dataset: TrainingDataset,
    *,
    batch_size: int,
    num_workers: int,
    seed: int,
    start_step: int,
    total_steps: int,
) -> DataLoader[Batch]:
    """Return an iterable over the batches `start_step .. total_steps - 1` of a run.

    Batch k belongs to epoch `k // steps_per_epoch` and holds the next `batch_size` samples of that epoch's order.

    Args:
        dataset: Where samples come from.
        batch_size: Samples of a step, before bad videos are skipped.
        num_workers: Processes that read videos; 0 reads in this one.
        seed: Source of the orders. The samples have the data set's own.
        start_step: First batch; more than 0 to resume.
        total_steps: Batches of the whole run, whatever the start.

    Returns:
        A loader of known length. Its memory is pinned where there is CUDA.

    Raises:
        ConfigError: If a number is out of range or the data set is smaller than a batch.
    """
    steps_per_epoch(len(dataset), batch_size=batch_size)
    if num_workers < 0:
        raise ConfigError(f"num_workers is {num_workers}; it must be at least 0, where 0 reads in this process")
    if not 0 <= start_step <= total_steps:
        raise ConfigError(f"start_step is {start_step}; it must be between 0 and total_steps, {total_steps}")
    return DataLoader(
        _Steps(dataset, batch_size=batch_size, seed=seed),
        sampler=range(start_step, total_steps),
        batch_size=None,  # one item is one batch: a worker reads all samples of a step
        num_workers=num_workers,
        worker_init_fn=start_worker if num_workers else None,
        prefetch_factor=PREFETCH_BATCHES if num_workers else None,
        pin_memory=torch.cuda.is_available(),
        # A loader draws a seed for its workers when iteration starts. No draw here reads it; with a generator of
        # its own, starting or resuming does not move the global random state, which dropout in the model uses.
        generator=torch.Generator(),
    )


class _Steps(Dataset[Batch]):
    """The batches of a run by number."""

    def __init__(self, dataset: TrainingDataset, *, batch_size: int, seed: int) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._seed = seed
        self._order: tuple[int, NDArray[np.int64]] | None = None  # epoch and its order: the last one asked for

    def __getitem__(self, step: int) -> Batch:
        epoch, number = divmod(step, steps_per_epoch(len(self._dataset), batch_size=self._batch_size))
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, epoch_order(len(self._dataset), seed=self._seed, epoch=epoch)
        first = number * self._batch_size
        chosen: list[int] = self._order[1][first : first + self._batch_size].tolist()
        samples = [self._dataset[SampleKey(epoch, index)] for index in chosen]
        empty_clip = torch.empty(0, self._dataset.clip.num_frames, 3, self._dataset.size, self._dataset.size)
        return _collate(samples, epoch=epoch, empty=empty_clip.to(torch.uint8))


def _collate(samples: Sequence[ClipSample | BadVideo], *, epoch: int, empty: Tensor) -> Batch:
    """Stack what could be read and list what could not; `empty` are the clips of a batch without any."""
    good = [sample for sample in samples if isinstance(sample, ClipSample)]
    visible = [sample.visible for sample in good if sample.visible is not None]
    decoded = [sample.decoded for sample in good if sample.decoded is not None]
    return Batch(
        clips=torch.stack([sample.clip for sample in good]) if good else empty,
        labels=torch.tensor([sample.label for sample in good], dtype=torch.int64),
        indices=torch.tensor([sample.index for sample in good], dtype=torch.int64),
        visible=torch.stack(visible) if visible else None,
        decoded=torch.stack(decoded) if decoded else None,
        bad=[sample for sample in samples if isinstance(sample, BadVideo)],
        epoch=epoch,
    )
