"""An encoder whose blocks OpenVINO computes: the same numbers, on a CPU, in less time.

OpenVINO compiles the blocks to kernels for the processor at hand: attention without its scores ever leaving the
caches, and sums, norms and activations within the products beside them. Embedding, pooling and head, 1 % of the work,
stay torch's, and so does everything that is not inference. docs/performance.md has what it gains.

`B` batch, `N` tokens, `D` width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from videomae.engine.precision import autocast
from videomae.errors import ConfigError
from videomae.inference.int8 import check_multiplies_exactly
from videomae.inference.openvino_graph import BlockRanges, InputRange, blocks_graph
from videomae.model.encoder import VideoMAEEncoder
from videomae.model.layers import VideoMAELayer, VideoMAESelfAttention, is_plain, is_untouched

Model = TypeVar("Model", bound=nn.Module)

PRECISION_NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}


class OpenVinoBlocks(nn.Module):
    """All blocks of an encoder, in the place of the first.

    Args:
        layers: The blocks.
        dtype: Of the matrix multiplications, or of those that are none of 8-bit integers.
        ranges: Of each block, for 8-bit integers; None: no integers.
    """

    def __init__(
        self, layers: Sequence[VideoMAELayer], dtype: torch.dtype, ranges: Sequence[BlockRanges] | None = None
    ) -> None:
        super().__init__()
        import openvino

        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": PRECISION_NAMES[dtype],
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # a pinned thread waits where a data worker has the core
        }
        self._compiled = openvino.Core().compile_model(blocks_graph(layers, ranges), "CPU", settings)
        self._request = self._compiled.create_infer_request()

    def forward(self, hidden_states: Tensor, *, attentions: list[Tensor] | None = None) -> Tensor:
        """Transform tokens `[B, N, D]`; returns float32 `[B, N, D]`.

        Raises:
            ConfigError: If attention probabilities are asked for, which are never computed as a whole.
        """
        if attentions is not None:
            raise ConfigError(
                "attention probabilities are asked for, which the backend openvino never has: use torch"
            )
        tokens = hidden_states.detach().float().contiguous().numpy()
        found = self._request.infer([tokens], share_inputs=True)
        return torch.from_numpy(np.array(found[0]))


def check_openvino(model: nn.Module) -> None:
    """Raise ConfigError if OpenVINO is not installed or cannot compute this model's blocks."""
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"backend is 'openvino', which cannot be imported ({error}): pip install 'videomae[openvino]', or use "
            "the backend torch"
        ) from None
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise ConfigError(f"backend is 'openvino', which is for CPUs, and the model is on {device}: use torch there")
    for number, layer in enumerate(_encoder(model).layer):
        if not _is_as_built(layer):
            raise ConfigError(
                f"backend is 'openvino', and block {number} of the model has been replaced, adapted or quantized, or "
                "something listens to it: use the backend torch, or the model as it was loaded"
            )


def in_openvino(model: Model, dtype: torch.dtype, clips: Iterable[Tensor] | None = None) -> Model:
    """Return a copy of a model whose blocks OpenVINO computes; all else is shared with the model.

    Args:
        model: On a CPU; for inference.
        dtype: Of the matrix multiplications.
        clips: For 8-bit integers: `[B, T, C, H, W]` each, at least one, like those that will be computed: larger
            values than theirs are cut off. None: no integers.

    Raises:
        ConfigError: As `check_openvino` does, or if this processor has no multiplication of 8-bit integers.
    """
    check_openvino(model)
    layers = [cast("VideoMAELayer", one) for one in _encoder(model).layer]
    ranges = None
    if clips is not None:
        check_multiplies_exactly()
        ranges = input_ranges(model, clips)
    shared: dict[int, Any] = {id(one): one for one in (*model.parameters(), *model.buffers())}
    shared[id(_encoder(model).layer)] = nn.ModuleList([OpenVinoBlocks(layers, dtype, ranges)])
    return copy.deepcopy(model, shared)


@torch.inference_mode()
def input_ranges(model: nn.Module, clips: Iterable[Tensor]) -> list[BlockRanges]:
    """Return the ranges of what the linear layers of every block are given, in float32.

    Args:
        model: In eval mode; what is called for them.
        clips: `[B, T, C, H, W]` each, at least one.
    """
    found: dict[int, InputRange] = {}

    def note(linear: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].flatten(0, -2)  # [B * N, K]
        one = InputRange(rows.amin(dim=0).float().numpy(), rows.amax(dim=0).float().numpy())
        found[id(linear)] = one if id(linear) not in found else found[id(linear)].joined(one)

    watched = [_inputs_of(cast("VideoMAELayer", layer)) for layer in _encoder(model).layer]
    handles = [linear.register_forward_pre_hook(note) for block in watched for linear in block]
    try:
        with autocast(torch.device("cpu"), torch.float32):
            for pixel_values in clips:
                model(pixel_values)
    finally:
        for handle in handles:
            handle.remove()
    return [BlockRanges(*(found[id(linear)] for linear in block)) for block in watched]


def _is_as_built(layer: nn.Module) -> bool:
    """Return whether a block computes what its class does: nothing in it is replaced, nothing listens to it."""
    if not isinstance(layer, VideoMAELayer) or not is_untouched(layer, VideoMAELayer):
        return False
    attention = layer.attention.attention
    linears = (attention.query, attention.key, attention.value, *_inputs_of(layer)[1:])
    norms = (layer.layernorm_before, layer.layernorm_after)
    is_attention = type(attention) is VideoMAESelfAttention
    return is_attention and all(map(is_plain, linears)) and all(type(norm) is nn.LayerNorm for norm in norms)


def _inputs_of(layer: VideoMAELayer) -> tuple[nn.Linear, ...]:
    """Return the linear layers of a block whose inputs `BlockRanges` names; query stands for key and value."""
    attention = layer.attention
    return attention.attention.query, attention.output.dense, layer.intermediate.dense, layer.output.dense


def _encoder(model: nn.Module) -> VideoMAEEncoder:
    """Return the stack of blocks of an encoder or a classifier."""
    return next(one for one in model.modules() if isinstance(one, VideoMAEEncoder))
