"""A step as one CUDA graph: what it is refused for, and on a GPU the numbers that its kernels have one by one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae.engine.step_graph import WARM_CALLS, StepGraph, reason_against

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
STEPS = WARM_CALLS + 5


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, None),
        ({"choice": True}, None),
        ({"choice": False}, "loop.cuda_graph is false"),
        ({"device": torch.device("cpu")}, "the run computes on cpu, not on a CUDA device"),
        ({"processes": 2}, "2 processes share the step"),
        ({"is_whole": False}, "a step is computed in parts, by loop.micro_batch"),
        ({"is_plain": False}, "a step calls something around or beside the package's models"),
    ],
)
def test_steps_are_captured_only_where_a_graph_can_hold_them(settings: dict[str, Any], reason: str | None) -> None:
    usual = {"choice": "auto", "device": torch.device("cuda"), "processes": 1, "is_whole": True, "is_plain": True}
    found = reason_against(**{**usual, **settings})
    assert found is None if reason is None else found is not None and found.startswith(reason)


class Net(nn.Module):
    """Two layers with dropout, whose random numbers are those of the step's seed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.unused = nn.Linear(24, 64), nn.Linear(64, 8), nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(F.dropout(self.first(inputs).relu(), 0.3, True))  # type: ignore[no-any-return]


def trained(*, graphed: bool) -> tuple[list[float], list[Tensor], StepGraph]:
    """Train on the GPU for some steps; returns losses, weights, and what has computed the steps."""
    torch.manual_seed(0)
    net = Net().cuda()

    def loss_of(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        outputs = net(inputs)
        return F.mse_loss(outputs, targets), outputs

    graph = StepGraph(loss_of, list(net.parameters()), always=graphed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    data = torch.Generator("cuda").manual_seed(1)
    losses = []
    for step in range(STEPS):
        inputs, targets = (torch.randn(16, width, generator=data, device="cuda") for width in (24, 8))
        torch.manual_seed(step)
        if graphed:
            loss = graph.gradients((inputs, targets))
        else:
            loss, _ = loss_of(inputs, targets)
            loss.backward()
            loss = loss.detach()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss)
    return torch.stack(losses).tolist(), [one.detach().cpu() for one in net.parameters()], graph


@needs_cuda
def test_replayed_steps_have_the_losses_random_numbers_and_weights_of_steps_started_kernel_by_kernel() -> None:
    losses, weights, graph = trained(graphed=True)
    assert graph.is_captured
    expected, others, _ = trained(graphed=False)
    assert losses == pytest.approx(expected, rel=1e-6)
    assert len(set(losses)) == STEPS
    for one, other in zip(weights, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


PROGRAM = """
import torch
from videomae.engine.step_graph import WARM_CALLS, StepGraph
net = torch.nn.Linear(4, 4).cuda()
def loss_of(inputs):
    outputs = net(inputs)
    float(outputs.sum())  # waits for the GPU, which no graph can hold
    return outputs.square().mean(), outputs
graph = StepGraph(loss_of, list(net.parameters()), always=True)
for _ in range(WARM_CALLS + 1):
    net.zero_grad(set_to_none=True)
    graph.gradients((torch.ones(2, 4, device="cuda"),))
"""


@needs_cuda
def test_steps_that_cannot_be_captured_end_the_run_with_the_way_out() -> None:
    # In a process of its own: what has failed to be captured leaves the GPU's state of a process undefined.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be captured as a CUDA graph (" in done.stderr
    assert "): resume with --loop.cuda_graph false" in done.stderr


@needs_cuda
def test_other_shapes_than_those_of_the_capture_are_computed_all_the_same() -> None:
    net = Net().cuda()
    graph = StepGraph(lambda inputs: (net(inputs).square().mean(), inputs), list(net.parameters()), always=True)
    for videos in [16] * (WARM_CALLS + 1) + [7, 16]:
        net.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        loss = graph.gradients((torch.ones(videos, 24, device="cuda"),))
        assert net.first.weight.grad is not None
        assert net.unused.weight.grad is None
        assert torch.isfinite(loss)
    assert graph.is_captured


@needs_cuda
def test_a_host_that_is_the_slower_one_is_noticed() -> None:
    net = Net().cuda()
    graph = StepGraph(lambda inputs: (net(inputs).square().mean(), inputs), list(net.parameters()))
    for _ in range(WARM_CALLS + 1):
        net.zero_grad(set_to_none=True)
        graph.gradients((torch.ones(16, 24, device="cuda"),))
    assert graph.is_captured
    assert graph.said[0].startswith("CUDA graph: the host takes ")
