"""The bytes of an encoded video wherever they are: a file, memory, an open file, an archive, behind an address.

A decoder goes back and forth in them, and several may at once; so what cannot be read at any position is copied
first, small videos into memory and large ones into a temporary file.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, TypeAlias, cast
from urllib.parse import urlsplit

import av
from av.container import InputContainer

from videomae.errors import ConfigError, TruncatedVideoError, VideoReadError
from videomae.video.addresses import Member, address_of, local_name, split_member
from videomae.video.remote import TIMEOUT_SECONDS, NoRangesError, RemoteFile
from videomae.video.stream import LIBRARY_ERRORS, reason

EncodedVideo: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""A video file in any form: path, address, content, or open file."""

BYTES = (bytes, bytearray, memoryview)
OPEN_SECONDS = 300.0  # a file that FFmpeg has not opened by then keeps it in a loop
MEMORY_BYTES = 64 << 20  # larger copies are files

# Demuxers that take a text for a video: they draw it as an image, or follow it to other files.
_TEXT_FORMATS = frozenset({"tty", "concat", "hls", "dash"})


class EncodedFile:
    """An encoded video: what `VideoReader` reads. Nothing of it is open until it is asked for."""

    def __init__(self, video: EncodedVideo) -> None:
        """Take a video in any form; of an address only what is needed is fetched, see `video.remote`.

        Args:
            video: A path; an address (`s3://`, `gs://`, `https://`, `http://`, `file://`); either of a tar archive
                with the place of a video in it, see `video.addresses`; the content; or an open binary file, which is
                read from its beginning, left open, and left where it stood. An open file that has no positions is
                copied, and so is what an http server does not send in parts.

        Raises:
            VideoReadError: If it is missing, empty, no regular file, or cannot be downloaded or copied.
            ConfigError: If a file is open as text.
        """
        self.name = encoded_name(video)
        """What messages call it."""
        self.path: str | None = None
        """The file; None where it is none."""
        self.key: str | None = None
        """By which it is known again, with size and time of modification; None where it cannot be."""
        self._file: IO[bytes] | None = None
        self._is_own = True
        self._start = 0  # where a file stood that was open before
        self._lock = threading.Lock()
        self.modified_ns = 0
        """When it was modified; of a remote file a number that changes with its version."""
        member = split_member(video) if isinstance(video, str | os.PathLike) else None
        local = local_path(video)
        if member is not None:
            self._file = self._section(member)
        elif local is not None:
            self.path = self.key = os.path.abspath(local)  # so that "a:b.mp4" is a name and no protocol
            self.size_bytes, self.modified_ns = _file_facts(local, self.name)
            return
        else:
            self._file = self._with_positions(video)
        file = self._file
        self.size_bytes = file.seek(0, os.SEEK_END)
        if isinstance(file, RemoteFile):
            self._know_again(self.name, file.facts.validator)
        if self.size_bytes == 0:
            self.close()
            raise VideoReadError(f"{self.name} is empty (0 bytes): copy or download it again")

    def open_container(self) -> InputContainer:
        """Open it as a container that stands at its beginning; the caller closes that.

        Raises:
            VideoReadError: If it is not recognised as a video.
        """
        return _open_container(self.source(), self.name)

    def source(self) -> str | _View:
        """Return what a codec library opens: the path, or where it is no file an object to read and seek in."""
        return self.path or _View(self._opened(), self._lock, self.name)

    def read_at(self, position: int, size: int) -> bytes:
        """Return the bytes from a position on, fewer at the end of the file.

        Raises:
            VideoReadError: If the file system fails.
        """
        try:
            with self._lock:
                file = self._opened()
                file.seek(position)
                return file.read(size)
        except (OSError, ValueError) as error:  # ValueError: closed by whoever opened it
            raise VideoReadError(f"{self.name} cannot be read: {reason(error)}") from error

    def close(self) -> None:
        """Close what was opened here, and put a file that was open before where it stood; may be called twice."""
        if self._file is None:
            return
        if self._is_own:
            self._file.close()
        elif not self._file.closed:
            self._file.seek(self._start)
        self._file = None

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            if self.path is None:
                raise VideoReadError(f"{self.name} was closed: read frames before leaving the reader's with block")
            self._file = cast("IO[bytes]", open(self.path, "rb", buffering=0))  # noqa: SIM115 - closed in close()
        return self._file

    def _know_again(self, key: str, version: str) -> None:
        if version:
            self.key = key
            self.modified_ns = int.from_bytes(blake2b(version.encode(), digest_size=8).digest(), "little") >> 1

    def _section(self, member: Member) -> IO[bytes]:
        """Open a file inside an archive."""
        outer = EncodedFile(member.archive)
        if outer.key is not None:
            self._know_again(
                self.name if outer.path is None else os.path.abspath(self.name),
                f"{outer.size_bytes} {outer.modified_ns}",
            )
        if member.last_byte >= outer.size_bytes:
            outer.close()
            raise TruncatedVideoError(
                f"{self.name} ends behind byte {outer.size_bytes}, the end of its archive: the archive is cut off or "
                "another one; copy it or import it again"
            )
        return cast("IO[bytes]", _Section(outer, member.first_byte, member.last_byte + 1))

    def _with_positions(self, video: Any) -> IO[bytes]:
        """Make a file that can be read at any position of what is no path."""
        if isinstance(video, BYTES):
            return io.BytesIO(video)  # shares the memory of bytes
        if isinstance(video, str | os.PathLike):
            try:
                return cast("IO[bytes]", RemoteFile(self.name))
            except NoRangesError:
                return _copied(lambda target: _download(self.name, target))
        if not _has_positions(video):
            return _copied(lambda target: _copy(video, target, self.name))
        if isinstance(video.read(0), str):
            raise _opened_as_text(self.name)
        self._is_own, self._start = False, video.tell()
        file: IO[bytes] = video
        return file


def open_container(path: str) -> InputContainer:
    """Open a file that should hold video.

    Raises:
        VideoReadError: If it does not exist, is empty, is no file or is not recognised.
    """
    return EncodedFile(path).open_container()


def encoded_name(video: EncodedVideo) -> str:
    """Return what messages call a video."""
    if isinstance(video, str | os.PathLike):
        return address_of(video) or os.fsdecode(video)
    if isinstance(video, BYTES):
        return f"the {len(video)} bytes"
    name = getattr(video, "name", None)
    return name if isinstance(name, str) else "the open file"


def local_path(video: EncodedVideo) -> str | None:
    """Return the file that a path or a `file://` address names; None for anything else."""
    if not isinstance(video, str | os.PathLike):
        return None
    name = os.fsdecode(video)
    return None if address_of(name) is not None else local_name(name) or name


class _Section(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, outer: EncodedFile, start: int, end: int) -> None:
        super().__init__()
        self._outer = outer
        self._start, self._size = start, end - start
        self._position = 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = max(
            offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence], 0
        )
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(self._size - self._position, 0)
        data = self._outer.read_at(
            self._start + self._position, left if size is None or size < 0 else min(size, left)
        )
        self._position += len(data)
        return data

    def close(self) -> None:
        self._outer.close()
        super().close()


class _View:
    """An open file with a position of its own, for the codec library."""

    def __init__(self, file: IO[bytes], lock: threading.Lock, name: str) -> None:
        self._file = file
        self._lock = lock
        self._position = 0
        # Of an address without its query; the place in an archive stands behind "#".
        path = urlsplit(name).path if "://" in name and split_member(name) is None else name
        suffix = Path(path).suffix
        self.name = f"video{suffix}"  # a few demuxers are chosen by the suffix

    def read(self, size: int) -> bytes:
        with self._lock:
            self._file.seek(self._position)
            data = self._file.read(size)
            self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with self._lock:
            if whence == os.SEEK_CUR:
                offset, whence = self._position + offset, os.SEEK_SET
            self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position


def _open_container(source: str | _View, name: str) -> InputContainer:
    try:
        container = _open(source)
    except LIBRARY_ERRORS as error:
        raise VideoReadError(
            f"{name} cannot be read as video: {reason(error)}; it is damaged, cut off, or not a video"
        ) from error
    if _TEXT_FORMATS.intersection(container.format.name.split(",")):
        container.close()
        raise VideoReadError(f"{name} is a text file, not a video")
    return container


def _open(source: Any) -> InputContainer:
    try:
        container: InputContainer = av.open(source, timeout=OPEN_SECONDS)
    except UnicodeDecodeError:
        # PyAV before 19 insists on UTF-8 in titles and comments unless told otherwise; 19 neither insists nor
        # takes the argument.
        container = av.open(source, timeout=OPEN_SECONDS, metadata_errors="replace")
    return container


def _file_facts(path: str, name: str) -> tuple[int, int]:
    """Return size in bytes and time of modification in nanoseconds."""
    try:
        facts = os.stat(path)
    except OSError as error:
        raise VideoReadError(f"{name} cannot be opened: {reason(error)}") from error
    if stat.S_ISDIR(facts.st_mode):
        raise VideoReadError(f"{name} is a folder: name a video file in it")
    if not stat.S_ISREG(facts.st_mode):
        raise VideoReadError(f"{name} is not a regular file: copy the stream to a file first")
    if facts.st_size == 0:
        raise VideoReadError(f"{name} is empty (0 bytes): copy or download it again")
    return facts.st_size, facts.st_mtime_ns


def _has_positions(file: Any) -> bool:
    try:
        return bool(file.seekable()) if hasattr(file, "seekable") else hasattr(file, "seek") and hasattr(file, "tell")
    except (OSError, ValueError):
        return False


def _copied(write: Callable[[IO[bytes]], None]) -> IO[bytes]:
    target = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES, prefix="videomae-")  # noqa: SIM115 - see close()
    try:
        write(cast("IO[bytes]", target))
    except BaseException:
        target.close()
        raise
    return cast("IO[bytes]", target)


def _copy(file: Any, target: IO[bytes], name: str) -> None:
    try:
        shutil.copyfileobj(file, target)
    except TypeError:
        raise _opened_as_text(name) from None
    except (OSError, ValueError) as error:
        raise VideoReadError(f"{name} cannot be read: {reason(error)}") from error


def _opened_as_text(name: str) -> ConfigError:
    return ConfigError(f'{name} is open as text: open it with mode "rb"')


def _download(address: str, target: IO[bytes]) -> None:
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:
            shutil.copyfileobj(answer, target)
    except (OSError, ValueError) as error:  # urllib's own errors are OSErrors
        if isinstance(error, urllib.error.HTTPError) and error.code in (404, 410):
            raise VideoReadError(
                f"{address} does not exist: check the address; a folder behind http cannot be listed, so give its "
                "videos, or a manifest of them (.csv)"
            ) from None
        why = getattr(error, "reason", None) or error
        text = why if isinstance(why, str) else reason(why)
        raise VideoReadError(
            f"{address} cannot be downloaded: {text}; download it first and give the file"
        ) from error
