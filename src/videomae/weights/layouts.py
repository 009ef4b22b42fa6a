"""Names of the tensors in each known checkpoint layout, as literal tables.

"Ours" is the module tree of this package.
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
    "attn.q_bias": "attention.attention.qkv.q_bias",
    "attn.v_bias": "attention.attention.qkv.v_bias",
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

# transformers -> ours, after `attention.attention.`. The published files spell the biases q_bias and v_bias;
# transformers 5 holds them in memory as query.bias and value.bias.
TRANSFORMERS_ATTENTION = {
    "q_bias": "qkv.q_bias",
    "v_bias": "qkv.v_bias",
    "query.bias": "qkv.q_bias",
    "value.bias": "qkv.v_bias",
}
ATTENTION_PARTS = ("query.weight", "key.weight", "value.weight")
_TRANSFORMERS_KEY = re.compile(r"^(.*attention\.attention\.)(query\.weight|key\.weight|value\.weight|.*bias)$")
_BLOCK = re.compile(r"^(.*(?:blocks|layer|decoder_layers))\.(\d+)\.(.+)$")


def transformers_names(keys: Collection[str]) -> dict[str, str]:
    """Return our name for each of transformers' names; the three weights of an attention share one of ours.

    In a block that lacks one of the three the others keep their own names, so that the caller reports them; so does a
    bias on the keys, which no VideoMAE has.
    """
    names = {}
    for key in keys:
        match = _TRANSFORMERS_KEY.match(key)
        names[key] = key
        if match is not None:
            prefix, name = match.groups()
            if name in TRANSFORMERS_ATTENTION:
                names[key] = prefix + TRANSFORMERS_ATTENTION[name]
            elif name in ATTENTION_PARTS and all(prefix + part in keys for part in ATTENTION_PARTS):
                names[key] = f"{prefix}qkv.weight"
    return names


def assemble(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename tensors, and stack those of queries, keys and values that share a name.

    Args:
        state: Tensors, real or on the meta device.
        names: A new name for each; see `transformers_names`.

    Raises:
        WeightsError: If tensors that are to be stacked differ in dtype.
    """
    sources: dict[str, list[str]] = {}
    for theirs, ours in names.items():
        sources.setdefault(ours, []).append(theirs)
    assembled = {}
    for ours, keys in sources.items():
        dtypes = {str(state[key].dtype).removeprefix("torch.") for key in keys}
        if len(dtypes) > 1:  # stacking would convert them without a word
            raise WeightsError(
                f"the tensors that make up {ours} hold {' and '.join(sorted(dtypes))}: they must be alike"
            )
        if len(keys) > 1:
            keys.sort(key=lambda key: next(rank for rank, part in enumerate(ATTENTION_PARTS) if key.endswith(part)))
        assembled[ours] = state[keys[0]] if len(keys) == 1 else torch.cat([state[key] for key in keys])
    return assembled


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our tensors as the published files do: separate q, k, v weights, `q_bias` and `v_bias`."""
    theirs: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.endswith("attention.attention.qkv.weight"):
            prefix = key.removesuffix("qkv.weight")
            for part, rows in zip(ATTENTION_PARTS, tensor.chunk(3), strict=True):
                theirs[prefix + part] = rows
        else:
            theirs[key.replace("attention.attention.qkv.", "attention.attention.")] = tensor
    return theirs


def to_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our tensors to the original authors' names."""
    pretraining = any(key.startswith("decoder.") for key in state)
    table = ORIGINAL_PRETRAINING if pretraining else ORIGINAL_CLASSIFICATION
    inverse = {ours: theirs for theirs, ours in table.items()}
    inverse_block = {ours: theirs for theirs, ours in ORIGINAL_BLOCK.items()}
    return {rename(key, inverse, inverse_block): tensor for key, tensor in state.items()}


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
