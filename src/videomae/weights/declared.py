"""What a `config.json` says, of whichever program, and the one thing that the published ones say wrongly."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from videomae.errors import WeightsError
from videomae.presets import ENCODER_HEADS
from videomae.weights.architecture import ORIGINAL_EPS
from videomae.weights.config_keys import (
    OWN_FIELDS,
    UPSTREAM_KEYS,
    V2_BLOCK,
    V2_FIELDS,
    V2_UNSUPPORTED,
    WRITTEN_KEYS,
)
from videomae.weights.json_files import read_json
from videomae.weights.settings_files import find_settings, split_hub_options
from videomae.weights.sources import CONFIG_FILE

SMALL_WIDTH, SMALL_WRONG_HEADS = 384, 16
PUBLISHED_SMALL_LABELS = (400, 174)  # Kinetics-400, Something-Something V2
MISSPELT = 0.85  # one letter of seven or more


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
    """Keys that mean nothing here."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the configuration keeps as attributes without effect: of a file of this package, whatever was assigned."""
    is_v2: bool = False
    """Whether it is of VideoMAE V2's repositories."""


def parse(values: Mapping[str, Any], path: str, *, known: Collection[str]) -> Declared:
    """Read the contents of a `config.json`, transformers' of any version, this package's, or VideoMAE V2's.

    Args:
        values: The contents.
        path: Which file, for messages.
        known: What it may say about the model.

    Raises:
        WeightsError: If it describes another family of models, or misspells a field.
    """
    if isinstance(values.get(V2_BLOCK), Mapping):
        return _declared_v2(values[V2_BLOCK], path)
    model_type = values.get("model_type", "videomae")
    if model_type != "videomae":
        raise WeightsError(f"{path} is of a {str(model_type)[:40]!r} model, not of VideoMAE")
    kept = {name: value for name, value in values.items() if name in known}
    ignored = [
        name for name in values if name not in known and name not in UPSTREAM_KEYS and not name.startswith("_")
    ]
    for name in ignored:
        close = difflib.get_close_matches(name, known, n=1, cutoff=MISSPELT)
        if close:  # an entry of another program may be ignored; a setting that was meant may not
            raise WeightsError(f"{path}: unknown config field {name!r}: did you mean {close[0]!r}?")
    by_us = bool(OWN_FIELDS & values.keys())
    names = [name for name in values if name not in {*known, *WRITTEN_KEYS}] if by_us else ignored
    extra = {name: values[name] for name in names}
    return Declared(path, kept, by_us=by_us, ignored=() if by_us else tuple(sorted(ignored)), extra=extra)


def _declared_v2(block: Mapping[str, Any], path: str) -> Declared:
    for name in V2_UNSUPPORTED:
        if block.get(name):
            raise WeightsError(f"{path} sets {name}, which no released model has and this package does not read")
    values = {ours: block[theirs] for theirs, ours in V2_FIELDS.items() if theirs in block}
    values.setdefault("layer_norm_eps", ORIGINAL_EPS)
    return Declared(path, values, by_us=False, is_v2=True)


def read_repaired(
    source: str | os.PathLike[str], arguments: Mapping[str, Any], *, known: Collection[str]
) -> tuple[Declared, dict[str, Any]]:
    """Find and read the configuration of a saved model, without its weights.

    Args:
        source: A model folder, the folder of a finished run, a `config.json`, or `owner/name` on the Hub.
        arguments: Options of the Hub, and fields that win over the file's.
        known: See `parse`.

    Returns:
        What the file says, corrected with a warning, and the arguments that are fields.

    Raises:
        WeightsError: If there is none, or it cannot be used.
    """
    hub, settings = split_hub_options(arguments)
    path = find_settings(source, (CONFIG_FILE,), hub=hub).settings
    declared = parse(read_json(path), str(path), known=known)
    values = dict(declared.values)
    for text in repair_small(declared, values, settings):
        warnings.warn(text, UserWarning, stacklevel=3)
    return replace(declared, values=values), settings


def repair_small(declared: Declared, values: dict[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Correct the number of heads of the published small models, in place, and return what to tell.

    Source: the original code has 6 heads of 64; the released conversions of it say 16, which no shape contradicts.
    """
    wrong = values.get("hidden_size") == SMALL_WIDTH and values.get("num_attention_heads") == SMALL_WRONG_HEADS
    if not wrong or declared.by_us or "num_attention_heads" in settings:
        return []
    names = declared.values.get("id2label")
    own_names = isinstance(names, dict) and any(str(name) != f"LABEL_{key}" for key, name in names.items())
    if own_names and num_labels_of(declared.values) not in PUBLISHED_SMALL_LABELS:
        text = (
            f"{declared.path} says 16 heads at hidden_size 384: the published small models, which have 6, were "
            "released under that wrong number; this classifier of other classes was fine-tuned with 16, so 16 is "
            "kept; give num_attention_heads=6 if it was not"
        )
        return [text]
    values["num_attention_heads"] = ENCODER_HEADS[SMALL_WIDTH]
    text = (
        f"{declared.path} says 16 heads at hidden_size 384, with which the published small models were released "
        "but not trained: 6 are used; give num_attention_heads=16 to compute as the file says"
    )
    return [text]


def num_labels_of(values: Mapping[str, Any]) -> Any:
    """Return the number of classes that a configuration names."""
    for name in ("id2label", "num_labels", "label2id"):
        value = values.get(name)
        if value:
            return len(value) if isinstance(value, Mapping | list) else value
    return 2  # transformers' default, which it leaves out of its files
