"""A step as one CUDA graph, where the host takes longer to start its kernels than the GPU to run them.

A small model on few clips keeps a GPU waiting: some thousand kernels of some microseconds each are started one by
one. A graph is started once, and holds the same kernels on the same memory. Shapes are those of the capture, inputs
are copied into it, and the gradients are written to where they were written then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from videomae.errors import RunError

LossOf = Callable[..., tuple[Tensor, Tensor]]
"""From tensors on the device to a loss, 0-d, and to outputs that need all weights."""
WARM_CALLS = 4  # compilation, the choice of kernels and the libraries' own memory come first
HOST_BOUND = 0.8  # of a step's time on the GPU is spent by the host on starting it: the GPU waits


def reason_against(
    choice: bool | Literal["auto"], device: torch.device, *, processes: int, is_whole: bool, is_plain: bool
) -> str | None:
    """Return why a run's steps cannot be a graph, or None.

    Args:
        choice: `loop.cuda_graph`.
        device: Where the run computes.
        processes: Of the run.
        is_whole: Whether a step computes all its clips at once and each activation once.
        is_plain: Whether a step calls a model of this package itself, which decides nothing anew in a step.
    """
    checks = (
        (choice is not False, "loop.cuda_graph is false"),
        (device.type == "cuda", f"the run computes on {device.type}, not on a CUDA device"),
        (processes == 1, f"{processes} processes share the step"),
        (is_whole, "a step is computed in parts, by loop.micro_batch, or partly again, by activation checkpointing"),
        (is_plain, "a step calls something around or beside the package's models, which may decide anew each time"),
    )
    return next((reason for holds, reason in checks if not holds), None)


class StepGraph:
    """Computes the gradients of steps, kernel by kernel or as a graph.

    Args:
        loss_of: A function of its tensors, the parameters and torch's random numbers alone.
        parameters: Whose gradients it has.
        always: Capture after the first steps in any case; else where the host is the slower one.
    """

    def __init__(self, loss_of: LossOf, parameters: Sequence[nn.Parameter], *, always: bool = False) -> None:
        self._loss_of, self._always = loss_of, always
        self._parameters = [one for one in parameters if one.requires_grad]
        self._calls, self._is_wanted = 0, always
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._gradients: list[Tensor | None] = []
        self._loss: Tensor | None = None
        self.said: list[str] = []
        """Lines for the user that were not shown yet."""

    @property
    def is_captured(self) -> bool:
        """Whether steps are replayed from here on."""
        return self._graph is not None

    def gradients(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Compute a step's gradients into parameters that have none.

        Args:
            inputs: On the GPU, of the same shapes at every call.

        Returns:
            The loss, 0-d.

        Raises:
            RunError: If the step does what no graph can hold; the GPU is in no state to go on in this process.
        """
        self._calls += 1
        if self._graph is not None and self._fits(inputs):
            return self._replay(inputs)
        if self._calls == WARM_CALLS and not self._always:
            return self._timed(inputs)
        if self._calls == WARM_CALLS + 1 and self._is_wanted:
            state = torch.cuda.get_rng_state()  # what the capture draws, the step draws once more
            self._capture(inputs)
            torch.cuda.set_rng_state(state)
            return self._replay(inputs)
        return self._eager(inputs)

    def _eager(self, inputs: tuple[Tensor, ...]) -> Tensor:
        loss, _ = self._loss_of(*inputs)
        loss.backward()
        return loss.detach()

    def _timed(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Take a step with nothing before it on the GPU, and see who waits for whom; the host waits here, once."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        before = time.perf_counter()
        begin.record()
        loss = self._eager(inputs)
        end.record()
        host = 1e3 * (time.perf_counter() - before)
        end.synchronize()
        whole = begin.elapsed_time(end)
        self._is_wanted = host >= HOST_BOUND * whole
        if self._is_wanted:
            self.said.append(
                f"CUDA graph: the host takes {host:.0f} ms of a step's {whole:.0f} ms to launch its kernels; from "
                f"step {WARM_CALLS + 1} of this process, they are launched as one graph"
            )
        return loss

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        still = tuple(one.clone() for one in inputs)
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):  # what a library allocates for a stream is not to be the graph's
            self._eager(still)
        torch.cuda.current_stream().wait_stream(beside)
        self._forget_gradients()
        graph = torch.cuda.CUDAGraph()
        # Another thread of the run page-locks memory for the next batches meanwhile.
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                loss = self._eager(still)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise RunError(
                f"the steps of this run cannot be captured as a CUDA graph ({reason}): resume with "
                "--loop.cuda_graph false"
            ) from error
        self._graph, self._inputs, self._loss = graph, still, loss
        self._gradients = [one.grad for one in self._parameters]

    def _replay(self, inputs: tuple[Tensor, ...]) -> Tensor:
        assert self._graph is not None
        assert self._loss is not None
        for still, one in zip(self._inputs, inputs, strict=True):
            still.copy_(one)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._loss.clone()  # the next step writes there

    def _fits(self, inputs: tuple[Tensor, ...]) -> bool:
        return [(one.shape, one.dtype) for one in inputs] == [(one.shape, one.dtype) for one in self._inputs]

    def _forget_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
