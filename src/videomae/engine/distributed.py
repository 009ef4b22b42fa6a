"""The processes of one run: how many there are, which of them this is, and how they agree.

torchrun starts them and tells each its place in the environment. What the processes agree on goes over the CPU
(gloo), so that no step waits for a device; what is computed on the device stays there (NCCL on CUDA).
A run of one process has no process group, and nothing here costs it anything.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore

from videomae.engine.launched import launched_number, silence_others
from videomae.errors import ConfigError

T = TypeVar("T")
# For agreements: one process may evaluate or write for hours while the others wait. A process that has died is
# noticed at once all the same, for its connections are closed.
TOLD = "told_by_the_first_process"  # an error's attribute: its message need not be printed again
PATIENCE = datetime.timedelta(days=2)


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of the run."""

    rank: int = 0
    """Of this process, from 0."""
    world_size: int = 1
    """Processes of the run, on all machines."""
    host_group: Any = None
    """gloo process group of all; None where there is one process and no group."""

    @property
    def is_first(self) -> bool:
        """Whether this process owns the run folder and the terminal."""
        return self.rank == 0

    def first(self, function: Callable[[], T]) -> T:
        """Call a function in the first process alone; what it returns, or raises, is every process's.

        Args:
            function: Its result can be pickled.

        Raises:
            BaseException: What the function raised, a StopRequested included.
        """
        if self.world_size == 1:
            return function()
        answer: list[Any] = [None, None]
        own: BaseException | None = None
        if self.is_first:
            try:
                answer[0] = function()
            except BaseException as error:
                answer[1] = own = error
        dist.broadcast_object_list(answer, src=0, group=self.host_group)
        if own is not None:
            raise own
        if answer[1] is not None:
            answer[1].__dict__[TOLD] = True
            raise answer[1]
        return cast("T", answer[0])

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank; they can be pickled."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.host_group)
        return values

    def largest(self, numbers: Tensor) -> Tensor:
        """Return the elementwise maximum over all processes of an int64 tensor on the CPU; it may be overwritten."""
        if self.world_size > 1:
            dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self.host_group)
        return numbers

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes of a tensor on the run's device; it may be overwritten."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor


@contextmanager
def joined(device: torch.device, *, needs_group: bool = False) -> Iterator[Ranks]:
    """Join the processes that torchrun has started, and leave them at the end of the block.

    All but the first process print nothing in the block, and no results after it. An error that leaves the block is
    printed by the process that it is of.

    Args:
        device: Type of the run's device. On CUDA this process takes the device of its local rank.
        needs_group: Make a process group for one process, too, as sharding wants.

    Raises:
        ConfigError: If the processes cannot find each other, or there is no device for this one.
    """
    world_size = launched_number("WORLD_SIZE", 1)
    if world_size == 1 and not needs_group:
        yield Ranks()
        return
    if dist.is_initialized():  # by the program that calls this package
        yield _ranks()
        return
    if device.type == "cuda":
        _take_device(launched_number("LOCAL_RANK", 0))
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        if world_size == 1:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        else:
            dist.init_process_group(backend)
        ranks = _ranks()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"this process and the {world_size - 1} others of its run cannot find each other ({reason}): start them "
            "with torchrun, which sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
        ) from error
    try:
        with _silent(not ranks.is_first):
            yield ranks
    finally:
        dist.destroy_process_group()


def _ranks() -> Ranks:
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    return Ranks(dist.get_rank(), dist.get_world_size(), group)


def _take_device(local_rank: int) -> None:
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ConfigError(
            f"process {local_rank} of this machine finds {count} CUDA devices; each process takes one: give torchrun "
            f"--nproc-per-node {count} or fewer"
        )
    torch.cuda.set_device(local_rank)


@contextmanager
def _silent(enabled: bool) -> Iterator[None]:
    """Send what is printed nowhere; the results that standard output gets after the block, too."""
    if not enabled:
        yield
        return
    silence_others()
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    try:
        with contextlib.redirect_stderr(nowhere):
            yield
    except BaseException as error:
        if TOLD in error.__dict__ or isinstance(error, KeyboardInterrupt):
            sys.stderr = nowhere
        raise
