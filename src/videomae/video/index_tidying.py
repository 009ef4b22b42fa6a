"""Old records leave an index store: those whose file is gone or has changed, and the oldest where it grows too large.

Pairs of files to which nothing was added for an hour are written anew without them, as one pair, and then removed. A
process that reads meanwhile finds the new pair; one that is killed leaves records twice. Nothing is locked: a number
is taken by making a file of that name, so that of several processes one does it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from videomae.atomic import atomic_file
from videomae.errors import ConfigError, VideoReadError
from videomae.video.addresses import is_remote
from videomae.video.encoded import EncodedFile
from videomae.video.index_files import LINE, RECORD_SUFFIX, FileState, lines_of, state_of, tables_of

SIZE_SETTING = "VIDEOMAE_INDEX_GB"
"""Environment variable: how much a store may hold once it has been tidied, GB of 10^9 bytes."""
DEFAULT_GB = 10.0
GROWTH_BYTES = 16 << 20
GROWTH = 1.25  # a store is tidied where it has grown by that factor, and by those bytes, since the last time
QUIET_SECONDS = 3600.0

_DONE_SUFFIX = ".tidied"
_HEAD_BYTES = 512  # of a record: its file is named there, unless the path is very long


class _Record(NamedTuple):
    line: Any
    """Its line of the table."""
    place: Path
    """The file of records that it is in."""


def max_bytes() -> int:
    """Return how much a store may hold.

    Raises:
        ConfigError: If the environment says no positive number.
    """
    text = os.environ.get(SIZE_SETTING) or str(DEFAULT_GB)
    with contextlib.suppress(ValueError, OverflowError):
        if (found := int(float(text) * 1e9)) > 0:
            return found
    raise ConfigError(f"{SIZE_SETTING} is {text!r}; it is a size in GB above 0, such as {DEFAULT_GB:g}")


def tidy(folder: Path, root: str) -> None:
    """Remove old records from the store in a folder, where it has grown enough since the last time.

    Args:
        folder: The folder of the files.
        root: What the paths of the store are relative to.
    """
    limit = max_bytes()
    tables = tables_of(folder)
    total = sum(_size(table) + _size(table.with_suffix(RECORD_SUFFIX)) for table in tables)
    number, before = _last_time(folder)
    if total <= max(before * GROWTH, before + GROWTH_BYTES) and total <= max(limit, before):
        return
    done = folder / f"{number + 1:06}{_DONE_SUFFIX}"
    try:
        with open(done, "xb"):
            pass
    except OSError:  # another process does it, or nobody may write here
        return
    with contextlib.suppress(OSError):
        _rewrite(folder, [table for table in tables if _is_quiet(table)], root, limit)
        left = sum(_size(table) + _size(table.with_suffix(RECORD_SUFFIX)) for table in tables_of(folder))
        done.write_text(f"{left}\n", encoding="ascii")
        for old in folder.glob(f"*{_DONE_SUFFIX}"):
            if old.name < done.name:
                old.unlink()


def _rewrite(folder: Path, tables: list[Path], root: str, limit: int) -> None:
    records = [_Record(line, table.with_suffix(RECORD_SUFFIX)) for table in tables for line in lines_of(table)]
    records.sort(key=lambda record: -int(record.line["time"]))
    kept = list(_kept(records, root, limit))
    if len(kept) < len(records):
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(4)}"
        target = folder / f"{name}{RECORD_SUFFIX}"
        if kept:
            _write(target, kept)
        for table in tables:
            table.unlink()
            table.with_suffix(RECORD_SUFFIX).unlink(missing_ok=True)


def _kept(records: list[_Record], root: str, limit: int) -> Iterator[_Record]:
    """Yield the records to keep, newest first."""
    keys, paths, size = set[tuple[int, int]](), set[str](), 0
    for record in records:
        line = record.line
        key = int(line["high"]), int(line["low"])
        state = None if key in keys else state_of(_content(record, _HEAD_BYTES)) or state_of(_content(record))
        keys.add(key)
        if state is None or state.path in paths or not _is_current(state, root):
            continue
        paths.add(state.path)  # an older one of the same path is of what the file was before
        size += int(line["size"]) + LINE.itemsize
        if size > 0.9 * limit:
            return
        yield record


def _is_current(state: FileState, root: str) -> bool:
    """Tell whether a file is as it was; of a remote one nobody is asked."""
    path = state.path if is_remote(state.path) else os.path.join(root, state.path)
    if is_remote(path):
        return True
    try:
        file = EncodedFile(path)
    except VideoReadError:
        return False
    file.close()
    return (file.size_bytes, file.modified_ns) == (state.size_bytes, state.modified_ns)


def _write(target: Path, kept: list[_Record]) -> None:
    """Write a pair; it counts once the table is there, which is last."""
    lines = bytearray()
    with atomic_file(target) as stream:
        for record in kept:
            line = record.line.copy()
            line["place"] = stream.tell()
            stream.write(_content(record))
            lines += line.tobytes()
    with atomic_file(target.with_suffix(".table")) as stream:
        stream.write(lines)


def _content(record: _Record, most: int | None = None) -> bytes:
    size = int(record.line["size"])
    try:
        with open(record.place, "rb", buffering=0) as file:
            file.seek(int(record.line["place"]))
            return file.read(size if most is None else min(size, most))
    except OSError:
        return b""


def _is_quiet(table: Path) -> bool:
    try:
        return time.time() - table.stat().st_mtime >= QUIET_SECONDS
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _last_time(folder: Path) -> tuple[int, int]:
    """Return the number of the last time that the store was tidied, and the bytes that it had then."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(_DONE_SUFFIX))
    except OSError:
        return 0, 0
    stems = [name.removesuffix(_DONE_SUFFIX) for name in names]
    if not stems or not stems[-1].isdecimal():
        return 0, 0
    try:
        return int(stems[-1]), int((folder / names[-1]).read_text(encoding="ascii"))
    except (OSError, ValueError):  # it was killed
        return int(stems[-1]), 0
