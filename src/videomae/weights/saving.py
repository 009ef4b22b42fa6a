"""Model folders: `config.json`, `model.safetensors`, `preprocessor_config.json` and `videomae.json`.

The first three are what transformers reads and writes. `videomae.json` is this package's own: the frame sampling
the model was trained with and a record of the training. What this file writes, `loading.py` reads.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from videomae.atomic import atomic_path
from videomae.errors import ConfigError, WeightsError
from videomae.weights.configs import ModelConfig
from videomae.weights.json_files import write_json
from videomae.weights.layouts import to_transformers
from videomae.weights.sources import CONFIG_FILE, INDEX_SUFFIX, PICKLE_FILES, SAFE_FILES, WEIGHTS_FILE

MAX_SHARD_SIZE = "5GB"  # what older versions of transformers and the Hub's web pages handle well
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]I?B)", flags=re.IGNORECASE)
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


class Network(Protocol):
    """What is needed of a model to save it."""

    @property
    def config(self) -> ModelConfig:
        """Its configuration."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its parameters."""

    def state_dict(self) -> dict[str, Any]:
        """Return its tensors by name."""


def save_model(
    model: Network,
    folder: Path,
    *,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write configuration and weights, the model's or those given; see `VideoMAEPreTrainedModel.save_pretrained`."""
    values = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    values["dtype"] = values["torch_dtype"] = str(model.dtype).removeprefix("torch.")
    state = {key: tensor.detach().to("cpu") for key, tensor in (tensors or model.state_dict()).items()}
    save_tensors(to_transformers(state), folder, max_shard_size=max_shard_size)
    # Last: a full disk fails on the weights, and then an older configuration stays beside its own weights.
    write_json(folder / CONFIG_FILE, values)


def save_tensors(tensors: Mapping[str, Tensor], folder: Path, *, max_shard_size: int | str = MAX_SHARD_SIZE) -> None:
    """Write tensors as `model.safetensors`, or as shards with an index where they are larger than a shard may be.

    All files are complete on the disk before the first of them takes its name. Weights of an earlier save under
    other names, which readers might prefer, are then removed.

    Args:
        tensors: By the names they are to have in the file.
        folder: Made if it is missing.
        max_shard_size: Bytes, or a text such as "5GB".

    Raises:
        ConfigError: If the size is none.
        WeightsError: If the folder or a file cannot be written.
    """
    shards = cut_shards(tensors, read_size(max_shard_size))
    path = folder / next(iter(shards))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if len(shards) > 1:
                index = stack.enter_context(atomic_path(folder / (WEIGHTS_FILE + INDEX_SUFFIX)))
                index.write_text(_index_text(shards), encoding="utf-8")
            for name, group in shards.items():
                path = folder / name
                partial = stack.enter_context(atomic_path(path))
                partial.touch()
                mode = partial.stat().st_mode
                save_file({key: one.contiguous() for key, one in group.items()}, partial, metadata={"format": "pt"})
                partial.chmod(mode)  # safetensors lets nobody but the owner read its files
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {path}: {error}") from None
    _remove_stale(folder, keep=set(shards) | ({WEIGHTS_FILE + INDEX_SUFFIX} if len(shards) > 1 else set()))


def cut_shards(tensors: Mapping[str, Tensor], max_bytes: int) -> dict[str, dict[str, Tensor]]:
    """Divide tensors, in their order, into files of at most so many bytes; a larger tensor has a file of its own."""
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, tensor in tensors.items():
        added = tensor.numel() * tensor.element_size()
        if groups[-1] and size + added > max_bytes:
            groups.append({})
            size = 0
        groups[-1][key] = tensor
        size += added
    if len(groups) == 1:
        return {WEIGHTS_FILE: groups[0]}
    return {f"model-{number:05d}-of-{len(groups):05d}.safetensors": one for number, one in enumerate(groups, 1)}


def read_size(size: int | str) -> int:
    """Read a number of bytes.

    Raises:
        ConfigError: If it is no positive number, with a unit where it is a text.
    """
    match = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    count = size if isinstance(size, int) else int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if count < 1:
        raise ConfigError(f"max_shard_size is {size!r}; it must be a number of bytes or a text such as '5GB'")
    return count


def _index_text(shards: Mapping[str, Mapping[str, Tensor]]) -> str:
    total = sum(one.numel() * one.element_size() for group in shards.values() for one in group.values())
    where = {key: name for name, group in shards.items() for key in group}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2, sort_keys=True) + "\n"


def _remove_stale(folder: Path, *, keep: set[str]) -> None:
    for path in folder.iterdir():
        known = path.name in (*SAFE_FILES, *PICKLE_FILES) or _SHARD.fullmatch(path.name)
        if known and path.name not in keep:
            with contextlib.suppress(OSError):  # the new weights are written; a reader prefers safetensors anyway
                path.unlink()
