"""From one checkpoint layout to another, bit for bit: `videomae weights convert`.

Tensors are renamed, and queries, keys and values joined or cut apart; no value changes and no model is built.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videomae.atomic import atomic_path
from videomae.errors import ConfigError, WeightsError
from videomae.sharing.beside import save_beside
from videomae.sharing.configs import Target as Target
from videomae.sharing.record import ModelRecord, read_record
from videomae.weights.completeness import check_complete
from videomae.weights.config_keys import OWN_FIELDS
from videomae.weights.configs import ModelConfig, Settled
from videomae.weights.hub import HubOptions
from videomae.weights.json_files import write_json
from videomae.weights.layouts import to_original, to_transformers
from videomae.weights.loading import (
    CONFIG_NOTE,
    Checkpoint,
    check_positions,
    open_checkpoint,
    settle,
)
from videomae.weights.options import LoadOptions
from videomae.weights.recognition import POSITION_TABLES
from videomae.weights.saving import save_tensors
from videomae.weights.sources import CONFIG_FILE, PROCESSOR_FILE, RECORD_FILE, SAFE_FILES, Origin

TARGETS: tuple[Target, ...] = ("videomae", "transformers", "original")
TRANSFORMERS_EPS = 1e-5  # of its norms before the heads, whatever the configuration says


@dataclass(frozen=True)
class Conversion:
    """What a conversion did."""

    out: Path
    """The folder or file that was written."""
    layout: str
    """What it was made from."""
    num_tensors: int
    """How many tensors were written."""
    notes: tuple[str, ...]
    """What was repaired, assumed or ignored."""


def convert_weights(
    source: str | os.PathLike[str],
    out: Path,
    *,
    config_class: type[ModelConfig],
    to: Target = "videomae",
    config: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Write a checkpoint in another layout.

    Args:
        source: As for `from_pretrained`.
        out: For `original` a file, otherwise a folder.
        config_class: Of the model, `VideoMAEConfig`.
        to: `videomae`: a model folder with all that this package keeps. `transformers`: one with nothing that
            transformers does not know. `original`: a `.pth` file for the authors' programs.
        config: A `config.json`, or a folder with one, for files that have none.
        revision: On the Hub.
        overwrite: Replace what is at `out`.

    Raises:
        WeightsError: If the source cannot be read, the target has no place for a part of it, or the disk refuses.
        ConfigError: If `to` is unknown, or something is at `out`.
    """
    if to not in TARGETS:
        raise ConfigError(f"to is {to!r}: choose one of {', '.join(TARGETS)}")
    _check_free(out, to, overwrite=overwrite)
    options = LoadOptions(config=config, hub=HubOptions(revision=revision))
    checkpoint = open_checkpoint(source, config_class, options)
    settled, positions = _checked(checkpoint, options, config_class)
    for text in settled.repairs:
        warnings.warn(f"{checkpoint.source.name}: {text}", UserWarning, stacklevel=2)
    tensors = {name: tensor for name, tensor in checkpoint.assembled().items() if name not in positions}
    notes = [*settled.repairs, *checkpoint.source.notes, *settled.notes]
    if positions:
        notes.append(f"ignored, since every program computes it: {', '.join(positions)}")
    values = {**settled.config.to_dict(), "architectures": [checkpoint.layout.kind.class_name]}
    if to == "original":
        _write_original(out, tensors, values)
    else:
        dtype = next(iter(tensors.values())).dtype
        values["dtype"] = values["torch_dtype"] = str(dtype).removeprefix("torch.")
        if to == "transformers":
            notes += _transformers_differences(settled.config)
            values = {name: value for name, value in values.items() if name not in OWN_FIELDS}
        save_tensors(to_transformers(tensors), out)
        write_json(out / CONFIG_FILE, values)
        beside = Origin(processor=checkpoint.source.side_file(PROCESSOR_FILE), record=None)
        record = _record(checkpoint) if to == "videomae" else None
        save_beside(out, settled.config, origin=beside, record=record)
    return Conversion(out, checkpoint.describe(), len(tensors), tuple(notes))


def _checked(
    checkpoint: Checkpoint, options: LoadOptions, config_class: type[ModelConfig]
) -> tuple[Settled, list[str]]:
    """Return the configuration, and the names of the position tables, of a checkpoint that holds a whole model.

    Raises:
        WeightsError: If a tensor is missing, has the wrong shape or belongs to no model.
    """
    try:
        kind = checkpoint.layout.kind
        settled = settle(checkpoint, options, {}, wanted=kind, config_class=config_class)
        positions = [name for name in checkpoint.shapes if name in POSITION_TABLES]
        check_positions(checkpoint, positions, strict=True)
        check_complete(checkpoint.shapes, kind, use_mean_pooling=settled.config.use_mean_pooling)
    except WeightsError as error:
        raise WeightsError(f"{checkpoint.source.name}: {error}") from None
    return settled, positions


def _check_free(out: Path, to: Target, *, overwrite: bool) -> None:
    if to == "original":
        if out.is_dir():
            raise ConfigError(f"out {out} is a folder: give the .pth file to write")
        taken = out.exists()
    else:
        if out.is_file():
            raise ConfigError(f"out {out} is a file: give a folder")
        taken = any((out / name).exists() for name in (CONFIG_FILE, *SAFE_FILES))
    if taken and not overwrite:
        raise ConfigError(f"out {out} holds a model already: give --overwrite, or another place")


def _write_original(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    # Clones: a tensor that is mapped from a file would take its whole file with it.
    state = OrderedDict((name, tensor.clone()) for name, tensor in to_original(tensors).items())
    content = {"model": state, CONFIG_NOTE: json.dumps(dict(config), sort_keys=True)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into RuntimeError
        raise WeightsError(f"cannot write {path}: {' '.join(str(error).split())}") from None


def _transformers_differences(config: ModelConfig) -> list[str]:
    """Name what transformers computes otherwise.

    Raises:
        WeightsError: If it has no place for a part of the model.
    """
    for name, what in (("init_values", "layer scale"), ("use_cls_token", "CLS token")):
        if getattr(config, name):
            raise WeightsError(f"transformers' VideoMAE has no {what}, which this model has: convert to videomae")
    if config.head_norm_eps == TRANSFORMERS_EPS:
        return []
    text = (
        f"transformers' norms before the heads have an epsilon of {TRANSFORMERS_EPS}, this model's "
        f"{config.head_norm_eps}: its outputs differ in about the sixth digit"
    )
    return [text]


def _record(checkpoint: Checkpoint) -> ModelRecord:
    path = checkpoint.source.side_file(RECORD_FILE)
    kept = ModelRecord() if path is None else read_record(path)
    converted = {"source": checkpoint.source.name, "layout": checkpoint.describe()}
    return replace(kept, extra={**kept.extra, "converted": converted})
