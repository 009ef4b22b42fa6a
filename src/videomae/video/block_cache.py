"""Blocks of remote files on the disk of this machine, in a folder that never grows beyond a bound.

Any number of processes may use one folder. A block is written under another name and renamed, and carries its
checksum, so that none is ever seen in part; a process that is killed leaves at most one file, which is removed later.
Space is taken before a block is written, under a lock that ends with its owner; where there is none left, the blocks
that were used longest ago go first. Whatever goes wrong with the folder, blocks are fetched as if there were none.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from zlib import crc32

from videomae.errors import ConfigError

if sys.platform != "win32":
    import fcntl

FOLDER_SETTING = "VIDEOMAE_CACHE"
"""Environment variable: the folder; `off` keeps nothing."""
SIZE_SETTING = "VIDEOMAE_CACHE_GB"
"""Environment variable: how much it may hold, GB of 10^9 bytes."""
DEFAULT_GB = 10.0

_SUFFIX = ".block"
_PARTIAL_SUFFIX = ".tmp"
_LEDGER = "bytes-used"
_KEPT_FRACTION = 0.9  # of the bound, after some have been removed
_STALE_SECONDS = 600.0  # a file that is still being written after that long belongs to a process that is gone
_TOUCH_SECONDS = 60.0  # how exactly it is known when a block was last used
_CRC_BYTES = 4


def user_caches() -> Path:
    """Return the user's folder of caches."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


class BlockCache:
    """Blocks of bytes by name, at most so many in all."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Name a cache; nothing is read or made.

        Args:
            folder: Where the blocks are; nothing else may be there.
            max_bytes: What all files in it may have together.
        """
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.Lock()  # a record lock does not keep threads of one process apart
        self._process = os.getpid()

    def get(self, name: str) -> bytes | None:
        """Return a block; None where it is not there, or not as it was written."""
        path = self._path(name)
        try:
            with open(path, "rb", buffering=0) as file:
                content, age = file.read(), time.time() - os.fstat(file.fileno()).st_mtime
            data = content[:-_CRC_BYTES]
            if len(content) < _CRC_BYTES or crc32(data) != int.from_bytes(content[-_CRC_BYTES:], "little"):
                return None
            if age > _TOUCH_SECONDS:
                os.utime(path)
        except OSError:
            return None
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep a block; where that cannot be written, nothing happens."""
        size = len(data) + _CRC_BYTES
        if size > self.max_bytes * _KEPT_FRACTION:
            return
        path = self._path(name)
        partial = path.with_name(f"{path.stem}-{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL_SUFFIX}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._ledger() as ledger:
                self._take_space(ledger, size)
                with open(partial, "xb") as file:
                    file.truncate(size)  # so that whoever counts meanwhile counts it
            with open(partial, "r+b", buffering=0) as file:
                if file.write(content := data + crc32(data).to_bytes(_CRC_BYTES, "little")) != len(content):
                    raise OSError("written in part")
            os.replace(partial, path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()

    def _path(self, name: str) -> Path:
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return self.folder / digest[:2] / f"{digest}{_SUFFIX}"

    @contextmanager
    def _ledger(self) -> Iterator[int]:
        """Open the file that says how many bytes are taken, alone."""
        if self._process != os.getpid():
            self._process, self._lock = os.getpid(), threading.Lock()  # a fork may have copied a held one
        with self._lock:
            descriptor = os.open(self.folder / _LEDGER, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            try:
                if sys.platform != "win32":  # there the bound holds for each process alone
                    with contextlib.suppress(OSError):  # a file system without locks: likewise
                        fcntl.lockf(descriptor, fcntl.LOCK_EX)
                yield descriptor
            finally:
                os.close(descriptor)

    def _take_space(self, ledger: int, size: int) -> None:
        """Take space for a block, and remove others first where there is too little."""
        os.lseek(ledger, 0, os.SEEK_SET)
        text = os.read(ledger, 32).strip()
        used = int(text) if text.isdigit() else self.max_bytes  # unknown: count
        if used + size > self.max_bytes:
            used = self._evict(size)
            if used + size > self.max_bytes:
                raise OSError("what other processes are writing leaves no space")
        os.lseek(ledger, 0, os.SEEK_SET)
        os.write(ledger, f"{used + size:<31}\n".encode())

    def _evict(self, size: int) -> int:
        """Remove what was used longest ago until there is space for a block; returns the bytes that are left."""
        now, found = time.time(), []
        for folder in _folders(self.folder):
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):  # another process has removed it
                        facts = entry.stat()
                        is_stale = entry.name.endswith(_PARTIAL_SUFFIX) and now - facts.st_mtime > _STALE_SECONDS
                        is_removable = is_stale or entry.name.endswith(_SUFFIX)
                        found.append((0.0 if is_stale else facts.st_mtime, facts.st_size, entry.path, is_removable))
        used = sum(one[1] for one in found)
        allowed = int(self.max_bytes * _KEPT_FRACTION) - size
        for used_at, num_bytes, path, is_removable in sorted(found):
            if used <= allowed and used_at:
                break
            if is_removable:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    used -= num_bytes
        return used


def block_cache() -> BlockCache | None:
    """Return the cache that the environment sets; None where it is switched off.

    Raises:
        ConfigError: If its size is no positive number.
    """
    folder = os.environ.get(FOLDER_SETTING, "")
    if folder.lower() in ("off", "0", "false", "no"):
        return None
    text = os.environ.get(SIZE_SETTING) or str(DEFAULT_GB)
    try:
        max_bytes = int(float(text) * 1e9)
    except (ValueError, OverflowError):
        max_bytes = 0
    if max_bytes <= 0:
        raise ConfigError(f"{SIZE_SETTING} is {text!r}; it is a size in GB above 0, such as {DEFAULT_GB:g}")
    place = Path(folder).expanduser().absolute() if folder else user_caches() / "videomae" / "remote"
    return _CACHES.setdefault((place, max_bytes), BlockCache(place, max_bytes))


_CACHES: dict[tuple[Path, int], BlockCache] = {}  # one for each folder, since its lock is one for each process


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_dir()]
    except OSError:
        return []
