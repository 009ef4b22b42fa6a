"""What is known of the videos of a collection, kept on disk, so that they are opened without reading their packets.

A store is a folder of pairs of files, one pair for each process that had something to add: records, and a table that
says where they are. Each process writes only to its own pair, at its end: no locks, which network file systems do not
do well, and nothing to repair after a kill; a record counts once its line of the table is there. A record is found by
path, size and time of modification of its file, and checked by its own checksum. Whatever goes wrong with a store,
its videos are indexed as if there were none.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import av
import numpy as np
from numpy.typing import NDArray

from videomae.video.addresses import address_of, is_remote
from videomae.video.block_cache import user_caches
from videomae.video.encoded import EncodedFile
from videomae.video.index_files import (
    LINE,
    RECORD_SUFFIX,
    TABLE_SUFFIX,
    FileState,
    lines_of,
    tables_of,
    with_state,
    without_state,
    write_end,
)
from videomae.video.index_tidying import tidy
from videomae.video.indexed import IndexedVideo
from videomae.video.kept import FORMAT, from_bytes, to_bytes

FOLDER = Path(".videomae", "index")
"""Where the store of a folder of videos is, below the folder."""

SWITCH = "VIDEOMAE_INDEX"
"""Environment variable: `off` keeps nothing and uses nothing kept; a folder holds all stores, none is elsewhere."""

_LIBRARIES = [list(av.library_versions[name]) for name in ("libavformat", "libavcodec")]
_REFRESH_FRACTION = 0.02  # of its time a process may look for what others have added
_MAX_PUTS = 3  # of one video by one process: more means that something does not hold


@dataclass
class _Shard:
    """The files that this process adds to."""

    place: Path
    end: int = 0


class IndexStore:
    """What is known of the videos below a folder. Any number of processes may use it at once.

    It can be pickled and forked. In memory it has 52 bytes for each record, never the records.
    """

    def __init__(self, root: str | os.PathLike[str], folders: tuple[Path, ...]) -> None:
        """Name a store; nothing is read or made.

        Args:
            root: Paths below it are kept relative to it, so that the collection can be moved.
            folders: Where records are read from; they are added to the first that can be written to.
        """
        self._root = _whole(root)
        self._folders = folders
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._lines = np.empty(0, LINE)  # sorted by `high`
        self._highs = self._lines["high"].copy()  # searched, which takes contiguous memory
        self._shards = np.empty(0, np.int32)  # of each line, its number in `_files`
        self._files: list[Path] = []
        self._read: dict[Path, int] = {}  # bytes of each table that are in `_lines`
        self._refresh_time = -1.0  # when the tables may be looked at again
        self._added: dict[tuple[int, int], tuple[Path, NDArray[Any]]] = {}  # lines of this process not yet among them
        self._own: _Shard | None = None
        self._can_write = True
        self._puts: dict[int, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared_store, (self._root, self._folders)

    def get(self, file: EncodedFile) -> IndexedVideo | None:
        """Return what is known of a file; None where nothing is, or the file has changed since."""
        if file.key is None:
            return None
        high, low = self._key(file)
        with self._held():
            for refresh in (False, True):
                if refresh and not self._refresh():
                    return None
                content = self._find(high, low)
                if content is not None:
                    with contextlib.suppress(ValueError, LookupError, TypeError):
                        return from_bytes(without_state(content), file)
        return None

    def put(self, file: EncodedFile, video: IndexedVideo) -> None:
        """Keep what is known of a file; where that cannot be written, nothing happens."""
        if file.key is None:
            return
        high, low = self._key(file)
        try:
            content = with_state(self._state(file), to_bytes(video))
        except OSError:
            return
        with self._held():
            num_puts = self._puts.get(high, 0)
            if num_puts >= _MAX_PUTS or self._find(high, low) == content:
                return
            self._puts[high] = num_puts + 1
            line = np.array((high, low, time.time_ns(), 0, len(content), crc32(content)), LINE)
            try:
                if self._can_write:
                    self._added[high, low] = self._append(line, content), line
            except OSError:
                self._can_write = False

    def _held(self) -> threading.Lock:
        """Return the lock of this process: a fork may have copied one that a thread held."""
        if self._process != os.getpid():
            self._process, self._lock, self._own = os.getpid(), threading.Lock(), None
        return self._lock

    def _key(self, file: EncodedFile) -> tuple[int, int]:
        facts = json.dumps([FORMAT, _LIBRARIES, *self._state(file)])
        digest = blake2b(facts.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")

    def _state(self, file: EncodedFile) -> FileState:
        assert file.key is not None
        path = file.key
        if path.startswith((self._root + os.sep, self._root + "/")):
            path = Path(path[len(self._root) + 1 :]).as_posix()
        return FileState(path, file.size_bytes, file.modified_ns)

    def _find(self, high: int, low: int) -> bytes | None:
        """Return the newest record of a key that is as it was written."""
        first, end = (int(np.searchsorted(self._highs, np.uint64(high), side)) for side in ("left", "right"))
        lines = [(self._files[self._shards[number]], self._lines[number]) for number in range(first, end)]
        if (high, low) in self._added:
            lines.append(self._added[high, low])
        lines = [(place, line) for place, line in lines if int(line["low"]) == low]
        for place, line in sorted(lines, key=lambda found: -int(found[1]["time"])):
            with contextlib.suppress(OSError), open(place, "rb", buffering=0) as records:
                records.seek(int(line["place"]))
                content = records.read(int(line["size"]))
                if len(content) == int(line["size"]) and crc32(content) == int(line["crc"]):
                    return content
        return None

    def _refresh(self) -> bool:
        """Read what has been added to the tables since they were read; returns whether there is more now.

        Looking costs time, on network file systems most: it is done so seldom that the cost stays small.
        """
        start = time.monotonic()
        if start < self._refresh_time:
            return False
        found: list[NDArray[Any]] = []
        shards: list[NDArray[np.int32]] = []
        for table in sorted(table for folder in self._folders for table in tables_of(folder)):
            lines = lines_of(table, self._read.get(table, 0))
            if len(lines):
                if table not in self._read:
                    self._files.append(table.with_suffix(RECORD_SUFFIX))
                number = self._files.index(table.with_suffix(RECORD_SUFFIX))
                self._read[table] = self._read.get(table, 0) + lines.nbytes
                found.append(lines)
                shards.append(np.full(len(lines), number, np.int32))
        if found:
            lines = np.concatenate([self._lines, *found])
            order = np.argsort(lines["high"], kind="stable")
            self._lines, self._shards = lines[order], np.concatenate([self._shards, *shards])[order]
            self._highs = self._lines["high"].copy()
            self._added.clear()
        end = time.monotonic()
        self._refresh_time = end + (end - start) / _REFRESH_FRACTION
        return bool(found)

    def _append(self, line: NDArray[Any], content: bytes) -> Path:
        """Write a record and then its line; returns the file of the record."""
        if self._own is None or _size(self._own.place.with_suffix(RECORD_SUFFIX)) != self._own.end:
            self._own = self._new_shard()  # a pair that was tidied away, or that somebody deleted, is gone
        records = self._own.place.with_suffix(RECORD_SUFFIX)
        line["place"] = self._own.end
        write_end(records, content)
        self._own.end += len(content)
        write_end(self._own.place.with_suffix(TABLE_SUFFIX), line.tobytes())
        return records

    def _new_shard(self) -> _Shard:
        """Find a folder that can be written to."""
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(4)}"
        for number, folder in enumerate(self._folders):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with open(folder / f"{name}{RECORD_SUFFIX}", "xb"):
                    pass
            except OSError:
                if number == len(self._folders) - 1:
                    raise
            else:
                return _Shard(folder / name)
        raise OSError("a store without folders")


def index_store(root: Path) -> IndexStore | None:
    """Return the store of the videos below a folder; None where stores are switched off.

    It is in `.videomae/index` of the folder where that can be written to, else in the user's folder of caches; so is
    that of a folder behind an address.

    Args:
        root: The folder of the collection.
    """
    switch = os.environ.get(SWITCH, "")
    if switch.lower() in ("off", "0", "false", "no"):
        return None
    place = _whole(root)
    name = sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    if switch:
        return _tidied_store(place, (Path(switch).expanduser().absolute() / name,))
    beside = () if is_remote(root) else (root.absolute() / FOLDER,)
    return _tidied_store(place, (*beside, user_caches() / "videomae" / "index" / name))


def _tidied_store(root: str, folders: tuple[Path, ...]) -> IndexStore:
    """Return the store of this process, gone through before its first use by the first process of a run."""
    if (root, folders) not in _STORES and os.environ.get("RANK", "0") == "0":
        for folder in folders:
            tidy(folder, root)
    return _shared_store(root, folders)


def _whole(root: str | os.PathLike[str]) -> str:
    return address_of(root) or os.path.abspath(root)


_STORES: dict[tuple[str, tuple[Path, ...]], IndexStore] = {}


def _shared_store(root: str, folders: tuple[Path, ...]) -> IndexStore:
    """Return the one store of this process for these folders, so that a process has one pair of files."""
    return _STORES.setdefault((root, folders), IndexStore(root, folders))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
