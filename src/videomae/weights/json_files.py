"""JSON files of model folders, and what is in files in messages on one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videomae.atomic import write_text_atomic
from videomae.errors import WeightsError

MAX_JSON_BYTES = 16 * 2**20  # the largest index or configuration of a known model is a thousandth of it


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        WeightsError: If the file is missing, too large to be what it should be, or no JSON object.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise WeightsError(
                f"{path} has {path.stat().st_size} bytes, more than the {max_bytes} that such a file may have: it is "
                "not what its name says"
            )
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds no JSON object: give the folder of a saved model")
    return values


def json_text(values: Mapping[str, Any]) -> str:
    """Return JSON text as it is written everywhere in a model folder: indented, keys sorted."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, keys sorted, into a folder that is made if it is missing.

    Raises:
        WeightsError: If the disk refuses, for example because it is full.
    """
    write_text_file(path, json_text(values))


def write_text_file(path: Path, text: str) -> None:
    """Write a text file of a model folder atomically; see `write_json`."""
    try:
        write_text_atomic(path, text)
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error}") from None


def printable_name(name: object) -> str:
    """Return a name from a file as it may stand in a message: on one line, not too long, never empty."""
    text = str(name)
    return (text if text.isprintable() and text else repr(text))[:200]


def one_line(error: BaseException) -> str:
    """Return the first sentence of an error, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0][:200]
