"""The sizes of a model from the shapes of its tensors, and what shapes cannot tell from the published models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from videomae.errors import WeightsError
from videomae.presets import DECODER_HEADS, ENCODER_HEADS, PRESETS
from videomae.weights.kinds import DECODER_PARTS

ASSUMED_FRAMES, ASSUMED_SIZE = 16, 224  # of every published model
ORIGINAL_EPS = 1e-6  # the original models, and mmaction2's, have one epsilon everywhere
LAYER_SCALE = 0.1  # any positive number: the gains themselves are in the file

PROJECTION = "videomae.embeddings.patch_embeddings.projection.weight"
ENCODER_STACK, DECODER_STACK = "videomae.encoder.layer", "decoder.decoder_layers"


def infer_architecture(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read what shapes show of a configuration.

    Args:
        tensors: By our whole-model names, of any device.

    Returns:
        Fields of `VideoMAEConfig`: sizes and switches of the encoder; of the decoder and the classifier only where
        the tensors have them.

    Raises:
        WeightsError: If a tensor that shows a size is missing or has another number of dimensions.
    """
    width, channels, tubelet, height, row = _shape(tensors, PROJECTION, 5)
    found: dict[str, Any] = {
        "hidden_size": width,
        "num_channels": channels,
        "tubelet_size": tubelet,
        "patch_size": height if height == row else (height, row),
        "num_hidden_layers": _depth(tensors, ENCODER_STACK),
        "intermediate_size": _shape(tensors, f"{ENCODER_STACK}.0.intermediate.dense.weight", 2)[0],
        "qv_bias": f"{ENCODER_STACK}.0.attention.attention.query.bias" in tensors,
        "use_cls_token": "videomae.embeddings.cls_token" in tensors,
        "init_values": LAYER_SCALE if f"{ENCODER_STACK}.0.gamma_1" in tensors else 0.0,
        # The final norm stands before a decoder, or before one token that is classified; never before the mean.
        "use_mean_pooling": "videomae.layernorm.weight" not in tensors,
    }
    if "classifier.weight" in tensors:
        found["num_labels"] = _shape(tensors, "classifier.weight", 2)[0]
    if any(name.startswith(DECODER_PARTS) for name in tensors):
        found["decoder_hidden_size"] = _shape(tensors, "mask_token", 3)[2]
        found["decoder_num_hidden_layers"] = _depth(tensors, DECODER_STACK)
        found["decoder_intermediate_size"] = _shape(tensors, f"{DECODER_STACK}.0.intermediate.dense.weight", 2)[0]
    return found


def known_heads(found: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers of heads of the known models of these widths; none where the width is not known."""
    heads = {}
    if found["hidden_size"] in ENCODER_HEADS:
        heads["num_attention_heads"] = ENCODER_HEADS[found["hidden_size"]]
    if found.get("decoder_hidden_size") in DECODER_HEADS:
        heads["decoder_num_attention_heads"] = DECODER_HEADS[found["decoder_hidden_size"]]
    return heads


def known_decoder(hidden_size: int) -> dict[str, int]:
    """Return the decoder of the published model of a width, for files without one; empty if there is none."""
    for sizes in PRESETS.values():
        if sizes["hidden_size"] == hidden_size:
            return {name: value for name, value in sizes.items() if name.startswith("decoder_")}
    return {}


def describe(sizes: Mapping[str, Any]) -> str:
    """Return the name of the published size with this encoder, or its numbers.

    Args:
        sizes: Fields of a configuration.
    """
    shown = (
        f"{sizes['hidden_size']} wide, {sizes['num_hidden_layers']} deep, {sizes['num_attention_heads']} heads, "
        f"patch {sizes['patch_size']}"
    )
    for name, preset in PRESETS.items():
        fields = {"patch_size": 16, **preset}
        encoder = [field for field in fields if not field.startswith(("decoder_", "num_attention"))]
        if all(sizes[field] == fields[field] for field in encoder):
            return f"{name} ({shown})"
    return shown


def _shape(tensors: Mapping[str, Tensor], name: str, num_dims: int) -> tuple[int, ...]:
    if name not in tensors:
        raise WeightsError(f"it lacks {name}")
    shape = tuple(tensors[name].shape)
    if len(shape) != num_dims or 0 in shape:
        raise WeightsError(f"{name} has shape {list(shape)}; it must have {num_dims} dimensions, none of them 0")
    return shape


def _depth(tensors: Mapping[str, Tensor], stack: str) -> int:
    pattern = re.compile(re.escape(stack) + r"\.(\d{1,4})\.")
    numbers = {int(match[1]) for name in tensors if (match := pattern.match(name))}
    if not numbers:
        raise WeightsError(f"it lacks {stack}.0 and all blocks after it")
    missing = sorted(set(range(max(numbers) + 1)) - numbers)
    if missing:
        raise WeightsError(f"it lacks {stack}.{missing[0]}, although it has {stack}.{max(numbers)}")
    return len(numbers)
