"""One model on several processes: copies that add up their gradients (DDP), or parts of one model (FSDP2).

With DDP every process has the whole model and optimizer state; the gradients are summed while the backward pass is
still running. With FSDP2 every process has its part of each tensor; whole blocks exist only while they are computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.parallel import DistributedDataParallel

from videomae.engine.configs import ParallelConfig as ParallelConfig
from videomae.engine.configs import ParallelKind as ParallelKind
from videomae.engine.distributed import Ranks


@dataclass(frozen=True)
class SpreadModel:
    """A model on all processes of a run."""

    model: nn.Module
    """Its parameters are those to optimize, sharded with FSDP2; its names are what they were."""
    module: nn.Module
    """What a training step calls."""

    @property
    def is_sharded(self) -> bool:
        """Whether every process has only a part of each tensor."""
        return isinstance(self.model, FSDPModule)

    @contextmanager
    def synchronizing(self, enabled: bool) -> Iterator[None]:
        """Sum the gradients over the processes in the backward passes of the block, or keep them here for later."""
        if isinstance(self.module, DistributedDataParallel):
            with contextlib.nullcontext() if enabled else self.module.no_sync():
                yield
            return
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(enabled)
        yield


def spread(
    model: nn.Module,
    ranks: Ranks,
    kind: ParallelKind,
    *,
    blocks: Iterable[nn.Module],
    dtype: torch.dtype,
    called: nn.Module | None = None,
) -> SpreadModel:
    """Spread a model over the processes; the first process's values become those of all.

    Gradients are averaged: a process's loss is to be its part of the whole loss, times the number of processes.

    Args:
        model: On the run's device; sharded in place by FSDP2.
        ranks: The processes; without a process group DDP is the model itself.
        kind: ddp or fsdp.
        blocks: Parts that FSDP2 gathers one at a time, such as the transformer blocks.
        dtype: Of the computation; FSDP2 gathers the weights in it. The shards stay float32, and gradients are summed
            in float32.
        called: What a training step calls, with the parameters of the model and no others; None: the model. It is
            not sharded.
    """
    if kind == "fsdp":
        device = next(model.parameters()).device
        mesh = init_device_mesh(device.type, (ranks.world_size,))
        # Inputs are not cast: the targets of pre-training are computed from the pixels, which stay float32.
        param_dtype = None if dtype == torch.float32 else dtype
        policy = MixedPrecisionPolicy(param_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for block in blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        return SpreadModel(model, model)
    if ranks.host_group is None:
        return SpreadModel(model, model if called is None else called)
    # The models have no buffers. Views spare a copy of all gradients.
    module = DistributedDataParallel(model if called is None else called, gradient_as_bucket_view=True)
    return SpreadModel(model, module)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as one that is whole in this process; all processes call it, where it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """Return what this process has of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def replicated_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor that is the same in all processes so that it can be used with a parameter, sharded or not."""
    if not isinstance(parameter, DTensor):
        return tensor
    return DTensor.from_local(tensor, parameter.device_mesh, [Replicate()] * parameter.device_mesh.ndim)


def not_finite(spread: SpreadModel, ranks: Ranks) -> str | None:
    """Return the name of the first tensor of a model that has a value which is not finite; waits for the device."""
    tensors = {name: own_part(one) for name, one in spread.model.state_dict().items() if one.is_floating_point()}
    finite = torch.stack([one.isfinite().all() for one in tensors.values()]).tolist()
    name = next((name for name, holds in zip(tensors, finite, strict=True) if not holds), None)
    return next((one for one in ranks.gather(name) if one is not None), None) if spread.is_sharded else name
