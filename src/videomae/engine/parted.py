"""A loss that is computed part by part, each part's backward pass following its forward pass at once.

The same sum and the same gradients, but for the order of sums, as of all parts together; but what a part keeps for
its backward pass is there for one part at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

PartLoss = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""From rows of the states, and which they are, to their part of the loss, 0-d, and to an output of as many rows."""


def loss_in_parts(
    loss_of: PartLoss, states: Tensor, parameters: Sequence[Parameter], *, rows: int
) -> tuple[Tensor, Tensor]:
    """Return the sum of the parts' losses, and their outputs together.

    Gradients are computed here and handed on in the backward pass of the loss. What is computed from the outputs may
    have a backward pass as well, as long as its gradient is 0.

    Args:
        loss_of: Called for one part after the other, with gradients enabled.
        states: `[B, ...]`, cut along B.
        parameters: All that `loss_of` uses besides; those that are frozen are left out.
        rows: Of a part; the last may have fewer.

    Returns:
        Loss, 0-d, and outputs `[B, ...]`.

    Raises:
        RuntimeError: In the backward pass, if the outputs are given a gradient.
    """
    trained = [one for one in parameters if one.requires_grad]
    loss, outputs = _InParts.apply(loss_of, rows, states, *trained)  # type: ignore[no-untyped-call]
    return loss, outputs


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss_of: PartLoss, rows: int, states: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        losses, outputs, of_states, of_parameters = [], [], [], list[Tensor]()
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            with torch.enable_grad():
                given = states[part].detach().requires_grad_()
                loss, output = loss_of(given, part)
            with torch.autocast(states.device.type, enabled=False):
                first, *others = torch.autograd.grad(loss, (given, *parameters), materialize_grads=True)
            losses.append(loss.detach())
            outputs.append(output.detach())
            of_states.append(first)
            if of_parameters:
                torch._foreach_add_(of_parameters, others)
            else:
                of_parameters = others
            del given, loss, output, others
        ctx.gradients = [torch.cat(of_states), *of_parameters]
        ctx.set_materialize_grads(False)
        return torch.stack(losses).sum(), torch.cat(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor | None, of_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = (
            ctx.gradients,
            None,
        )  # let go of, so that they become the parameters' without a copy
        if of_outputs is not None and of_outputs.any():
            raise RuntimeError(
                "the outputs of a loss that is computed in parts have no gradient, and were given one: compute from "
                "the loss alone, or set the model's clips_decoded_at_once to None"
            )
        if grad is None:
            torch._foreach_zero_(
                gradients
            )  # times 0, also where there is nothing that counts and they are not finite
        elif grad != 1:
            torch._foreach_mul_(gradients, grad)
        return None, None, *gradients
