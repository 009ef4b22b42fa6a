"""The configuration of a checkpoint: what its `config.json` says, what its shapes say, what is known to be wrong.

A file's word is never taken for a size that its tensors show. What the caller gives always wins.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from videomae.errors import ConfigError, WeightsError
from videomae.model.architecture import (
    ASSUMED_FRAMES,
    ASSUMED_SIZE,
    DECODER_HEADS,
    ENCODER_HEADS,
    ORIGINAL_EPS,
    infer_architecture,
    known_decoder,
    known_heads,
)
from videomae.model.config import UPSTREAM_KEYS, VideoMAEConfig
from videomae.model.recognition import Kind, Layout
from videomae.model.tensor_files import one_line, read_json

V2_BLOCK = "model_config"  # where the configurations of VideoMAE V2's repositories have their sizes
V2_FIELDS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "in_chans": "num_channels",
    "num_frames": "num_frames",
    "tubelet_size": "tubelet_size",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "layer_norm_eps": "layer_norm_eps",
    "qkv_bias": "qv_bias",
    "use_mean_pooling": "use_mean_pooling",
    "init_values": "init_values",
}
V2_UNSUPPORTED = ("cos_attn", "use_learnable_pos_emb")  # in no released network
OWN_FIELDS = frozenset("drop_path_rate classifier_dropout init_values use_cls_token head_layer_norm_eps".split())
SHAPED = (
    "hidden_size num_hidden_layers intermediate_size patch_size tubelet_size num_channels decoder_hidden_size "
    "decoder_num_hidden_layers decoder_intermediate_size"
).split()
LABEL_SETTINGS = frozenset(("num_labels", "id2label", "label2id"))
SMALL_WIDTH, SMALL_WRONG_HEADS = 384, 16
PUBLISHED_SMALL_LABELS = (400, 174)  # Kinetics-400, Something-Something V2
MISSPELT = 0.85  # one letter of seven or more
MAX_BLOCKS = 512
MAX_LABELS = 100_000
MAX_POSITION_VALUES = 2**26  # 64 frames of 832 x 832 pixels at the width of the base network


@dataclass(frozen=True)
class Declared:
    """What a configuration file says."""

    path: str
    """Which file."""
    values: dict[str, Any]
    """Fields of `VideoMAEConfig`."""
    by_us: bool
    """Whether this package wrote it, and so means what it says."""
    ignored: tuple[str, ...] = ()
    """Keys that this package knows nothing of."""
    is_v2: bool = False
    """Whether it is of VideoMAE V2's repositories."""


@dataclass(frozen=True)
class Settled:
    """A configuration, and how it came about."""

    config: VideoMAEConfig
    """The configuration."""
    repairs: tuple[str, ...]
    """What the file said wrongly, and what was done; worth a warning."""
    notes: tuple[str, ...]
    """What was assumed."""


def read_declared(path: Path) -> Declared:
    """Read a `config.json`, transformers' of any version, this package's, or VideoMAE V2's.

    Raises:
        WeightsError: If it is no JSON object or describes another family of networks.
    """
    return declared_from(read_json(path), str(path))


def declared_from(values: Mapping[str, Any], path: str) -> Declared:
    """Read the contents of a `config.json`; see `read_declared`."""
    if isinstance(values.get(V2_BLOCK), Mapping):
        return _declared_v2(values[V2_BLOCK], path)
    model_type = values.get("model_type", "videomae")
    if model_type != "videomae":
        raise WeightsError(f"{path} is of a {str(model_type)[:40]!r} network, not of VideoMAE")
    known = {one.name for one in fields(VideoMAEConfig)} | {"qkv_bias", "num_labels"}
    kept = {name: value for name, value in values.items() if name in known}
    ignored = [name for name in values if name not in known | UPSTREAM_KEYS and not name.startswith("_")]
    for name in ignored:
        close = difflib.get_close_matches(name, known, n=1, cutoff=MISSPELT)
        if close:  # an entry of another program may be left aside; a setting that was meant may not
            raise WeightsError(f"{path}: unknown config field {name!r}: did you mean {close[0]!r}?")
    return Declared(path, kept, by_us=bool(OWN_FIELDS & values.keys()), ignored=tuple(sorted(ignored)))


def _declared_v2(block: Mapping[str, Any], path: str) -> Declared:
    for name in V2_UNSUPPORTED:
        if block.get(name):
            raise WeightsError(f"{path} sets {name}, which no released network has and this package does not read")
    values = {ours: block[theirs] for theirs, ours in V2_FIELDS.items() if theirs in block}
    values.setdefault("layer_norm_eps", ORIGINAL_EPS)
    return Declared(path, values, by_us=False, is_v2=True)


def settle_config(
    declared: Declared | None,
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    *,
    layout: Layout,
    wanted: Kind,
    lenient: bool = False,
) -> Settled:
    """Decide the configuration of a network that is to be loaded.

    Args:
        declared: What its `config.json` says; None where there is none.
        tensors: Its tensors by our whole-network names.
        settings: What the caller says.
        layout: How the file's tensors are named.
        wanted: What is to be loaded.
        lenient: Leave contradictions between file and shapes to the caller.

    Raises:
        WeightsError: If configuration and tensors contradict each other, or leave open what nobody knows.
        ConfigError: If the caller's settings are at fault.
    """
    settings = {("qv_bias" if name == "qkv_bias" else name): value for name, value in settings.items()}
    try:
        found = infer_architecture(tensors)
    except WeightsError:
        if declared is None or not lenient:
            raise
        found = {}
    notes: list[str] = []
    if declared is None:
        values = _undeclared(found, settings, layout, wanted, notes)
        repairs = []
    else:
        values = _with_switches(declared, found, settings)
        if not lenient:
            _check_shaped(declared, values, found, settings, wanted)
        repairs = repair_small(declared, values, settings) + _repair_biases(values, found, settings)
    repairs += _repair_pooling(declared, values, settings, layout.kind, wanted)
    if wanted == "pretraining" and layout.kind != "pretraining":
        notes.append("the decoder is that of the configuration, with fresh weights")
    _check_bounds(values, found, settings)
    return Settled(_build(declared, values, settings), tuple(repairs), tuple(notes))


def _undeclared(
    found: dict[str, Any], settings: Mapping[str, Any], layout: Layout, wanted: Kind, notes: list[str]
) -> dict[str, Any]:
    native = {"num_frames": ASSUMED_FRAMES, "image_size": ASSUMED_SIZE}
    values = {**native, **known_decoder(found["hidden_size"]), **found}
    if LABEL_SETTINGS & settings.keys():
        values.pop("num_labels", None)
    heads = known_heads(found)
    needed = ["num_attention_heads"]
    if "decoder_hidden_size" in found and wanted == "pretraining":
        needed.append("decoder_num_attention_heads")
    elif "decoder_hidden_size" in found and "decoder_num_attention_heads" not in heads:
        values = {name: value for name, value in values.items() if not name.startswith("decoder_")}
    for name in needed:
        if name not in heads and name not in settings:
            decoder = name.startswith("decoder_")
            width, table = ("decoder_hidden_size", DECODER_HEADS) if decoder else ("hidden_size", ENCODER_HEADS)
            raise WeightsError(
                f"there is no config.json, and a {width} of {found[width]} is that of no published network "
                f"({', '.join(map(str, table))}), so that nothing tells the number of heads: give {name}="
            )
    values.update(heads)
    for name in ("num_frames", "image_size"):
        if name not in settings:
            notes.append(f"there is no config.json: {name} {values[name]} is assumed")
    for name in needed:
        if name not in settings:
            notes.append(f"there is no config.json: {name} {heads[name]} is that of the network of this width")
    if layout.name in ("original pre-training", "original fine-tuning", "mmaction2"):
        values["layer_norm_eps"] = ORIGINAL_EPS
    return values


def _with_switches(declared: Declared, found: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add to what a file says the sizes and switches that its writer did not know, as the tensors show them."""
    labels_given = bool(LABEL_SETTINGS & settings.keys())  # then the file's must not contradict them
    values = {name: value for name, value in declared.values.items() if not (labels_given and name in LABEL_SETTINGS)}
    for name in ("init_values", "use_cls_token"):
        if found.get(name):
            values.setdefault(name, found[name])
    if not LABEL_SETTINGS & values.keys() and "num_labels" in found and not labels_given:
        values["num_labels"] = found["num_labels"]
    if declared.is_v2:  # its file has a ratio in place of the width of the MLP, and nothing of a decoder
        shown = {name: value for name, value in found.items() if name != "num_labels"}
        values = {**known_decoder(int(found.get("hidden_size", 0))), **shown, **values}
    return values


def _check_shaped(
    declared: Declared, values: Mapping[str, Any], found: Mapping[str, Any], settings: Mapping[str, Any], wanted: Kind
) -> None:
    defaults = VideoMAEConfig()
    for name in SHAPED:
        if name not in found or name in settings or (name.startswith("decoder_") and wanted != "pretraining"):
            continue
        says = values.get(name, getattr(defaults, name))
        if _pair(says) != _pair(found[name]):
            raise WeightsError(f"{declared.path} says {name} {_short(says)}, but the tensors have {found[name]}")
    if wanted == "classification" and "num_labels" in found and not LABEL_SETTINGS & settings.keys():
        count = _num_labels(values)
        if count != found["num_labels"]:
            raise WeightsError(
                f"{declared.path} names {_short(count)} classes, but the classifier has {found['num_labels']} rows: "
                "give num_labels= for a new classifier"
            )


def repair_small(declared: Declared, values: dict[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Correct the number of heads of the published small networks, in place, and return what to tell.

    Source: the original code has 6 heads of 64; the released conversions of it say 16, which no shape contradicts.
    """
    wrong = values.get("hidden_size") == SMALL_WIDTH and values.get("num_attention_heads") == SMALL_WRONG_HEADS
    if not wrong or declared.by_us or "num_attention_heads" in settings:
        return []
    names = declared.values.get("id2label")
    own_names = isinstance(names, dict) and any(str(name) != f"LABEL_{key}" for key, name in names.items())
    if own_names and _num_labels(declared.values) not in PUBLISHED_SMALL_LABELS:
        text = (
            f"{declared.path} says 16 heads at hidden_size 384: the published small networks, which have 6, were "
            "released under that wrong number; this classifier of other classes was fine-tuned with 16, so 16 is "
            "kept; give num_attention_heads=6 if it was not"
        )
        return [text]
    values["num_attention_heads"] = ENCODER_HEADS[SMALL_WIDTH]
    text = (
        f"{declared.path} says 16 heads at hidden_size 384, with which the published small networks were released "
        "but not trained: 6 are used; give num_attention_heads=16 to compute as the file says"
    )
    return [text]


def _repair_biases(values: dict[str, Any], found: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    says = values.get("qv_bias", values.get("qkv_bias", True))
    if says is not False or not found.get("qv_bias") or "qv_bias" in settings:
        return []
    values.pop("qkv_bias", None)
    values["qv_bias"] = True
    return ["the configuration says that queries and values have no bias, but the file has them: they are used"]


def _repair_pooling(
    declared: Declared | None, values: dict[str, Any], settings: Mapping[str, Any], kind: Kind, wanted: Kind
) -> list[str]:
    mean = values.get("use_mean_pooling", True)
    if wanted != "classification" or kind == "classification" or "use_mean_pooling" in settings:
        return []
    if mean is not False or values.get("use_cls_token"):
        return []
    values["use_mean_pooling"] = True
    if declared is None:
        return []
    text = (
        f"{declared.path} is of a network without a classifier and says use_mean_pooling false; a classifier would "
        "see one corner patch alone, since there is no CLS token: it averages all tokens instead; give "
        "use_mean_pooling=False for the corner patch"
    )
    return [text]


def _check_bounds(values: Mapping[str, Any], found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse sizes that no network has before anything of such a size is made; the caller's own are not bounded."""
    for name in ("num_hidden_layers", "decoder_num_hidden_layers"):
        if name not in settings and _too_large(values.get(name), MAX_BLOCKS):
            raise WeightsError(f"the configuration says {name} {_short(values[name])}; the most is {MAX_BLOCKS}")
    if not LABEL_SETTINGS & settings.keys() and _too_large(_num_labels(values), MAX_LABELS):
        raise WeightsError(f"the configuration says {_short(_num_labels(values))} classes; the most is {MAX_LABELS}")
    if {"num_frames", "image_size"} & settings.keys():
        return
    for name in ("hidden_size", "decoder_hidden_size"):
        if _num_positions(values) * _number(values.get(name)) > MAX_POSITION_VALUES:
            raise WeightsError(
                f"the configuration says num_frames {_short(values.get('num_frames'))} and image_size "
                f"{_short(values.get('image_size'))}: more tokens than this package computes positions for"
            )


def _num_positions(values: Mapping[str, Any]) -> float:
    """Return the number of tokens of a native clip; sizes that are no numbers are refused elsewhere."""
    defaults = VideoMAEConfig()
    sizes = {name: values.get(name, getattr(defaults, name)) for name in ("num_frames", "tubelet_size")}
    count = _number(sizes["num_frames"]) / max(_number(sizes["tubelet_size"]), 1)
    whole, piece = (_pair(values.get(name, getattr(defaults, name))) for name in ("image_size", "patch_size"))
    for side in (0, 1):
        count *= _number(whole[side]) / max(_number(piece[side]), 1)
    return count


def _build(declared: Declared | None, values: Mapping[str, Any], settings: Mapping[str, Any]) -> VideoMAEConfig:
    faults = (ConfigError, TypeError, ValueError, AttributeError, OverflowError, KeyError)
    try:
        config = VideoMAEConfig.from_dict(values, **settings)
    except faults as fault:
        try:
            VideoMAEConfig.from_dict(values)
        except faults as own_error:
            where = "its shapes" if declared is None else declared.path
            raise WeightsError(f"{where}: {one_line(own_error)}") from None
        raise ConfigError(str(fault)) from None
    if set(config.id2label) != set(range(config.num_labels)):
        error = ConfigError if LABEL_SETTINGS & settings.keys() else WeightsError
        raise error(f"id2label does not number its {config.num_labels} classes from 0 on")
    return config


def _num_labels(values: Mapping[str, Any]) -> Any:
    for name in ("id2label", "num_labels", "label2id"):
        value = values.get(name)
        if value:
            return len(value) if isinstance(value, Mapping | list) else value
    return 2  # transformers' default, which it leaves out of its files


def _too_large(value: object, most: int) -> bool:
    return _number(value) > most


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(min(value, 10**12))  # an integer of a thousand digits is no float


def _pair(size: Any) -> tuple[Any, Any]:
    return (size[0], size[1]) if isinstance(size, list | tuple) and len(size) == 2 else (size, size)


def _short(value: object) -> str:
    return repr(value)[:60]
