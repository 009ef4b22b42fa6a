"""Whether the tensors of a file make up a whole model, told from their names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from videomae.errors import WeightsError
from videomae.weights.kinds import ENCODER_PREFIX, KINDS, ModelKind
from videomae.weights.recognition import POSITION_TABLES
from videomae.weights.report import listed

_BLOCK = re.compile(r"(.*\.(?:layer|decoder_layers))\.(\d+)\.(.+)")
_PAIRS = {"weight": "bias", "bias": "weight", "q_bias": "v_bias", "v_bias": "q_bias"}
WITHOUT_BIAS = ("encoder_to_decoder.weight", "qkv.weight")
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
    missing = {f"{stem}.{twin}" for name in names for stem, twin in _twin(name) if f"{stem}.{twin}" not in tensors}
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


def _twin(name: str) -> list[tuple[str, str]]:
    """Return module and last name of the tensor without which this one makes no layer."""
    stem, _, leaf = name.rpartition(".")
    return [(stem, _PAIRS[leaf])] if leaf in _PAIRS and not name.endswith(WITHOUT_BIAS) else []


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
