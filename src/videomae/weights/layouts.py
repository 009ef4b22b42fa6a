"""Names of the tensors in each known checkpoint layout, as literal tables.

"Ours" is the module tree of this package, which is that of transformers 5.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from videomae.errors import WeightsError

# Original VideoMAE and VideoMAE V2 -> ours, inside one block. One to one: the fused projection is theirs too.
ORIGINAL_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.qkv.weight": "attention.attention.qkv.weight",
    "attn.q_bias": "attention.attention.query.bias",
    "attn.v_bias": "attention.attention.value.bias",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "gamma_1": "gamma_1",
    "gamma_2": "gamma_2",
}
ORIGINAL_PRETRAINING = {
    "encoder.patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
    "encoder.blocks": "videomae.encoder.layer",
    "encoder.norm": "videomae.layernorm",
    "decoder.blocks": "decoder.decoder_layers",
    "decoder.norm": "decoder.norm",
    "decoder.head": "decoder.head",
    "encoder_to_decoder": "encoder_to_decoder",
    "mask_token": "mask_token",
}
ORIGINAL_CLASSIFICATION = {
    "patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
    "blocks": "videomae.encoder.layer",
    "norm": "videomae.layernorm",
    "fc_norm": "fc_norm",
    "head": "classifier",
}

# mmaction2's VideoMAE -> ours: the original's names but for the projection, the MLP and the head.
MMACTION2_BLOCK = {
    **{theirs: ours for theirs, ours in ORIGINAL_BLOCK.items() if not theirs.startswith("mlp.")},
    "mlp.layers.0.0": "intermediate.dense",
    "mlp.layers.1": "output.dense",
}
MMACTION2_CLASSIFICATION = {
    "patch_embed.projection": "videomae.embeddings.patch_embeddings.projection",
    "blocks": "videomae.encoder.layer",
    "norm": "videomae.layernorm",
    "fc_norm": "fc_norm",
    "cls_head.fc_cls": "classifier",
}

# Other programs' names of an attention's tensors -> ours, after `attention.attention.`. The published files spell the
# biases q_bias and v_bias; this package's first versions had one projection `qkv`.
OLDER_ATTENTION = {
    "q_bias": "query.bias",
    "v_bias": "value.bias",
    "qkv.q_bias": "query.bias",
    "qkv.v_bias": "value.bias",
}
ATTENTION = "attention.attention."
PARTS = ("query.weight", "key.weight", "value.weight")
FUSED = ATTENTION + "qkv.weight"  # the three weights as the rows of one; assembling cuts it into ours
_BLOCK = re.compile(r"^(.*(?:blocks|layer|decoder_layers))\.(\d+)\.(.+)$")


def transformers_names(keys: Collection[str]) -> dict[str, str]:
    """Return our name for each of transformers' names, of any version, and of this package's first versions."""
    names = {}
    for key in keys:
        prefix, found, name = key.rpartition(ATTENTION)
        names[key] = prefix + found + OLDER_ATTENTION.get(name, name) if found else key
    return names


def parts_of(name: str) -> tuple[str, ...]:
    """Return our names for a tensor: queries, keys and values of a fused weight, otherwise the name itself."""
    if not name.endswith(FUSED):
        return (name,)
    prefix = name.removesuffix("qkv.weight")
    return tuple(prefix + part for part in PARTS)


def assemble(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename tensors, and cut fused weights of queries, keys and values into the three.

    Args:
        state: Tensors, real or on the meta device.
        names: A new name for each; see `transformers_names`.

    Returns:
        Views of the given tensors by our names.

    Raises:
        WeightsError: If the rows of a fused weight are not three times as many as its columns.
    """
    assembled: dict[str, Tensor] = {}
    for theirs, ours in names.items():
        parts, tensor = parts_of(ours), state[theirs]
        if len(parts) > 1 and (tensor.dim() != 2 or tensor.shape[0] != 3 * tensor.shape[1]):
            raise WeightsError(f"{theirs} has shape {list(tensor.shape)}; queries, keys and values are [3 * D, D]")
        assembled.update(zip(parts, tensor.chunk(3) if len(parts) > 1 else (tensor,), strict=True))
    return assembled


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our tensors as the published files do: `q_bias` and `v_bias`."""
    ends = {ATTENTION + "query.bias": "q_bias", ATTENTION + "value.bias": "v_bias"}
    theirs = {}
    for key, tensor in state.items():
        end = next((end for end in ends if key.endswith(end)), None)
        theirs[key if end is None else key.removesuffix(end) + ATTENTION + ends[end]] = tensor
    return theirs


def to_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our tensors to the original authors' names, with queries, keys and values as one weight."""
    pretraining = any(key.startswith("decoder.") for key in state)
    table = ORIGINAL_PRETRAINING if pretraining else ORIGINAL_CLASSIFICATION
    inverse = {ours: theirs for theirs, ours in table.items()}
    inverse_block = {ours: theirs for theirs, ours in ORIGINAL_BLOCK.items()}
    fused: dict[str, Tensor] = {}
    for key, tensor in state.items():
        part = next((part for part in PARTS if key.endswith(ATTENTION + part)), None)
        if part is None:
            fused[key] = tensor
        elif part == PARTS[0]:
            prefix = key.removesuffix(part)
            fused[prefix + "qkv.weight"] = torch.cat([state[prefix + one] for one in PARTS])
    return {rename(key, inverse, inverse_block): tensor for key, tensor in fused.items()}


def rename(key: str, stems: Mapping[str, str], block_stems: Mapping[str, str]) -> str:
    """Rename one tensor by the tables of a layout; a name that is in neither stays."""
    block = _BLOCK.match(key)
    if block and block.group(1) in stems:
        stack, number, inner = block.groups()
        return f"{stems[stack]}.{number}.{_swap_stem(inner, block_stems)}"
    return _swap_stem(key, stems)


def _swap_stem(key: str, stems: Mapping[str, str]) -> str:
    for theirs, ours in stems.items():
        if key == theirs or key.startswith(theirs + "."):
            return ours + key[len(theirs) :]
    return key
