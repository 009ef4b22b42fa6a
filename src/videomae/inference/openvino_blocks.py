"""An encoder whose blocks OpenVINO computes: the same numbers, on a CPU, in less time.

OpenVINO compiles the blocks to kernels for the processor at hand: attention without its scores ever leaving the
caches, and sums, norms and activations within the products beside them. Embedding, pooling and head, 1 % of the work,
stay torch's, and so does everything that is not inference. docs/performance.md has what it gains.

`B` batch, `N` tokens, `D` width.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from videomae.engine.precision import autocast
from videomae.errors import ConfigError
from videomae.inference.int8 import check_multiplies_exactly
from videomae.inference.openvino_graph import BlockRanges, ValueRange, blocks_graph
from videomae.model.encoder import VideoMAEEncoder
from videomae.model.layers import (
    DropPath,
    VideoMAEAttention,
    VideoMAEIntermediate,
    VideoMAELayer,
    VideoMAEOutput,
    VideoMAESelfAttention,
    VideoMAESelfOutput,
    is_plain,
    is_untouched,
)

if TYPE_CHECKING:
    from openvino import InferRequest

Model = TypeVar("Model", bound=nn.Module)

PRECISION_NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}
PARTS = {
    *(
        VideoMAELayer,
        VideoMAEAttention,
        VideoMAESelfAttention,
        VideoMAESelfOutput,
        VideoMAEIntermediate,
        VideoMAEOutput,
    ),
    *(nn.Linear, nn.LayerNorm, nn.Dropout, DropPath, nn.GELU, nn.ReLU, nn.SiLU),
}
"""What blocks are made of that the graph knows."""
MAX_SIZES = 4  # numbers of tokens that stay compiled, each with weights of its own


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
        self._layers = tuple(layers)  # no submodules: what torch computes with them is not what is computed here
        self._ranges = ranges
        self._settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": PRECISION_NAMES[dtype],
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # a pinned thread waits where a data worker has the core
        }
        self._requests: OrderedDict[int, InferRequest] = OrderedDict()

    def forward(self, hidden_states: Tensor, *, attentions: list[Tensor] | None = None) -> Tensor:
        """Transform tokens `[B, N, D]`; returns float32 `[B, N, D]`, a clip's whatever clips are beside it.

        Raises:
            ConfigError: If attention probabilities are asked for, which are never computed as a whole.
        """
        if attentions is not None:
            raise ConfigError("attention probabilities are asked for: the backend openvino never has them, use torch")
        tokens = hidden_states.detach().float().contiguous().numpy()
        request = self._request(tokens.shape[1])
        found = np.empty_like(tokens)
        for number in range(len(tokens)):
            found[number] = request.infer([tokens[number : number + 1]], share_inputs=True, share_outputs=True)[0][0]
        return torch.from_numpy(found)

    def _request(self, num_tokens: int) -> InferRequest:
        """Return what computes N tokens, compiled at the first time: half a second for ViT-B."""
        request = self._requests.pop(num_tokens, None)
        if request is None:
            import openvino

            graph = blocks_graph(self._layers, num_tokens, self._ranges)
            request = openvino.Core().compile_model(graph, "CPU", self._settings).create_infer_request()
        self._requests[num_tokens] = request
        if len(self._requests) > MAX_SIZES:
            self._requests.popitem(last=False)
        return request


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
    """Return the ranges of what the matrix multiplications of every block are given, in float32.

    Args:
        model: In eval mode; what is called for them.
        clips: `[B, T, C, H, W]` each, at least one.
    """
    found: dict[tuple[int, str], ValueRange] = {}

    def note(block: int, name: str, values: Tensor) -> None:
        rows = values.flatten(0, -2)  # [B * N, K]
        one = ValueRange(rows.amin(dim=0).float().numpy(), rows.amax(dim=0).float().numpy())
        known = found.get((block, name))
        found[block, name] = one if known is None else known.joined(one)

    def noting(block: int, given: str | None, computed: str | None) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if given is not None:
                note(block, given, inputs[0])
            if computed is not None:
                note(block, computed, output)

        return hook

    layers = [cast("VideoMAELayer", layer) for layer in _encoder(model).layer]
    handles = []
    for block, layer in enumerate(layers):
        attention = layer.attention.attention
        for linear, given, computed in (
            (attention.query, "attention", "query"),
            (attention.key, None, "key"),
            (layer.attention.output.dense, "context", None),
            (layer.intermediate.dense, "intermediate", None),
            (layer.output.dense, "output", None),
        ):
            handles.append(linear.register_forward_hook(noting(block, given, computed)))
    try:
        with autocast(torch.device("cpu"), torch.float32):
            for pixel_values in clips:
                model(pixel_values)
    finally:
        for handle in handles:
            handle.remove()
    return [BlockRanges(**{name: found[block, name] for name in BlockRanges._fields}) for block in range(len(layers))]


def _is_as_built(layer: nn.Module) -> bool:
    """Return whether a block computes what its class does: nothing in it is replaced, nothing listens to it."""
    parts = list(layer.modules())
    linears = (one for one in parts if isinstance(one, nn.Linear))
    return (
        is_untouched(layer, VideoMAELayer) and {type(one) for one in parts} <= PARTS and all(map(is_plain, linears))
    )


def _encoder(model: nn.Module) -> VideoMAEEncoder:
    """Return the stack of blocks of an encoder or a classifier."""
    return next(one for one in model.modules() if isinstance(one, VideoMAEEncoder))
