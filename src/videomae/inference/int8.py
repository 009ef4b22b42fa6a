"""Linear layers in 8-bit integers on a CPU: weights rounded once per output, tokens as they come.

`N` tokens, `K` inputs, `D` outputs.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from videomae.errors import ConfigError
from videomae.model.layers import VideoMAELayer, is_plain

Model = TypeVar("Model", bound=nn.Module)
LARGEST = 127  # symmetric: -127 to 127
ROWS = 128  # tokens whose outputs are brought back to floats at once, in the processor's cache


class Int8Linear(nn.Module):
    """A linear layer whose product is one of 8-bit integers.

    Weights have a scale for each output, tokens one for each token, which is found as they come: nothing has to be
    calibrated. Biases and outputs are as before.

    Args:
        linear: What is replaced.
    """

    weight: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp(min=1e-12) / LARGEST
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", (weight / scales[:, None]).round().to(torch.int8))  # [D, K]
        self.register_buffer("scales", scales)  # [D]
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, tokens: Tensor) -> Tensor:
        """Project `[..., K]` to `[..., D]`, in autocast's dtype where that is on, else in the tokens' own."""
        is_autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if is_autocast else tokens.dtype
        with torch.autocast("cpu", enabled=False):
            flat = tokens.reshape(-1, self.in_features)
            steps = flat.abs().amax(dim=1, keepdim=True).float().clamp_(min=1e-12).div_(LARGEST)  # [N, 1]
            products = torch._int_mm((flat / steps).round_().to(torch.int8), self.weight.t())  # [N, D] int32
            output = flat.new_empty(products.shape, dtype=dtype)
            for start in range(0, len(flat), ROWS):
                rows = slice(start, start + ROWS)
                floats = (products[rows] * self.scales).mul_(steps[rows])
                output[rows] = floats if self.bias is None else floats.add_(self.bias)
        return output.view(*tokens.shape[:-1], self.out_features)


@cache
def multiplies_exactly() -> bool:
    """Tell whether the processor's 8-bit multiplication is exact also for the largest ones."""
    largest = torch.full((64, 256), LARGEST, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest.t().contiguous()) == 256 * LARGEST**2).all())


def check_multiplies_exactly() -> None:
    """Raise ConfigError unless `multiplies_exactly`."""
    if not multiplies_exactly():
        raise ConfigError(
            "precision is 'int8', but this processor sums the products in 16 bits, which overflow: it "
            "has no VNNI instructions, or is kept from using them; use precision fp32"
        )


def in_int8(model: Model) -> Model:
    """Return a copy of a model in which the linear layers of the blocks multiply 8-bit integers.

    Embedding and head, 1 % of the work, stay as they are, and so does what is no plain linear layer. What is not
    replaced is shared with the model.

    Args:
        model: On a CPU; for inference.

    Raises:
        ConfigError: If it is on another device.
    """
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise ConfigError(f"precision is 'int8', which is for CPUs, and the model is on {device}: use bf16 there")
    check_multiplies_exactly()
    replaced = {
        id(linear): Int8Linear(linear)
        for block in model.modules()
        if isinstance(block, VideoMAELayer)
        for linear in block.modules()
        if isinstance(linear, nn.Linear) and is_plain(linear)
    }
    shared = {id(one): one for one in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, {**shared, **replaced})
