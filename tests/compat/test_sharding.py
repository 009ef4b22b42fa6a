"""FSDP2: `fully_shard` on any parts of a model changes no loss, no gradient and no step.

Two real processes, connected by gloo, each with its shard of the parameters and half of the batch, against one
process with the whole batch.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

from tiny_models import inputs_for, make_model
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.layers import VideoMAEAttention, VideoMAELayer, VideoMAESelfAttention
from videomae.model.pretraining import VideoMAEForPreTraining

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"),
]
RANKS = 2


def parts_of_class(*classes: type[nn.Module]) -> Callable[[Any], list[nn.Module]]:
    return lambda model: [one for one in model.modules() if type(one) in classes]


# What is sharded apart, before the whole: children before their parents, as fully_shard asks for.
PARTS: dict[str, Callable[[Any], list[nn.Module]]] = {
    "root": lambda model: [],
    "layers": parts_of_class(VideoMAELayer),
    "attention": parts_of_class(VideoMAEAttention),
    "projections": lambda model: [
        linear
        for one in parts_of_class(VideoMAESelfAttention)(model)
        for linear in (one.query, one.key, one.value)  # type: ignore[attr-defined]
    ],
    "encoder": lambda model: [model.videomae.encoder],
    "base model": lambda model: [model.videomae],
    "decoder": lambda model: [getattr(model, "decoder", model.videomae)],
}


def step(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
    """Take one optimizer step; return the loss and the whole state dict."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = model(**inputs).loss
    loss.backward()
    optimizer.step()
    return loss.detach(), get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))


def shard_and_compare(rank: int, port: int) -> None:
    """Run by each process: every way of sharding both kinds of model."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    mesh = dist.init_device_mesh("cpu", (RANKS,))
    try:
        for cls in (VideoMAEForPreTraining, VideoMAEForVideoClassification):
            whole = make_model(cls)
            inputs = inputs_for(whole, batch=2 * RANKS)
            expected_loss, expected = step(whole, inputs)
            half = {name: value.chunk(RANKS)[rank] for name, value in inputs.items()}
            for name, parts in PARTS.items():
                model = make_model(cls)
                for one in parts(model):
                    fully_shard(one, mesh=mesh)
                fully_shard(model, mesh=mesh)
                loss, state = step(model, half)
                dist.all_reduce(loss)
                title = f"{cls.__name__}, {name}"
                torch.testing.assert_close(loss / RANKS, expected_loss, msg=lambda text, t=title: f"{t}: {text}")
                if rank == 0:
                    assert state.keys() == expected.keys(), title
                    for key, tensor in expected.items():
                        torch.testing.assert_close(
                            state[key],
                            tensor,
                            atol=1e-6,
                            rtol=1e-4,
                            msg=lambda text, t=f"{title}, {key}": f"{t}: {text}",
                        )
        dist.barrier()  # neither takes the connection down while the other still uses it
    finally:
        dist.destroy_process_group()


def test_fully_shard_on_any_part_trains_as_one_process_does() -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torch.multiprocessing.spawn(shard_and_compare, args=(port,), nprocs=RANKS)
