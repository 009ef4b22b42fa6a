"""The gradients of one optimizer step, however many processes and micro-batches share its clips.

The recipe's batch is that of a step on all processes together. Each computes its clips, at most `loop.micro_batch` at
once, and the loss of every part is weighed by what the whole step counts: clips that could be read, or tokens that
were decoded. So the losses are those of one process, but for the order of sums in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from signal import Signals

import torch
from torch import Tensor

from videomae.data.batches import Batch, Shard, micro_batches
from videomae.data.samples import BadVideo, SampleKey
from videomae.engine.copying import DeviceCopies
from videomae.engine.distributed import Ranks
from videomae.engine.interrupt import Interrupt, StopRequested
from videomae.engine.parallel import SpreadModel
from videomae.engine.sample_draws import rows_of_batch
from videomae.engine.seeding import derive_seed
from videomae.engine.step_graph import LossOf, StepGraph
from videomae.errors import ConfigError

Inputs = Callable[[Batch, Sequence[SampleKey], int], tuple[Tensor, ...]]
"""From clips on the device, which they are, and the step, to what their mean loss is computed from."""
Count = Callable[[Batch], int]
"""How many things the mean loss of some clips, on the CPU, is the mean of."""


@dataclass(frozen=True)
class WholeStep:
    """What all processes together have in a step."""

    indices: list[int]
    """Rows of the manifest whose videos could be read, by their place in the batch."""
    bad: list[BadVideo]
    """Videos that could not be read, see `Batch.bad`."""
    counted: int
    """What the loss is the mean of; 0 where one process computes all of it at once and need not ask."""
    repeat: int
    """Which of the clips that are cut from one decoding, from 0."""

    @property
    def num_readable(self) -> int:
        """Clips that count."""
        return len(self.indices)


class Gradients:
    """Computes the gradients of steps.

    Args:
        spread: The model.
        ranks: The processes.
        batch_size: Clips of a step on all of them.
        micro_batch: Most clips that a process computes at once; None: all.
        seed: The run's.
        device: The run's.
        inputs_of: Prepares clips.
        loss_of: Calls the model.
        count: Counts for its loss.
        graph: Computes `loss_of` of steps that are not divided; None: it is called.
        in_pairs: Whether clips are mixed with the mirrored one of the batch, so that no part may hold one alone.

    Raises:
        ConfigError: If the processes cannot share the batch.
    """

    def __init__(
        self,
        spread: SpreadModel,
        ranks: Ranks,
        *,
        batch_size: int,
        micro_batch: int | None,
        seed: int,
        device: torch.device,
        inputs_of: Inputs,
        loss_of: LossOf,
        count: Count,
        graph: StepGraph | None = None,
        in_pairs: bool = False,
    ) -> None:
        self._spread, self._ranks = spread, ranks
        self._batch_size, self._seed, self._device = batch_size, seed, device
        self._inputs_of, self._loss_of, self._count = inputs_of, loss_of, count
        self._copies = DeviceCopies(device)
        places = Shard(ranks.rank, ranks.world_size).places(batch_size)
        self._places = torch.tensor(places)
        self._parts = [torch.tensor(part) for part in micro_batches(len(places), micro_batch)]
        self._graph = graph
        self._divided = ranks.world_size > 1 or len(self._parts) > 1
        if in_pairs and self._divided and ((len(places) % 2 and ranks.world_size > 1) or micro_batch == 1):
            raise ConfigError(
                f"mixup and cutmix mix pairs of clips, and loop.batch_size {batch_size} on {ranks.world_size} "
                f"processes with loop.micro_batch {micro_batch} leaves a clip alone: use an even number of clips for "
                "each process, and a micro-batch of 2 or more"
            )

    def said(self) -> list[str]:
        """Return what the user was not told yet of how steps are computed."""
        if self._graph is None:
            return []
        lines, self._graph.said = self._graph.said, []
        return lines

    def agree(self, batch: Batch, interrupt: Interrupt) -> WholeStep:
        """Tell the other processes of this one's clips, and hear of theirs.

        Args:
            batch: This process's clips, on the CPU.
            interrupt: Where a stop was asked for in any process, all stop here.

        Raises:
            StopRequested: In all processes alike.
        """
        counted = self._count(batch) if self._divided else 0
        ranks, size = self._ranks, self._ranks.world_size
        if size == 1:
            return WholeStep(batch.indices[batch.readable].tolist(), batch.bad, counted, batch.repeat)
        numbers = torch.zeros(1 + 2 * size + self._batch_size, dtype=torch.int64)
        numbers[0] = interrupt.signal or 0
        numbers[1 + ranks.rank] = counted
        numbers[1 + size + ranks.rank] = len(batch.bad)
        numbers[1 + 2 * size + self._places] = torch.where(batch.readable, batch.indices + 1, 0)
        stop, *rest = ranks.largest(numbers).tolist()
        if stop:
            raise StopRequested(Signals(stop))
        counts, num_bad, indices = rest[:size], rest[size : 2 * size], rest[2 * size :]
        bad = [one for part in ranks.gather(batch.bad) for one in part] if any(num_bad) else []
        return WholeStep([index - 1 for index in indices if index], bad, sum(counts), batch.repeat)

    def compute(self, batch: Batch, whole: WholeStep, step: int) -> Tensor:
        """Add a step's gradients to the parameters, summed over processes and parts.

        Args:
            batch: This process's clips, on the CPU.
            whole: From `agree`; some clip can be read.
            step: From 1.

        Returns:
            The loss of the whole step, 0-d, on the device.
        """
        inputs, keys = batch.copied(self._copies), batch.keys()
        if not self._divided:
            torch.manual_seed(derive_seed(self._seed, "step", step))  # drop path: a function of the step
            prepared = self._inputs_of(inputs, keys, step)
            if self._graph is not None:
                return self._graph.gradients(prepared)
            loss, _ = self._loss_of(*prepared)
            loss.backward()
            return loss.detach()
        total = torch.zeros((), device=self._device)
        for number, positions in enumerate(self._parts, start=1):
            counted = self._count(batch.select(positions))
            here = positions.to(self._device)
            torch.manual_seed(derive_seed(self._seed, "step", step))  # once more: each part draws for the whole batch
            rows = rows_of_batch(self._places[positions].to(self._device), batch_size=self._batch_size)
            with rows, self._spread.synchronizing(number == len(self._parts)):
                part_keys = [keys[position] for position in positions.tolist()]
                mean, outputs = self._loss_of(*self._inputs_of(inputs.select(here), part_keys, step))
                # Black clips alone have no mean; their part is 0, of which all gradients are 0.
                loss = mean * (counted / whole.counted) if counted else outputs.float().sum() * 0.0
                (loss * self._ranks.world_size).backward()
            total += loss.detach()
        return self._ranks.sum(total)
