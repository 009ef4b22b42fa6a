"""Training checkpoints: one complete file per saved step, proved intact before a run resumes from it.

The state is whatever the loop needs, made of tensors and plain values. A sharded run has a folder in the place of a
file (`engine/sharded_checkpoint.py`), which is found, proved and deleted here by the same rules.
Files are read with torch's weights-only reader, so that a checkpoint from a stranger cannot run code.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
import warnings
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from videomae.atomic import atomic_file, partial_path, sync_folder, write_text_atomic
from videomae.errors import CheckpointError, ConfigError

FORMAT_KEY = "videomae_checkpoint"
FORMAT_VERSION = 1
FILE_NAME = re.compile(r"checkpoint-(\d{8,})(\.pt)?")  # without an ending: a sharded run's folder
CONTENTS = "contents.json"  # of such a folder: format, plain state, and size and checksum of every file
READ_BYTES = 2**24
PLAIN_TYPES = (int, float, str, bool, type(None), Tensor, Parameter)


def save_checkpoint(folder: Path, *, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write the state after `step` steps, then delete the checkpoints it makes superfluous.

    A failed or killed save leaves the checkpoints that were there. Partial files of killed saves are removed.
    Checkpoints of later steps are removed too: the run came back to before them, so they are of a past that
    it left.

    Args:
        folder: Made where missing; one run at a time writes to it.
        step: Optimizer steps done, >= 0; it names the file.
        state: Tensors, dicts, lists, tuples, int, float, str, bool, None, nested at will.
        keep: Newest checkpoints that stay, >= 1.

    Returns:
        The file, `checkpoint-{step:08d}.pt`.

    Raises:
        ConfigError: If `keep` is below 1 or `step` below 0.
        CheckpointError: If the state holds anything else, or the file cannot be written.
        RuntimeError: As torch raises it at any moment where a data worker has died.
    """
    if keep < 1:
        raise ConfigError(f"checkpoints to keep are {keep}; a run must be able to resume: keep 1 or more")
    if step < 0:
        raise ConfigError(f"checkpoint step is {step}; steps are counted from 0")
    _check_plain(state, where="state")
    path = step_path(folder, step, sharded=False)
    handled = sys.exception()  # a run that stops with an error saves while it handles it
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(partial_path(Path("checkpoint-*.pt")).name):
            stale.unlink(missing_ok=True)
        with atomic_file(path) as stream:
            torch.save({FORMAT_KEY: FORMAT_VERSION, "step": step, "state": state}, stream)
        prune(folder, step=step, keep=keep)
    except (OSError, RuntimeError) as error:
        # Closing torch's zip file fails with a RuntimeError after any failure: the first error tells what happened.
        # It may have nothing to do with writing: torch reports a dead data worker wherever the program is just then.
        first = _first_error(error, after=handled)
        if not isinstance(first, OSError):
            raise first from None
        raise CheckpointError(
            f"checkpoint {path} cannot be written ({first.strerror or first}); earlier checkpoints in the folder are "
            "intact: free space or give another output folder, then resume"
        ) from error
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest intact checkpoint; a damaged newer one is named in a warning.

    Args:
        folder: Where `save_checkpoint` writes; it need not exist.

    Returns:
        The file, or None where there is no checkpoint at all.

    Raises:
        CheckpointError: If there are checkpoints and every one is damaged.
    """
    damaged: list[str] = []
    for _, path in sorted(_checkpoints(folder), reverse=True):
        reason = _damage(path)
        if reason is None:
            return path
        warnings.warn(f"checkpoint {path} is damaged ({reason}) and skipped for the one before it", stacklevel=2)
        damaged.append(path.name)
    if damaged:
        raise CheckpointError(
            f"no checkpoint in {folder} is intact; damaged are {', '.join(damaged)}: restore one from a "
            "copy, or start the run anew with another output folder"
        )
    return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Args:
        path: A file that `save_checkpoint` wrote.

    Returns:
        The state as it was saved, every tensor on the CPU, plus its `step`.

    Raises:
        CheckpointError: If the file is missing, damaged, or not a checkpoint of this package.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist: check the path, or resume from the run's folder")
    reason = _damage(path)
    if reason is not None:
        raise CheckpointError(f"checkpoint {path} is damaged ({reason}): resume from an earlier one")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except RuntimeError:  # a zip file, but none of torch's
        content = None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path} holds more than tensors and plain values and is refused, because reading it "
            "could run code: use a checkpoint that this package wrote"
        ) from error
    if not isinstance(content, dict) or content.get(FORMAT_KEY) != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} is not a training checkpoint of this version: use a checkpoint-*.pt file of a run, or "
            "load model weights as weights"
        )
    return {**content["state"], "step": content["step"]}


def step_path(folder: Path, step: int, *, sharded: bool) -> Path:
    """Return where the checkpoint of a step is."""
    return folder / f"checkpoint-{step:08d}{'' if sharded else '.pt'}"


def commit_folder(partial: Path, path: Path, state: dict[str, Any]) -> None:
    """Give a folder in which all parts are on the disk its name, and write what it holds into it.

    Args:
        partial: The folder.
        path: Its name; a folder that has it is replaced.
        state: Values that JSON can hold, with `step`.

    Raises:
        OSError: If it cannot be done.
    """
    parts = {one.name: [one.stat().st_size, _checksum(one)] for one in sorted(partial.iterdir())}
    content = {FORMAT_KEY: FORMAT_VERSION, "state": state, "files": parts}
    write_text_atomic(partial / CONTENTS, json.dumps(content))
    if path.exists():  # of a past that the run has left
        shutil.rmtree(path)
    os.replace(partial, path)
    sync_folder(path.parent)


def folder_state(path: Path) -> dict[str, Any]:
    """Return the plain state of a folder that `commit_folder` has named.

    Raises:
        CheckpointError: If it is none of this version.
    """
    try:
        content = json.loads((path / CONTENTS).read_bytes())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get(FORMAT_KEY) != FORMAT_VERSION:
        raise CheckpointError(f"{path} is not a training checkpoint of this version: resume from an earlier one")
    state: dict[str, Any] = content["state"]
    return state


def prune(folder: Path, *, step: int, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints up to `step`.

    Raises:
        OSError: If one cannot be deleted.
    """
    found = sorted(_checkpoints(folder))
    kept = [path for at, path in found if at <= step][-keep:]
    for _, path in found:
        if path not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """List the checkpoints with their steps, in no order."""
    if not folder.is_dir():
        return []
    matches = ((FILE_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return [(int(match[1]), path) for match, path in matches if match and path.is_dir() != bool(match[2])]


def _damage(path: Path) -> str | None:
    """Return what is wrong with the file or folder, or None.

    Every byte of content is compared with its checksum here, because torch.load does not: it reads a file
    with changed bits without a word.
    """
    try:
        if path.is_dir():
            return _damaged_part(path)
        with zipfile.ZipFile(path) as archive:
            entry = archive.testzip()
    except Exception as error:  # zipfile raises many kinds on damaged input; each of them means damaged
        return _reason(error)
    return None if entry is None else f"checksum of {entry} differs"


def _damaged_part(folder: Path) -> str | None:
    """Return what is wrong with a file of a folder, or None; any error means damaged, too."""
    for name, (size, checksum) in json.loads((folder / CONTENTS).read_bytes())["files"].items():
        if (folder / name).stat().st_size != size:
            return f"{name} has {(folder / name).stat().st_size} bytes, not {size}"
        if _checksum(folder / name) != checksum:
            return f"checksum of {name} differs"
    return None


def _checksum(path: Path) -> int:
    checksum = 0
    with open(path, "rb") as stream:
        while block := stream.read(READ_BYTES):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _check_plain(value: object, *, where: str) -> None:
    """Refuse at saving time what could not be read back: a run must not find out when it resumes."""
    # Exact types: a NumPy float is a float and a named tuple a tuple, but neither is read back.
    kind = type(value)
    if isinstance(value, dict) and kind in (dict, OrderedDict):
        for key, item in value.items():
            if type(key) not in (str, int):
                raise CheckpointError(
                    f"checkpoint {where} has the key {key!r} of type {type(key).__name__}; keys are str or "
                    "int: convert it before saving"
                )
            _check_plain(item, where=f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)) and kind in (list, tuple):
        for position, item in enumerate(value):
            _check_plain(item, where=f"{where}[{position}]")
    elif kind not in PLAIN_TYPES:
        raise CheckpointError(
            f"checkpoint {where} is a {kind.__module__}.{kind.__name__}; a checkpoint holds tensors, dicts, "
            "lists, tuples, int, float, str, bool and None: convert it before saving"
        )


def _first_error(error: BaseException, *, after: BaseException | None) -> BaseException:
    """Return the error that others followed while it was handled, back to `after`, which came before the save."""
    while error.__context__ is not None and error.__context__ is not after:
        error = error.__context__
    return error


def _reason(error: BaseException) -> str:
    """Return the first line of an error's message."""
    lines = str(error.strerror or error if isinstance(error, OSError) else error).splitlines()
    return lines[0] if lines else type(error).__name__
