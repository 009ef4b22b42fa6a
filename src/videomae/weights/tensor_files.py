"""Tensors out of weights files of any kind, without running what is in them and without trusting what they say.

A file is known by its first bytes, not by its name: safetensors, or torch's pickled files of both generations. The
tensors stay on the disk, mapped, until somebody reads them, so that looking at a file of gigabytes costs nothing;
only torch's first-generation files are read whole.
"""

from __future__ import annotations

import argparse
import threading
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_safe_globals, safe_globals

from videomae.errors import WeightsError
from videomae.weights.json_files import one_line, printable_name, read_json

# Where checkpoints keep the model among optimizer state and bookkeeping; looked for in this order, level by level.
CONTAINERS = ("model", "module", "state_dict", "state", "model_state_dict", "model_state", "net", "network")
MAX_DEPTH = 3
MAX_PICKLE_BYTES = 6 * 2**20  # of names and numbers; that of the largest known checkpoint is half a megabyte
ZIP_MAGIC, PICKLE_MAGIC = b"PK\x03\x04", b"\x80"
_RECOGNISABLE = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: run git lfs pull, or download the file",
    b"<!DOCTYPE": "is a web page, not weights: the download went wrong",
    b"<html": "is a web page, not weights: the download went wrong",
}
_safe_globals_lock = threading.Lock()  # torch's allow-list is one for the process


@dataclass(frozen=True)
class TensorFile:
    """What one or several weights files hold."""

    tensors: dict[str, Tensor]
    """Dense tensors by the names in the file, mapped from it."""
    container: str = ""
    """Where in a pickled checkpoint they were, such as `model`; empty: at the top."""
    others: tuple[str, ...] = ()
    """Names beside the tensors that hold something else."""
    notes: dict[str, str] = field(default_factory=dict)
    """Texts at the top of a pickled checkpoint."""


def read_tensors(paths: Sequence[Path], *, where: Mapping[str, str] | None = None) -> TensorFile:
    """Read one weights file, or all the shards of one model.

    Args:
        paths: The files; several are shards, whose tensors are put together.
        where: The index of the shards: file name by tensor name.

    Raises:
        WeightsError: If a file is missing, damaged, or holds anything that may not be read; if shards and index
            disagree.
    """
    parts = {path.name: _read_one(path) for path in paths}
    if len(parts) == 1 and where is None:
        return next(iter(parts.values()))
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        for key, tensor in part.tensors.items():
            if key in tensors:
                raise WeightsError(
                    f"{paths[0].parent}: the tensor {printable_name(key)} is in two shards, one of them {name}"
                )
            tensors[key] = tensor
    for key, name in (where or {}).items():
        if key not in parts[name].tensors:
            what = f"the index says that {printable_name(key)} is in {name}, which lacks it"
            raise WeightsError(f"{paths[0].parent}: {what}")
    others = tuple(other for part in parts.values() for other in part.others)
    return TensorFile(tensors, next(iter(parts.values())).container, others)


def read_index(path: Path) -> dict[str, str]:
    """Read the index of a sharded model.

    Returns:
        Names of files, all beside the index, by tensor name.

    Raises:
        WeightsError: If it is no index, or names a file anywhere else.
    """
    table = read_json(path).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise WeightsError(f"{path} has no weight_map: it is no index of shards")
    for name in table.values():
        if not is_plain_name(name):
            raise WeightsError(f"{path} names the shard {str(name)[:80]!r}: a shard must be next to its index")
    return table


def is_plain_name(name: object) -> bool:
    """Tell whether a text from a file may name another file: a visible name, without any way to another folder."""
    return (
        isinstance(name, str)
        and 0 < len(name) < 256
        and name.isprintable()
        and not name.startswith(".")
        and not set(name) & set('/\\:*?"<>|')
    )


def _read_one(path: Path) -> TensorFile:
    try:
        if not path.is_file():
            raise WeightsError(f"{path} is no file")
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(32)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None
    for start, meaning in _RECOGNISABLE.items():
        if head.startswith(start):
            raise WeightsError(f"{path} {meaning}")
    if head[8:9] == b"{":  # before the others: the length before it may begin as they do
        return TensorFile(_read_safetensors(path))
    if head.startswith(ZIP_MAGIC):
        _check_zip(path, size)
        return _from_pickled(path, _load_pickled(path, mapped=True), size)
    if head.startswith(PICKLE_MAGIC):
        return _from_pickled(path, _load_pickled(path, mapped=False), size)
    if path.suffix == ".safetensors":
        return TensorFile(_read_safetensors(path))
    raise WeightsError(
        f"{path} is no weights file ({size} bytes): it is neither safetensors nor a file that torch.save wrote, "
        "or it is damaged at its start"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {one_line(error)}") from None


def _check_zip(path: Path, size: int) -> None:
    """Refuse archives that would unpack to more than they are; torch.save stores without compression."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise WeightsError(f"{path} is damaged or cut off: {one_line(error)}") from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise WeightsError(f"{path} is a compressed archive, which torch.save does not write: unpack it first")
    if sum(entry.file_size for entry in entries) > size:
        raise WeightsError(f"{path} declares more content than its {size} bytes")
    if not any(entry.filename.endswith("data.pkl") for entry in entries):
        raise WeightsError(f"{path} is a zip archive, but not one that torch.save wrote")
    if max(entry.file_size for entry in entries if entry.filename.endswith(".pkl")) > MAX_PICKLE_BYTES:
        raise WeightsError(f"{path} has a pickle of more than {MAX_PICKLE_BYTES} bytes besides its tensors: refused")


def _load_pickled(path: Path, *, mapped: bool) -> object:
    """Unpickle with torch's weights-only reader, which knows tensors, plain values and what is allowed here."""
    with _safe_globals_lock:
        known = set(get_safe_globals())
        allowed = [one for one in _allowed_globals() if one not in known]  # leaving removes what it added
        try:
            with warnings.catch_warnings(), safe_globals(allowed):
                warnings.simplefilter("ignore")  # on pickle protocols; what matters is raised
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # a damaged pickle can raise anything at all
            raise WeightsError(f"{path} {_why_refused(error)}") from None


def _allowed_globals() -> list[Any]:
    """Return what the original checkpoints hold besides tensors: parsed arguments, and numbers of numpy."""
    scalar = np.float64(0).__reduce__()[0]
    # A numpy of either generation reads the files of both, whose modules have different names.
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    kinds = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")}
    return [argparse.Namespace, np.dtype, *((scalar, name) for name in names), *kinds]


def _why_refused(error: Exception) -> str:
    text = " ".join(str(error).split())
    for mark in ("Unsupported global: GLOBAL ", "Trying to load unsupported GLOBAL "):
        if mark in text:
            what = printable_name(text.split(mark)[1].split()[0].rstrip("."))
            return (
                f"would run {what} when read, so it was not read: only tensors and plain values are; if you trust "
                "its author, load it with torch yourself and save the state dict alone"
            )
    if "legacy .tar format" in text:
        return "is in torch's tar format of before 2017, which cannot be read safely: save it with a newer torch"
    if isinstance(error, MemoryError) or "alloc_cpu" in text:
        return "declares more values than there is memory for"
    inner = text.split("WeightsUnpickler error: ")[-1].split(" Check the documentation")[0]
    return f"is damaged, or not written by torch.save: {printable_name(inner) if inner else type(error).__name__}"


def _from_pickled(path: Path, content: object, size: int) -> TensorFile:
    steps: list[str] = []
    notes = {}
    for _ in range(MAX_DEPTH):
        if not isinstance(content, dict):
            raise WeightsError(f"{path} holds {type(content).__name__} where a dictionary of tensors should be")
        if not steps:
            notes = {str(key): value for key, value in content.items() if isinstance(value, str)}
        inner = next((key for key in CONTAINERS if isinstance(content.get(key), dict)), None)
        if inner is None or any(isinstance(value, Tensor) for value in content.values()):
            break
        steps.append(inner)
        content = content[inner]
    assert isinstance(content, dict)
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        known = ", ".join(printable_name(key) for key in list(content)[:8]) or "nothing"
        raise WeightsError(f"{path} holds no tensors under {', '.join(CONTAINERS)} or at its top; it has: {known}")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise WeightsError(f"{path}: the tensor {printable_name(name)} is not a plain dense one")
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > size:
        raise WeightsError(f"{path} declares more values than its {size} bytes can hold")
    others = tuple(str(key) for key, value in content.items() if not isinstance(value, Tensor))
    return TensorFile({name: tensor.detach() for name, tensor in tensors.items()}, ".".join(steps), others, notes)
