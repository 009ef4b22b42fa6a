"""Model folders: `config.json` and `model.safetensors`, which transformers reads too.

What is written here, `loading.py` reads. huggingface_hub cuts the weights into shards.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from videomae.atomic import atomic_path
from videomae.errors import ConfigError, WeightsError
from videomae.weights.configs import ModelConfig
from videomae.weights.json_files import json_text, write_json
from videomae.weights.layouts import to_transformers
from videomae.weights.sources import CONFIG_FILE, INDEX_SUFFIX, PICKLE_FILES, SAFE_FILES, WEIGHTS_FILE

if TYPE_CHECKING:
    from huggingface_hub import StateDictSplit

MAX_SHARD_SIZE = "5GB"  # what older versions of transformers and the Hub's web pages handle well
SHARD_PATTERN = "model{suffix}.safetensors"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


class Saveable(Protocol):
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
    model: Saveable,
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
    split = cut_shards(tensors, max_shard_size)
    path, index_name = folder, WEIGHTS_FILE + INDEX_SUFFIX
    try:
        path = folder / next(iter(split.filename_to_tensors))
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if split.is_sharded:
                index = stack.enter_context(atomic_path(folder / index_name))
                index.write_text(
                    json_text({"metadata": split.metadata, "weight_map": split.tensor_to_filename}), encoding="utf-8"
                )
            for file_name, names in split.filename_to_tensors.items():
                path = folder / file_name
                partial = stack.enter_context(atomic_path(path))
                partial.touch()
                mode = partial.stat().st_mode
                group = {name: tensors[name].contiguous() for name in names}
                save_file(group, partial, metadata={"format": "pt"})
                partial.chmod(mode)  # safetensors lets nobody but the owner read its files
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {path}: {error}") from None
    _remove_stale(folder, keep={*split.filename_to_tensors, *((index_name,) if split.is_sharded else ())})


def cut_shards(tensors: Mapping[str, Tensor], max_shard_size: int | str) -> StateDictSplit:
    """Divide tensors, in their order, into files of at most so many bytes; a larger tensor has a file of its own.

    Raises:
        ConfigError: If the size is none.
    """
    # The import takes a third of a second, which `import videomae` need not wait for.
    from huggingface_hub import split_torch_state_dict_into_shards

    # Without values: tensors that are views of one memory would be counted once and kept together.
    shapes = {name: torch.empty(one.shape, dtype=one.dtype, device="meta") for name, one in tensors.items()}
    try:
        if isinstance(max_shard_size, int) and max_shard_size < 1:
            raise ValueError
        return split_torch_state_dict_into_shards(
            shapes, filename_pattern=SHARD_PATTERN, max_shard_size=max_shard_size
        )
    except (ValueError, TypeError):
        raise ConfigError(
            f"max_shard_size is {max_shard_size!r}; it must be a number of bytes or a text such as '5GB'"
        ) from None


def _remove_stale(folder: Path, *, keep: set[str]) -> None:
    for path in folder.iterdir():
        known = path.name in (*SAFE_FILES, *PICKLE_FILES) or _SHARD.fullmatch(path.name)
        if known and path.name not in keep:
            with contextlib.suppress(OSError):  # the new weights are written; a reader prefers safetensors anyway
                path.unlink()
