"""The clips of one step, and which of them a process or a micro-batch takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from videomae.data.samples import BadVideo, SampleKey
from videomae.engine.copying import DeviceCopies
from videomae.errors import ConfigError


@dataclass
class Batch:
    """Clips of one step, always as many as asked for; some places may hold no readable clip."""

    clips: Tensor
    """`[B, T, C, S, S]` uint8; `[B, 0]` where the clips are drawn on the device."""
    labels: Tensor
    """`[B]` int64; -1 where there is no label or no readable clip."""
    indices: Tensor
    """`[B]` int64, rows of the manifest, those that could not be read included."""
    readable: Tensor
    """`[B]` bool; False where a black clip stands for a video that could not be read."""
    visible: Tensor | None
    """`[B, V]` int64, tokens that the encoder sees; None without masks."""
    decoded: Tensor | None
    """`[B, M]` int64, tokens that the decoder predicts, of a black clip a visible one; None without masks."""
    bad: list[BadVideo]
    """Videos that could not be read, told with the first of their clips: empty where `repeat` is above 0."""
    epoch: int
    """Pass over the data set, from 0."""
    repeat: int = 0
    """Which of the clips that are cut from one decoding, from 0."""
    occurrences: tuple[int, ...] = ()
    """B numbers of how often each row has come before in this pass; empty where none comes twice."""

    @property
    def num_readable(self) -> int:
        """Clips that count; call it on the CPU, elsewhere it waits for the device."""
        return int(self.readable.sum())

    def keys(self) -> list[SampleKey]:
        """Return which samples the clips are; call it on the CPU, elsewhere it waits for the device."""
        indices = self.indices.tolist()
        before = self.occurrences or (0,) * len(indices)
        return [
            SampleKey(self.epoch, index, self.repeat, again) for index, again in zip(indices, before, strict=True)
        ]

    def copied(self, copies: DeviceCopies) -> Batch:
        """Return the batch with all tensors on a device, copied beside what that still computes."""
        return self._with_tensors(copies)

    def pin_memory(self) -> Batch:
        """Return the batch with all tensors in page-locked memory; torch's loader calls this."""
        return self._with_tensors(Tensor.pin_memory)

    def select(self, positions: Tensor) -> Batch:
        """Return some of the clips; the positions `[b]` int64 are on the batch's device."""
        return self._with_tensors(lambda tensor: tensor[positions])

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            clips=change(self.clips),
            labels=change(self.labels),
            indices=change(self.indices),
            readable=change(self.readable),
            visible=None if self.visible is None else change(self.visible),
            decoded=None if self.decoded is None else change(self.decoded),
        )


@dataclass(frozen=True)
class Shard:
    """Which part of every global batch this process takes."""

    rank: int = 0
    """Of this process, from 0."""
    world_size: int = 1
    """Processes that share a batch."""

    def places(self, batch_size: int) -> list[int]:
        """Return the places of the global batch that this rank holds.

        The place that mirrors one of them, B - 1 - i, is among them too, and mirrored in the result: so the partners
        of mixup, which are mirrored places, are the same clips whatever the number of ranks.

        Args:
            batch_size: B, of the global batch.

        Returns:
            `B / world_size` places. An odd number of them, on several ranks, is B / world_size in a row instead.

        Raises:
            ConfigError: If the ranks cannot share the batch equally, or there is no such rank.
        """
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank is {self.rank} and world_size {self.world_size}; a rank is in [0, world_size)")
        if batch_size % self.world_size:
            raise ConfigError(
                f"batch_size is {batch_size}, which {self.world_size} ranks cannot share equally: use a multiple of "
                f"{self.world_size}"
            )
        count = batch_size // self.world_size
        if self.world_size == 1 or count % 2:
            return list(range(self.rank * count, (self.rank + 1) * count))
        first = range(self.rank * count // 2, (self.rank + 1) * count // 2)
        return [*first, *(batch_size - 1 - place for place in reversed(first))]


WHOLE = Shard()  # one process has all of every batch


def micro_batches(count: int, size: int | None) -> list[list[int]]:
    """Return which clips of a process's batch are computed together: positions in it, each once.

    A part holds the mirrored position of each of its own, and mirrored in the result, so that the partners of mixup
    are the same clips whatever the size; only parts of one clip cannot.

    Args:
        count: Clips of the process's batch.
        size: Most clips of a part; None: all in one.
    """
    if size is None or size >= count:
        return [list(range(count))]
    if size == 1:
        return [[position] for position in range(count)]
    parts = []
    for start in range(0, count // 2, size // 2):
        first = range(start, min(start + size // 2, count // 2))
        parts.append([*first, *(count - 1 - position for position in reversed(first))])
    return [*parts, [count // 2]] if count % 2 else parts
