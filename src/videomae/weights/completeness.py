"""Whether the tensors of a file make up a whole model, told from their names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from videomae.errors import WeightsError
from videomae.weights.kinds import ENCODER_PREFIX, KINDS, ModelKind
from videomae.weights.layouts import ATTENTION, PARTS
from videomae.weights.recognition import POSITION_TABLES
from videomae.weights.report import listed

_BLOCK = re.compile(r"(.*\.(?:layer|decoder_layers))\.(\d+)\.(.+)")
_PAIRS = {"weight": "bias", "bias": "weight"}
WITHOUT_BIAS = "encoder_to_decoder.weight"
# What comes together in an attention, after `attention.attention.`: keys have no bias.
_ATTENTION_SETS = (PARTS, ("query.bias", "value.bias"))
NORM_LEAVES = ("weight", "bias")
ENCODER_PARTS = tuple(
    ENCODER_PREFIX + part
    for part in ("embeddings.patch_embeddings.", "embeddings.cls_token", "encoder.", "layernorm.")
)
POOLED_NORM = "fc_norm."


def check_complete(tensors: Mapping[str, Tensor], kind: ModelKind, *, use_mean_pooling: bool) -> None:
    """Refuse a file that lacks a tensor, or has one that is no part of its kind of model.

    Args:
        tensors: By the names of a whole model here; may be on the meta device.
        kind: What the file holds.
        use_mean_pooling: Of its configuration: whether the encoder ends without a norm.

    Raises:
        WeightsError: If a tensor is missing or unexpected, or blocks of a stack differ in their shapes.
    """
    names = [name for name in tensors if name not in POSITION_TABLES]
    known = (*ENCODER_PARTS, POOLED_NORM, *kind.parts)
    missing = {twin for name in names for twin in _twins(name) if twin not in tensors}
    if not use_mean_pooling or kind is KINDS["classification"]:
        norm = POOLED_NORM if use_mean_pooling else ENCODER_PREFIX + "layernorm."
        missing |= {norm + leaf for leaf in NORM_LEAVES if norm + leaf not in tensors}
    missing |= _missing_in_blocks(tensors)
    problems = []
    if missing:
        problems.append(f"it lacks {listed(sorted(missing))}")
    unexpected = [name for name in names if not name.startswith(known)]
    if unexpected:
        problems.append(f"it also has {listed(unexpected)}")
    if problems:
        raise WeightsError("; ".join(problems))


def _twins(name: str) -> list[str]:
    """Return the tensors without which this one makes no layer."""
    prefix, found, part = name.rpartition(ATTENTION)
    if found:
        return [prefix + found + twin for together in _ATTENTION_SETS if part in together for twin in together]
    stem, _, leaf = name.rpartition(".")
    return [f"{stem}.{_PAIRS[leaf]}"] if leaf in _PAIRS and name != WITHOUT_BIAS else []


def _missing_in_blocks(tensors: Mapping[str, Tensor]) -> set[str]:
    """Return what some block of a stack lacks although another has it.

    Raises:
        WeightsError: If the tensors of two blocks differ in shape.
    """
    stacks: dict[str, dict[str, dict[str, tuple[int, ...]]]] = {}
    for name, tensor in tensors.items():
        if match := _BLOCK.fullmatch(name):
            stack, number, inner = match.groups()
            stacks.setdefault(stack, {}).setdefault(number, {})[inner] = tuple(tensor.shape)
    missing = set()
    for stack, blocks in stacks.items():
        shapes = {inner: shape for block in blocks.values() for inner, shape in block.items()}
        for number, block in blocks.items():
            missing |= {f"{stack}.{number}.{inner}" for inner in shapes.keys() - block.keys()}
            for inner, shape in block.items():
                if shape != shapes[inner]:
                    raise WeightsError(
                        f"{stack}.{number}.{inner} has shape {list(shape)}, in another block {list(shapes[inner])}"
                    )
    return missing
