"""Model folders: `config.json`, `model.safetensors`, `preprocessor_config.json` and `videomae.json`.

The first three are what transformers reads and writes. `videomae.json` is this package's own: the frame sampling
the model was trained with and a record of the training. Every tensor of a file is accounted for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from videomae.atomic import atomic_path
from videomae.errors import ConfigError, WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.config import VideoMAEConfig
from videomae.model.layouts import from_transformers, to_transformers

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "videomae.json"
ENCODER_PREFIX = "videomae."

Model = TypeVar("Model", bound=VideoMAEPreTrainedModel)


@dataclass(frozen=True)
class LoadReport:
    """Where each tensor of a model came from, by our names."""

    loaded: tuple[str, ...]
    """Taken from the file."""
    fresh: tuple[str, ...]
    """In the model, not in the file: freshly made."""
    unused: tuple[str, ...]
    """In the file, not in the model."""

    def lines(self) -> list[str]:
        """Return a summary for people, one line for each group of tensors."""
        rows = []
        for title, names in (
            ("loaded", self.loaded),
            ("freshly made", self.fresh),
            ("not used", self.unused),
        ):
            groups: dict[str, int] = {}
            for name in names:
                group = ".".join(part for part in name.split(".")[:3] if not part.isdigit())
                groups[group] = groups.get(group, 0) + 1
            shown = ", ".join(f"{group} ({count})" for group, count in groups.items())
            rows.append(f"{title}: {len(names)} tensors{': ' + shown if shown else ''}")
        return rows


def save_model(model: VideoMAEPreTrainedModel, folder: Path) -> None:
    """Write configuration and weights; see `VideoMAEPreTrainedModel.save_pretrained`."""
    values = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    values["dtype"] = values["torch_dtype"] = str(model.dtype).removeprefix("torch.")
    state = {
        key: tensor.detach().to("cpu").contiguous() for key, tensor in to_transformers(model.state_dict()).items()
    }
    path = folder / WEIGHTS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            partial.touch()
            mode = partial.stat().st_mode
            save_file(state, partial, metadata={"format": "pt"})
            partial.chmod(mode)  # safetensors lets nobody but the owner read its files
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {path}: {error}") from None
    # Last: a full disk fails on the weights, and then an older configuration stays beside its own weights.
    write_json(folder / CONFIG_FILE, values)


def load_model(cls: type[Model], folder: Path, settings: Mapping[str, Any]) -> Model:
    """Load a model folder strictly; see `VideoMAEPreTrainedModel.from_pretrained`."""
    config = load_config(folder, settings)
    model = cls(config)
    report = load_state(model, read_weights(folder))
    problems = [f"{title} {', '.join(names)}" for title, names in _unexplained(model, report) if names]
    if problems:
        raise WeightsError(f"{folder} does not fit {cls.__name__}: {'; '.join(problems)}")
    return model.eval()


def _unexplained(model: VideoMAEPreTrainedModel, report: LoadReport) -> list[tuple[str, list[str]]]:
    # A bare encoder may be read out of a whole model: the heads of that model are left aside.
    bare = not any(name.startswith(ENCODER_PREFIX) for name in model.state_dict())
    unused = [
        name for name in report.unused if not bare or name.startswith(("embeddings.", "encoder.", "layernorm."))
    ]
    return [("it lacks", list(report.fresh)), ("it also has", unused)]


def find_model_folder(path: Path) -> Path:
    """Return the model folder that a path means: itself, or the `model` folder of a finished run.

    Raises:
        WeightsError: If there is neither.
    """
    for folder in (path, path / "model"):
        if (folder / CONFIG_FILE).is_file():
            return folder
    if not path.exists():
        raise WeightsError(f"{path} does not exist: give a model folder, or the folder of a finished run")
    raise WeightsError(
        f"{path} holds no {CONFIG_FILE}, nor does a folder model in it: give a model folder, or the folder of a "
        "finished run"
    )


def load_config(folder: Path, settings: Mapping[str, Any] | None = None) -> VideoMAEConfig:
    """Read the configuration of a model folder, with some fields changed.

    Raises:
        WeightsError: If the folder or file is missing or is no JSON.
        ConfigError: If a field is unknown or out of range.
    """
    values = _read_json(folder, CONFIG_FILE)
    try:
        return VideoMAEConfig.from_dict(values, **dict(settings or {}))
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG_FILE}: {error}") from None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of a model folder, under our names.

    Raises:
        WeightsError: If the file is missing or damaged.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise WeightsError(f"{folder} has no {WEIGHTS_FILE}: give the folder of a saved model")
    try:
        return from_transformers(load_file(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {str(error).splitlines()[0]}") from None


def load_state(model: VideoMAEPreTrainedModel, state: Mapping[str, Tensor]) -> LoadReport:
    """Copy into a model what fits it by name, in place; nothing is copied if any shape differs.

    A bare encoder takes the encoder of a whole model, and a whole model takes a bare encoder.

    Args:
        model: The model to fill.
        state: Tensors by our names, of any dtype.

    Raises:
        WeightsError: If a tensor has another shape than the model's.
    """
    own = model.state_dict()
    state = _match_prefix(state, own)
    for name, tensor in state.items():
        if name in own and own[name].shape != tensor.shape:
            raise WeightsError(
                f"{name} has shape {list(tensor.shape)} in the file and {list(own[name].shape)} in the model: the "
                "checkpoint is of another architecture"
            )
    taken = [name for name in own if name in state]
    with torch.no_grad():
        for name in taken:
            own[name].copy_(state[name])
    return LoadReport(
        loaded=tuple(taken),
        fresh=tuple(name for name in own if name not in state),
        unused=tuple(name for name in state if name not in own),
    )


def _match_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    ours_whole = any(name.startswith(ENCODER_PREFIX) for name in own)
    theirs_whole = any(name.startswith(ENCODER_PREFIX) for name in state)
    if ours_whole == theirs_whole:
        return state
    if ours_whole:
        return {ENCODER_PREFIX + name: tensor for name, tensor in state.items()}
    return {name.removeprefix(ENCODER_PREFIX): tensor for name, tensor in state.items()}


def save_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `videomae.json`: frame sampling and training record, any JSON values."""
    write_json(folder / RECORD_FILE, record)


def load_record(folder: Path) -> dict[str, Any]:
    """Read `videomae.json`; empty for a folder that transformers wrote."""
    return _read_json(folder, RECORD_FILE) if (folder / RECORD_FILE).is_file() else {}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, keys sorted.

    Raises:
        WeightsError: If the disk refuses, for example because it is full.
    """
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    try:
        with atomic_path(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error}") from None


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not folder.is_dir():
        raise WeightsError(f"{folder} is no folder: give the folder of a saved model")
    if not path.is_file():
        raise WeightsError(f"{folder} has no {name}: give the folder of a saved model")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds no JSON object: give the folder of a saved model")
    return values
