"""Which layout the tensors of a file are in, by their names alone, and what each of them is called here.

Training programs wrap a model in others, whose names come first: `module.`, `_orig_mod.`, `model.`, `backbone.`,
`encoder.`, `net.`, `network.`, one or several of them. The one tensor that every layout has, the tubelet projection,
shows which.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from videomae.errors import WeightsError
from videomae.weights.json_files import printable_name
from videomae.weights.kinds import DECODER_PARTS, ENCODER_PREFIX, ModelKind, kind_of_tensors
from videomae.weights.layouts import (
    FUSED,
    MMACTION2_BLOCK,
    MMACTION2_CLASSIFICATION,
    ORIGINAL_BLOCK,
    ORIGINAL_CLASSIFICATION,
    ORIGINAL_PRETRAINING,
    parts_of,
    rename,
    transformers_names,
)

LayoutName = Literal["transformers", "videomae", "original pre-training", "original fine-tuning", "mmaction2"]

COMPILED = "_orig_mod."  # torch.compile puts it wherever it was called, not only in front
_WRAPPERS = r"((?:(?:module|model|backbone|encoder|net|network)\.)*)"
_ANCHORS: dict[Literal["original", "mmaction2", "ours"], re.Pattern[str]] = {
    "original": re.compile(_WRAPPERS + r"patch_embed\.proj\.weight"),
    "mmaction2": re.compile(_WRAPPERS + r"patch_embed\.projection\.weight"),
    "ours": re.compile(_WRAPPERS + r"(?:videomae\.)?embeddings\.patch_embeddings\.projection\.weight"),
}
_BARE = ("embeddings.", "encoder.layer.", "layernorm.")
# Fixed codes that some programs save although every program computes them.
POSITION_TABLES = frozenset(
    "pos_embed encoder.pos_embed decoder.pos_embed decoder_pos_embed decoder.decoder_pos_embed "
    "videomae.embeddings.position_embeddings decoder.position_embeddings".split()
)


@dataclass(frozen=True)
class Layout:
    """How the tensors of a file are named."""

    name: LayoutName
    """The table that applies."""
    wrapper: str
    """What stood before the names."""
    names: dict[str, str]
    """Our name for each name in the file, whole-model names; only q, k and v weights share one."""

    @property
    def kind(self) -> ModelKind:
        """What the file holds."""
        return kind_of_tensors(self.names.values())


def recognise(keys: Collection[str]) -> Layout:
    """Find the layout of a file.

    Args:
        keys: The names of its tensors.

    Raises:
        WeightsError: If it is none that this package knows, or holds several models, or two tensors of one name.
    """
    plain = {key: key.replace(COMPILED, "") for key in keys}
    found = [
        (family, match[1])
        for key in plain.values()
        for family, anchor in _ANCHORS.items()
        if (match := anchor.fullmatch(key))
    ]
    if not found:
        shown = ", ".join(printable_name(key) for key in sorted(keys)[:4])
        raise WeightsError(
            f"no layout of VideoMAE fits: none of the {len(keys)} tensors is the tubelet projection; the first are "
            f"{shown}"
        )
    if len(found) > 1:
        raise WeightsError(f"{len(found)} models are in it, not one: save the one that is wanted by itself")
    family, wrapper = found[0]
    outer = wrapper.removesuffix("encoder.")
    # A decoder beside `encoder.` makes a pre-training model; a model that is only wrapped in something called encoder
    # has none.
    pretraining = outer != wrapper and any(
        key.startswith(tuple(outer + part for part in DECODER_PARTS)) for key in plain.values()
    )
    if family == "original" and pretraining:
        wrapper = outer
    bare = {key: _unwrap(name, wrapper) for key, name in plain.items()}
    layout, names = _our_names(family, bare, pretraining=pretraining)
    _check_unique(names)
    return Layout(layout, wrapper, names)


def whole_name(name: str) -> str:
    """Return the name that a tensor of a bare encoder has in a whole model."""
    return ENCODER_PREFIX + name if name.startswith(_BARE) else name


def _unwrap(key: str, wrapper: str) -> str:
    """Take off the wrapper; a head that stands outside of it loses those outer parts that it has."""
    parts = re.findall(r"[^.]+\.", wrapper)
    for count in range(len(parts), 0, -1):
        prefix = "".join(parts[:count])
        if key.startswith(prefix):
            return key[len(prefix) :]
    return key


def _our_names(family: str, bare: Mapping[str, str], *, pretraining: bool) -> tuple[LayoutName, dict[str, str]]:
    match family:
        case "mmaction2":
            return "mmaction2", {
                key: rename(name, MMACTION2_CLASSIFICATION, MMACTION2_BLOCK) for key, name in bare.items()
            }
        case "original" if pretraining:
            return "original pre-training", {
                key: rename(name, ORIGINAL_PRETRAINING, ORIGINAL_BLOCK) for key, name in bare.items()
            }
        case "original":
            return "original fine-tuning", {
                key: rename(name, ORIGINAL_CLASSIFICATION, ORIGINAL_BLOCK) for key, name in bare.items()
            }
        case _:
            ours = transformers_names(bare.values())
            fused = any(name.endswith(FUSED) for name in ours.values())
            names = {key: whole_name(ours[name]) for key, name in bare.items()}
            return "videomae" if fused else "transformers", names


def _check_unique(names: Mapping[str, str]) -> None:
    sources: dict[str, str] = {}
    for theirs, whole in names.items():
        for ours in parts_of(whole):
            if ours in sources:
                shown = " and ".join(map(printable_name, sorted((sources[ours], theirs))))
                raise WeightsError(f"{shown} are the same tensor, {printable_name(ours)}: one of them is left over")
            sources[ours] = theirs
