"""Deterministic batches: batch k of a run is a function of (data set, seed, k) alone.

The number of workers, a resume in the middle, or another run before it change nothing, and the ranks of a run share
one global batch among them. One pass of the loader goes over the whole run, so that workers start once;
`engine.workers.running_workers` starts and ends them.

A batch always has its full size. A place whose video cannot be read holds a black clip that does not count in the
loss; were the next videos of the order to move up, a batch would depend on which earlier videos could be read,
and neither a resumed run nor another rank could know its samples without reading theirs.

With repeated augmentation the loader gives groups of R batches: the same B videos, decoded once, R clips of each, one
in every batch. So the siblings of a clip are in different steps, and a batch has B different videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from videomae.data.balance import balanced_order, occurrences
from videomae.data.batches import WHOLE
from videomae.data.batches import Batch as Batch
from videomae.data.batches import Shard as Shard
from videomae.data.datasets import (
    NO_LABEL,
    BadVideo,
    ClipSample,
    FinetuningDataset,
    PretrainingDataset,
    SampleKey,
)
from videomae.data.procedural_source import ProceduralDataset
from videomae.engine.seeding import numpy_generator
from videomae.engine.workers import start_worker, warned_of_many
from videomae.errors import ConfigError
from videomae.wording import counted

TrainingDataset = PretrainingDataset | FinetuningDataset | ProceduralDataset
PREFETCH_GROUPS = 2  # ready groups that each worker keeps: torch's own default, made visible


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of one pass over the data set, `[num_samples]` int64, a permutation."""
    return numpy_generator(seed, epoch, "order").permutation(num_samples).astype(np.int64, copy=False)


def steps_per_epoch(num_samples: int, *, batch_size: int, repeats: int = 1) -> int:
    """Return the number of whole batches in one pass; the samples left over differ from pass to pass.

    Args:
        num_samples: Videos.
        batch_size: Clips of a step.
        repeats: Clips that are cut from one decoding, each in a step of its own.

    Raises:
        ConfigError: If there is not even one.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    if num_samples < batch_size:
        raise ConfigError(
            f"batch_size is {batch_size}, but the data set has only {counted(num_samples, 'video')}: "
            f"use a batch_size of at most {num_samples}"
        )
    return num_samples // batch_size * repeats


def train_loader(
    dataset: TrainingDataset,
    *,
    batch_size: int,
    num_workers: int,
    seed: int,
    start_step: int,
    total_steps: int,
    repeats: int = 1,
    shard: Shard = WHOLE,
    balanced: bool = False,
) -> DataLoader[list[Batch]]:
    """Return an iterable over the batches of a run from `start_step` on, in groups; `in_steps` takes them apart.

    Group g belongs to epoch `g // (num_samples // batch_size)` and holds the next `batch_size` videos of that epoch's
    order, in `repeats` batches.

    Args:
        dataset: Where samples come from.
        batch_size: Samples of a step, on all ranks together.
        num_workers: Processes that read videos; 0 reads in this one.
        seed: Source of the orders. The samples have the data set's own.
        start_step: First batch; more than 0 to resume.
        total_steps: Batches of the whole run, whatever the start.
        repeats: R, clips that are cut from one decoding; a worker holds R batches at once.
        shard: Which part of every batch this process takes.
        balanced: Whether each class comes equally often, see `balanced_order`; every row has one label then.

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
    if repeats < 1:
        raise ConfigError(f"repeats is {repeats}; it must be at least 1, where 1 is one clip of each decoding")
    places = shard.places(batch_size)
    with warned_of_many(num_workers, setting="loop.workers"):
        return DataLoader(
            _Groups(dataset, batch_size=batch_size, places=places, seed=seed, repeats=repeats, balanced=balanced),
            sampler=range(start_step // repeats, -(-total_steps // repeats) if start_step < total_steps else 0),
            batch_size=None,  # one item is one group: a worker reads all samples of a step
            num_workers=num_workers,
            worker_init_fn=start_worker if num_workers else None,
            prefetch_factor=PREFETCH_GROUPS if num_workers else None,
            pin_memory=torch.cuda.is_available(),
            # A loader draws a seed for its workers when iteration starts. No draw here reads it; with a generator of
            # its own, starting or resuming does not move the global random state, which dropout in the model uses.
            generator=torch.Generator(),
        )


def in_steps(groups: Iterable[list[Batch]], *, start_step: int, repeats: int) -> Iterator[Batch]:
    """Give the batches of a `train_loader` one by one; the last group may hold some beyond the run's end.

    Args:
        groups: From the loader.
        start_step: As the loader was given; it may lie within its first group.
        repeats: Likewise.
    """
    skipped = start_step % repeats
    for group in groups:
        yield from group[skipped:]
        skipped = 0


class _Groups(Dataset[list[Batch]]):
    """The batches of a run by the number of their group."""

    def __init__(
        self,
        dataset: TrainingDataset,
        *,
        batch_size: int,
        places: list[int],
        seed: int,
        repeats: int,
        balanced: bool,
    ) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._places = places
        self._seed = seed
        self._repeats = repeats
        self._labels = None
        if balanced:
            labels = [row.label for row in dataset.manifest.rows]
            self._labels = np.array([NO_LABEL if label is None else label for label in labels], dtype=np.int64)
        # Epoch, its order, and how often each has come before in it: the last one asked for.
        self._order: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def __getitem__(self, group: int) -> list[Batch]:
        epoch, number = divmod(group, steps_per_epoch(len(self._dataset), batch_size=self._batch_size))
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, *self._order_of(epoch)
        chosen, before = (one[number * self._batch_size :][self._places].tolist() for one in self._order[1:])
        found = [
            self._dataset.siblings(SampleKey(epoch, index, occurrence=again), repeats=self._repeats)
            for index, again in zip(chosen, before, strict=True)
        ]
        readable = torch.tensor([not isinstance(one, BadVideo) for one in found])
        bad = [one for one in found if isinstance(one, BadVideo)]
        rows = [
            [self._dataset.blank(index)] * self._repeats if isinstance(one, BadVideo) else one
            for index, one in zip(chosen, found, strict=True)
        ]
        return [
            replace(
                _collate([row[repeat] for row in rows], readable, [] if repeat else bad, epoch=epoch, repeat=repeat),
                occurrences=tuple(before) if any(before) else (),
            )
            for repeat in range(self._repeats)
        ]

    def _order_of(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self._labels is None:
            order = epoch_order(len(self._dataset), seed=self._seed, epoch=epoch)
            return order, np.zeros_like(order)
        order = balanced_order(self._labels, seed=self._seed, epoch=epoch)
        return order, occurrences(order)


def _collate(
    samples: Sequence[ClipSample], readable: Tensor, bad: list[BadVideo], *, epoch: int, repeat: int
) -> Batch:
    """Stack the samples of one step."""
    visible = [sample.visible for sample in samples if sample.visible is not None]
    decoded = [sample.decoded for sample in samples if sample.decoded is not None]
    return Batch(
        clips=torch.stack([sample.clip for sample in samples]),
        labels=torch.tensor([sample.label for sample in samples], dtype=torch.int64),
        indices=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
        readable=readable,
        visible=torch.stack(visible) if visible else None,
        decoded=torch.stack(decoded) if decoded else None,
        bad=bad,
        epoch=epoch,
        repeat=repeat,
    )
