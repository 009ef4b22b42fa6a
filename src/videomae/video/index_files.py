"""The files of an index store: pairs of records and of a table that says where they are; see `index_store`."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TABLE_SUFFIX = ".table"
RECORD_SUFFIX = ".records"

LINE = np.dtype([("high", "<u8"), ("low", "<u8"), ("time", "<i8"), ("place", "<i8"), ("size", "<u4"), ("crc", "<u4")])
"""A line of a table: the two halves of the record's key, when it was written, ns, where it is, and its CRC-32."""
_LENGTH_BYTES = 2


class FileState(NamedTuple):
    """The file that a record is of, as it was."""

    path: str
    """Below the root of the store relative to it, with forward slashes."""
    size_bytes: int
    """Its size."""
    modified_ns: int
    """Its time of modification; of a remote file a number that changes with its version."""


def with_state(state: FileState, content: bytes) -> bytes:
    """Return a record: the file that it is of, then what is known of it."""
    head = json.dumps(state).encode("utf-8", "surrogatepass")
    if len(head) >= 1 << 8 * _LENGTH_BYTES:
        raise OSError("the path is too long")
    return len(head).to_bytes(_LENGTH_BYTES, "little") + head + content


def without_state(record: bytes) -> bytes:
    """Return what a record says of its file."""
    return record[_LENGTH_BYTES + int.from_bytes(record[:_LENGTH_BYTES], "little") :]


def state_of(record: bytes) -> FileState | None:
    """Return the file that a record is of, from its beginning; None where that is not to be read."""
    end = _LENGTH_BYTES + int.from_bytes(record[:_LENGTH_BYTES], "little")
    with contextlib.suppress(ValueError, TypeError):
        path, size, modified = json.loads(record[_LENGTH_BYTES:end].decode("utf-8", "surrogatepass"))
        return FileState(str(path), int(size), int(modified))
    return None


def tables_of(folder: Path) -> list[Path]:
    """Return the tables of a folder; none where it cannot be listed."""
    try:
        return [folder / name for name in os.listdir(folder) if name.endswith(TABLE_SUFFIX)]
    except OSError:
        return []


def lines_of(table: Path, start: int = 0) -> NDArray[Any]:
    """Return the whole lines of a table from a position on; a kill may have left part of one at the end."""
    try:
        with open(table, "rb") as file:
            file.seek(start)
            content = file.read()
    except OSError:
        return np.empty(0, LINE)
    return np.frombuffer(content, LINE, len(content) // LINE.itemsize)


def write_end(path: Path, content: bytes) -> None:
    """Append to a file.

    Raises:
        OSError: If not all of it could be written.
    """
    with open(path, "ab", buffering=0) as file:
        if file.write(content) != len(content):
            raise OSError(f"{path} was written in part")
