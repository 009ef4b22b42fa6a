"""The configuration of a checkpoint: what its `config.json` says, what its shapes say, what is known to be wrong.

A file's word is never taken for a size that its tensors show. What the caller gives always wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor

from videomae.errors import ConfigError, WeightsError
from videomae.presets import DECODER_HEADS, ENCODER_HEADS
from videomae.weights.architecture import (
    ASSUMED_FRAMES,
    ASSUMED_SIZE,
    ORIGINAL_EPS,
    infer_architecture,
    known_decoder,
    known_heads,
)
from videomae.weights.declared import Declared, num_labels_of, parse, repair_small
from videomae.weights.json_files import one_line, read_json
from videomae.weights.kinds import ModelKind
from videomae.weights.recognition import Layout

SHAPED = (
    "hidden_size num_hidden_layers intermediate_size patch_size tubelet_size num_channels decoder_hidden_size "
    "decoder_num_hidden_layers decoder_intermediate_size"
).split()
LABEL_SETTINGS = frozenset(("num_labels", "id2label", "label2id"))
MAX_BLOCKS = 512
MAX_LABELS = 100_000
MAX_POSITION_VALUES = 2**26  # 64 frames of 832 x 832 pixels at the width of the base model


class ModelConfig(Protocol):
    """What loading and saving need of a configuration; `VideoMAEConfig` has it."""

    model_type: ClassVar[str]
    id2label: dict[int, str]
    num_frames: int
    num_channels: int
    num_hidden_layers: int
    use_mean_pooling: bool

    @property
    def head_norm_eps(self) -> float:
        """Epsilon of the norms before the heads."""

    @property
    def num_labels(self) -> int:
        """Number of classes."""

    @property
    def image_height_width(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""

    @property
    def extra_attributes(self) -> dict[str, Any]:
        """What was assigned besides the fields."""

    def keep_attributes(self, values: Mapping[str, Any]) -> None:
        """Assign what a file says besides the fields."""

    @classmethod
    def known_keys(cls) -> frozenset[str]:
        """Return what a `config.json` may say about the model."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **settings: Any) -> Self:
        """Build a configuration from the contents of a `config.json`; `settings` win."""

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of a `config.json`."""

    def replace(self, **settings: Any) -> Self:
        """Return a copy with some fields changed."""


@dataclass(frozen=True)
class Settled:
    """A configuration, and how it came about."""

    config: ModelConfig
    """The configuration."""
    repairs: tuple[str, ...]
    """What the file said wrongly, and what was done; worth a warning."""
    notes: tuple[str, ...]
    """What was assumed."""


def read_declared(path: Path, config_class: type[ModelConfig]) -> Declared:
    """Read a `config.json`, transformers' of any version, this package's, or VideoMAE V2's.

    Raises:
        WeightsError: If it is no JSON object or describes another family of models.
    """
    return parse(read_json(path), str(path), known=config_class.known_keys())


def settle_config(
    declared: Declared | None,
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    *,
    layout: Layout,
    wanted: ModelKind,
    config_class: type[ModelConfig],
    lenient: bool = False,
) -> Settled:
    """Decide the configuration of a model that is to be loaded.

    Args:
        declared: What its `config.json` says; None where there is none.
        tensors: Its tensors by our whole-model names.
        settings: What the caller says.
        layout: How the file's tensors are named.
        wanted: What is to be loaded.
        config_class: Of the model.
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
    defaults = config_class.from_dict({}).to_dict()
    if declared is None:
        values = _undeclared(found, settings, layout, wanted, notes)
        settings = {"position_grid": None, **settings}  # what the caller says of the sizes is what the file is
        repairs = []
    else:
        values = _with_switches(declared, found, settings)
        if not lenient:
            _check_shaped(declared, values, found, settings, wanted, defaults=defaults)
        repairs = repair_small(declared, values, settings) + _repair_biases(values, found, settings)
    repairs += _repair_pooling(declared, values, settings, layout.kind, wanted)
    if wanted.name == "pretraining" and layout.kind.name != "pretraining":
        notes.append("the decoder is that of the configuration, randomly initialized")
    _check_bounds(values, settings, defaults=defaults)
    return Settled(_build(config_class, declared, values, settings), tuple(repairs), tuple(notes))


def _undeclared(
    found: dict[str, Any], settings: Mapping[str, Any], layout: Layout, wanted: ModelKind, notes: list[str]
) -> dict[str, Any]:
    native = {"num_frames": ASSUMED_FRAMES, "image_size": ASSUMED_SIZE}
    values = {**native, **known_decoder(found["hidden_size"]), **found}
    if LABEL_SETTINGS & settings.keys():
        values.pop("num_labels", None)
    heads = known_heads(found)
    needed = ["num_attention_heads"]
    if "decoder_hidden_size" in found and wanted.name == "pretraining":
        needed.append("decoder_num_attention_heads")
    elif "decoder_hidden_size" in found and "decoder_num_attention_heads" not in heads:
        values = {name: value for name, value in values.items() if not name.startswith("decoder_")}
    for name in needed:
        if name not in heads and name not in settings:
            decoder = name.startswith("decoder_")
            width, table = ("decoder_hidden_size", DECODER_HEADS) if decoder else ("hidden_size", ENCODER_HEADS)
            raise WeightsError(
                f"there is no config.json, and a {width} of {found[width]} is that of no published model "
                f"({', '.join(map(str, table))}), so that nothing tells the number of heads: give {name}="
            )
    values.update(heads)
    for name in ("num_frames", "image_size"):
        if name not in settings:
            notes.append(f"there is no config.json: {name} {values[name]} is assumed")
    for name in needed:
        if name not in settings:
            notes.append(f"there is no config.json: {name} {heads[name]} is that of the model of this width")
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
    declared: Declared,
    values: Mapping[str, Any],
    found: Mapping[str, Any],
    settings: Mapping[str, Any],
    wanted: ModelKind,
    *,
    defaults: Mapping[str, Any],
) -> None:
    for name in SHAPED:
        if name not in found or name in settings or (name.startswith("decoder_") and wanted.name != "pretraining"):
            continue
        says = values.get(name, defaults[name])
        if _pair(says) != _pair(found[name]):
            raise WeightsError(f"{declared.path} says {name} {_short(says)}, but the tensors have {found[name]}")
    if wanted.name == "classification" and "num_labels" in found and not LABEL_SETTINGS & settings.keys():
        count = num_labels_of(values)
        if count != found["num_labels"]:
            raise WeightsError(
                f"{declared.path} names {_short(count)} classes, but the classifier has {found['num_labels']} rows: "
                "give num_labels= for a new classifier"
            )


def _repair_biases(values: dict[str, Any], found: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    says = values.get("qv_bias", values.get("qkv_bias", True))
    if says is not False or not found.get("qv_bias") or "qv_bias" in settings:
        return []
    values.pop("qkv_bias", None)
    values["qv_bias"] = True
    return ["the configuration says that queries and values have no bias, but the file has them: they are used"]


def _repair_pooling(
    declared: Declared | None, values: dict[str, Any], settings: Mapping[str, Any], kind: ModelKind, wanted: ModelKind
) -> list[str]:
    mean = values.get("use_mean_pooling", True)
    if wanted.name != "classification" or kind is wanted or "use_mean_pooling" in settings:
        return []
    if mean is not False or values.get("use_cls_token"):
        return []
    values["use_mean_pooling"] = True
    if declared is None:
        return []
    text = (
        f"{declared.path} is of a model without a classifier and says use_mean_pooling false; a classifier would "
        "see one corner patch alone, since there is no CLS token: it averages all tokens instead; give "
        "use_mean_pooling=False for the corner patch"
    )
    return [text]


def _check_bounds(values: Mapping[str, Any], settings: Mapping[str, Any], *, defaults: Mapping[str, Any]) -> None:
    """Refuse sizes that no model has before anything of such a size is made; the caller's own are not bounded."""
    for name in ("num_hidden_layers", "decoder_num_hidden_layers"):
        if name not in settings and _too_large(values.get(name), MAX_BLOCKS):
            raise WeightsError(f"the configuration says {name} {_short(values[name])}; the most is {MAX_BLOCKS}")
    if not LABEL_SETTINGS & settings.keys() and _too_large(num_labels_of(values), MAX_LABELS):
        raise WeightsError(
            f"the configuration says {_short(num_labels_of(values))} classes; the most is {MAX_LABELS}"
        )
    grid = values.get("position_grid")
    trained = math.prod(_number(one) for one in grid) if isinstance(grid, list | tuple) else 0.0
    if trained * _number({**defaults, **values}["hidden_size"]) > MAX_POSITION_VALUES:
        raise WeightsError(
            f"the configuration says position_grid {_short(grid)}: more than positions are computed for"
        )
    if {"num_frames", "image_size"} & settings.keys():
        return
    for name in ("hidden_size", "decoder_hidden_size"):
        if _num_positions({**defaults, **values}) * _number(values.get(name)) > MAX_POSITION_VALUES:
            raise WeightsError(
                f"the configuration says num_frames {_short(values.get('num_frames'))} and image_size "
                f"{_short(values.get('image_size'))}: more tokens than this package computes positions for"
            )


def _num_positions(values: Mapping[str, Any]) -> float:
    """Return the number of tokens of a native clip; sizes that are no numbers are refused elsewhere."""
    count = _number(values["num_frames"]) / max(_number(values["tubelet_size"]), 1)
    whole, piece = _pair(values["image_size"]), _pair(values["patch_size"])
    for side in (0, 1):
        count *= _number(whole[side]) / max(_number(piece[side]), 1)
    return count


def _build(
    config_class: type[ModelConfig],
    declared: Declared | None,
    values: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> ModelConfig:
    faults = (ConfigError, TypeError, ValueError, AttributeError, OverflowError, KeyError)
    try:
        config = config_class.from_dict(values, **settings)
    except faults as fault:
        try:
            config_class.from_dict(values)
        except faults as own_error:
            where = "its shapes" if declared is None else declared.path
            raise WeightsError(f"{where}: {one_line(own_error)}") from None
        raise ConfigError(str(fault)) from None
    if set(config.id2label) != set(range(config.num_labels)):
        error = ConfigError if LABEL_SETTINGS & settings.keys() else WeightsError
        raise error(f"id2label does not number its {config.num_labels} classes from 0 on")
    return config


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
