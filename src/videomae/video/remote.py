"""Files behind addresses (`s3://`, `gs://`, `https://`), read by range requests through fsspec.

A file is read in blocks, which a cache on this machine keeps. A request that fails for a reason that may pass, such
as 503, a connection that is cut or a server that says nothing, is made again a few times, after longer pauses.
"""

from __future__ import annotations

import io
import os
import random
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from videomae.errors import VideoReadError
from videomae.video.addresses import RemotePath, video_path
from videomae.video.block_cache import block_cache

BLOCK_BYTES = 1 << 20
MAX_AHEAD = 8  # blocks in one request, where a file is read from front to back
MEMORY_BLOCKS = 8  # of each open file
TIMEOUT_SECONDS = 60  # without a byte from the server
TRIES = 5
PAUSE_SECONDS = 0.5  # after the first failure; twice as long after each further one

HTTP = ("http", "https")
SCHEMES = (*HTTP, "s3", "s3a", "gs", "gcs", "az", "abfs", "hf")
"""Kinds of address that are read in ranges; fsspec knows others, which do not have them or ask a server at once."""
LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "srt", "udp", "tcp")
LIVE_HINT = "; what is live is for videomae stream"
EXTRA = "pip install 'videomae[remote]'"

# What stays as it is, however often it is tried; the first three are Python's names for 404 and 403.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, ValueError, TypeError, ImportError, LookupError)
_LASTING_NAMES = frozenset({"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"})
# Of these fields, the first that a file system knows of a file tells one content from another.
_VALIDATORS = ("ETag", "etag", "md5Hash", "Last-Modified", "LastModified", "updated", "last_modified", "mtime")

R = TypeVar("R")

# Kept for ever. A process that is forked has copies, which fsspec forgets; were they collected there, they would
# close connections of this process, and take them off the list of what it waits for: it would hear nothing any more.
_SYSTEMS: dict[int, Any] = {}


class RemoteFacts(NamedTuple):
    """What a server says of a file."""

    size_bytes: int
    """Its size."""
    validator: str
    """Its ETag, or its time of modification; empty where the server has neither."""


class NoRangesError(Exception):
    """A server does not send parts of files, or does not say how long they are. Never leaves `video/`."""


def remote_facts(address: str) -> RemoteFacts:
    """Ask for the size and the version of a file.

    Raises:
        NoRangesError: If an http server cannot be asked for parts of it.
        VideoReadError: If it is not there, or cannot be asked for.
    """
    if address.lower().startswith(HTTP):
        return _http_facts(address)
    system, path = _file_system(address)
    info = _tried(address, lambda: system.info(path))
    if info.get("type") == "directory" or info.get("size") is None:
        raise VideoReadError(f"{address} is a folder: name a video file in it")
    validator = next((str(info[name]) for name in _VALIDATORS if info.get(name)), "")
    return RemoteFacts(int(info["size"]), validator)


def list_remote(folder: str) -> list[RemotePath]:
    """Return the files below an address, at any depth.

    Raises:
        VideoReadError: If it cannot be listed.
        ConfigError: If a name cannot be held as a path.
    """
    system, path = _file_system(folder)
    found: Mapping[str, Any] = _tried(folder, lambda: system.find(path, detail=True))
    names = [name for name, info in found.items() if info.get("type") == "file" and not name.endswith("/")]
    return [RemotePath(video_path(system.unstrip_protocol(name))) for name in sorted(names)]


def read_remote(address: str) -> bytes:
    """Return the content of a file.

    Raises:
        VideoReadError: If it is not there, or cannot be read.
    """
    try:
        with RemoteFile(address) as file:
            return file.read()
    except NoRangesError:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:
            content: bytes = answer.read()
            return content


class RemoteFile(io.RawIOBase):
    """An open remote file: what is read of it is fetched in blocks, and kept."""

    def __init__(self, address: str) -> None:
        """Ask for its size and version.

        Args:
            address: Where it is.

        Raises:
            NoRangesError: If an http server cannot be asked for parts of it.
            VideoReadError: If it is not there, or cannot be asked for.
        """
        super().__init__()
        self.name = address
        self.facts = remote_facts(address)
        self._position = 0
        # Without a version, a block could be one of another content.
        self._cache = block_cache() if self.facts.validator else None
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next_block = -1  # the one behind the last fetched: who asks for it reads from front to back
        self._ahead = 1

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, which may lie behind the end."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.facts.size_bytes}[whence]
        if start + offset < 0:
            raise ValueError(f"position {start + offset} lies before the beginning of {self.name}")
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, fewer at the end.

        Raises:
            VideoReadError: If they cannot be fetched.
        """
        end = self.facts.size_bytes
        if size is not None and size >= 0:
            end = min(end, self._position + size)
        parts, position = [], self._position
        while position < end:
            number, offset = divmod(position, BLOCK_BYTES)
            part = self._block(number, last=(end - 1) // BLOCK_BYTES)[offset : offset + end - position]
            parts.append(part)
            position += len(part)
        self._position = max(position, self._position)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; returns how much of it."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _block(self, number: int, *, last: int) -> bytes:
        """Return a block, from memory, from the disk or from the server; `last` will be needed, too."""
        block = self._blocks.get(number) or self._kept(number)
        if block is None:
            self._ahead = min(2 * self._ahead, MAX_AHEAD) if number == self._next_block else 1
            end = number + 1
            limit = min(number + max(self._ahead, min(last + 1 - number, MAX_AHEAD)), self._num_blocks)
            while end < limit and end not in self._blocks:
                end += 1
            self._fetch(number, end)
            block = self._blocks[number]
        self._remember(number, block)
        return block

    @property
    def _num_blocks(self) -> int:
        return -(-self.facts.size_bytes // BLOCK_BYTES)

    def _fetch(self, first: int, end: int) -> None:
        start, stop = first * BLOCK_BYTES, min(end * BLOCK_BYTES, self.facts.size_bytes)
        data = _fetched(self.name, start, stop)
        for number in range(end - 1, first - 1, -1):  # the first last: it is the one that is asked for
            block = data[(number - first) * BLOCK_BYTES : (number + 1 - first) * BLOCK_BYTES]
            self._remember(number, block)
            if self._cache is not None:
                self._cache.put(self._block_name(number), block)
        self._next_block = end

    def _kept(self, number: int) -> bytes | None:
        if self._cache is None:
            return None
        block = self._cache.get(self._block_name(number))
        whole = min(BLOCK_BYTES, self.facts.size_bytes - number * BLOCK_BYTES)
        return block if block is not None and len(block) == whole else None

    def _block_name(self, number: int) -> str:
        return f"{self.name}\n{self.facts.size_bytes}\n{self.facts.validator}\n{BLOCK_BYTES}\n{number}"

    def _remember(self, number: int, block: bytes) -> None:
        self._blocks[number] = block
        self._blocks.move_to_end(number)
        while len(self._blocks) > max(MEMORY_BLOCKS, MAX_AHEAD):
            self._blocks.popitem(last=False)


def _fetched(address: str, start: int, stop: int) -> bytes:
    """Return a range of bytes."""
    system, path = _file_system(address)

    def fetch() -> bytes:
        data: bytes = system.cat_file(path, start=start, end=stop)
        if len(data) != stop - start:
            raise OSError(f"{len(data)} bytes came of {stop - start}")
        return data

    return _tried(address, fetch)


def _file_system(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path in it.

    Raises:
        VideoReadError: If a library is missing for it, or there is none.
    """
    scheme = address.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise VideoReadError(
            f"{address} cannot be opened: addresses of the kind {scheme}:// are not read; give an http(s), s3 or gs "
            f"address, or download it or read its frames first{LIVE_HINT if scheme in LIVE_SCHEMES else ''}"
        )
    # No listings are kept: of a file that has changed, an old one would tell the old size.
    options: dict[str, Any] = {"use_listings_cache": False}
    try:
        import fsspec

        if scheme in ("s3", "s3a"):  # tried again here, and not in three layers of libraries at once
            limits = {"connect_timeout": TIMEOUT_SECONDS, "read_timeout": TIMEOUT_SECONDS}
            options["config_kwargs"] = {"retries": {"total_max_attempts": 1}, **limits}
        elif scheme in HTTP:
            import aiohttp

            client_limits = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS, sock_read=TIMEOUT_SECONDS)
            options["client_kwargs"] = {"timeout": client_limits}
        system, path = fsspec.core.url_to_fs(address, **options)
    except ImportError as error:
        raise VideoReadError(
            f"{address} cannot be opened: {scheme}:// needs a library that is not installed ({error.name}): {EXTRA}"
        ) from None
    except ValueError as error:
        raise VideoReadError(f"{address} cannot be opened: {' '.join(str(error).split())}") from None
    if scheme in ("s3", "s3a"):
        system.retries = 1
    _SYSTEMS[id(system)] = system
    return system, path


def has_ranges(address: str) -> bool:
    """Tell whether what reads an address in ranges is installed; http is downloaded otherwise."""
    if not address.lower().startswith(HTTP):
        return True
    try:
        import aiohttp
        import fsspec
    except ImportError:
        return False
    return bool(aiohttp and fsspec)


def _http_facts(address: str) -> RemoteFacts:
    def ask() -> RemoteFacts:
        request = urllib.request.Request(address, method="HEAD", headers={"Accept-Encoding": "identity"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                headers = answer.headers
        except urllib.error.HTTPError as error:
            if error.code >= 500 or error.code in (408, 429):
                raise
            raise NoRangesError from None  # signed for GET alone, perhaps: a download says what is wrong
        size = headers.get("Content-Length", "")
        if headers.get("Accept-Ranges") != "bytes" or not size.isdigit() or headers.get("Content-Encoding"):
            raise NoRangesError
        return RemoteFacts(int(size), headers.get("ETag") or headers.get("Last-Modified") or "")

    if not has_ranges(address):
        raise NoRangesError
    return _tried(address, ask)


def _tried(address: str, work: Callable[[], R]) -> R:
    """Do something that a server answers, and do it again a few times where it fails.

    Raises:
        VideoReadError: If it fails for good.
    """
    for number in range(1, TRIES + 1):
        try:
            return work()
        except (NoRangesError, VideoReadError):
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError):
                raise VideoReadError(f"{address} does not exist: check the address, and what is there") from None
            is_lasting = isinstance(error, _LASTING) or type(error).__name__ in _LASTING_NAMES
            if is_lasting or number == TRIES:
                tries = "" if is_lasting else f", {number} times"
                raise VideoReadError(f"{address} cannot be read: {_said(error)}{tries}") from None
            time.sleep(PAUSE_SECONDS * 2 ** (number - 1) * random.uniform(0.5, 1.0))
    raise AssertionError("the last try returns or raises")


def _said(error: Exception) -> str:
    text = " ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__
    return f"access is denied ({text})" if isinstance(error, PermissionError) else text
