"""Names of videos that are no plain paths: addresses such as `s3://bucket/a.mp4`, and members of tar archives.

A member is named by its place, `shard.tar#bytes=512-90111/a.mp4`: its first and last byte in the archive, as in HTTP,
and the name that the archive gives it. So it is read like a file, without unpacking and without reading the archive.
"""

from __future__ import annotations

import os
import re
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from videomae.errors import ConfigError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/.+", flags=re.DOTALL)  # two letters at least: "C:/" is a drive
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_MEMBER = re.compile(r"(?P<archive>.+?)#bytes=(?P<first>\d+)-(?P<last>\d+)(?:[/\\](?P<name>.+))?", flags=re.DOTALL)


class RemotePath(type(Path())):  # type: ignore[misc]  # the class that this system's paths have
    """An address as a path: joined, taken apart and compared like one, and written with the `//` of an address.

    It is on no disk of this machine, so `exists`, `is_file` and `is_dir` are False.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return _SCHEME.sub(r"\1://", super().__str__().replace("\\", "/"), count=1)

    def resolve(self, strict: bool = False) -> RemotePath:
        """Return the address: it is whole."""
        return self

    def absolute(self) -> RemotePath:
        """Return the address: it is whole."""
        return self

    def expanduser(self) -> RemotePath:
        """Return the address: nothing in it stands for a folder."""
        return self


class Member(NamedTuple):
    """A file inside an archive."""

    archive: Path
    """The archive."""
    first_byte: int
    """Where the file begins in it."""
    last_byte: int
    """Its last byte."""


def address_of(name: str | os.PathLike[str]) -> str | None:
    """Return the address that a name is, also where a path has lost one of its slashes; None for a name on a disk.

    What is there under the name is a file; `file://` is no address but a way to write a path, see `local_name`.
    """
    text = os.fsdecode(name)
    if _ADDRESS.fullmatch(text) is None or os.path.exists(text) or local_name(text) is not None:
        return None
    return text if "://" in text else _SCHEME.sub(r"\1://", text, count=1)


def is_remote(name: str | os.PathLike[str]) -> bool:
    """Tell whether a name is an address."""
    return isinstance(name, RemotePath) or address_of(name) is not None


def video_path(name: str | os.PathLike[str]) -> Path:
    """Return a name as a path, an address as a `RemotePath`.

    Raises:
        ConfigError: If a path cannot hold the address, because it has an empty part.
    """
    path, address = shown_path(name), address_of(name)
    if address is not None and str(path) != address.rstrip("/"):
        raise ConfigError(f"{address} has an empty part, // or /./, which is not read: rename it or copy it first")
    return path


def shown_path(name: str | os.PathLike[str]) -> Path:
    """Return a name as a path to show, without the check of `video_path`."""
    if isinstance(name, RemotePath):
        return name
    address = address_of(name)
    return Path(local_name(os.fsdecode(name)) or name) if address is None else RemotePath(address)


def local_name(name: str) -> str | None:
    """Return the path that a `file://` address names; None for anything else."""
    if not name.lower().startswith("file://"):
        return None
    parts = urlsplit(name)
    if parts.netloc not in ("", "localhost"):
        return None
    path = urllib.request.url2pathname(parts.path) if os.name == "nt" else unquote(parts.path)
    return f"{path}#{parts.fragment}" if parts.fragment else path


def member_name(archive: Path, first_byte: int, size_bytes: int, name: str) -> Path:
    """Return what a file inside an archive is called.

    Args:
        archive: The archive.
        first_byte: Where the file begins in it.
        size_bytes: Its size, at least 1.
        name: Its name in the archive.
    """
    return archive.with_name(f"{archive.name}#bytes={first_byte}-{first_byte + size_bytes - 1}") / name.lstrip("/")


def split_member(name: str | os.PathLike[str]) -> Member | None:
    """Return the archive and the bytes in it that a name means; None where it means a file of its own."""
    text = os.fspath(name)
    found = _MEMBER.fullmatch(text) if "#bytes=" in text else None
    if found is None or int(found["last"]) < int(found["first"]) or os.path.exists(text):
        return None
    return Member(video_path(found["archive"]), int(found["first"]), int(found["last"]))
