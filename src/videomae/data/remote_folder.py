"""Folders and files of a data set behind an address, where `data/scan.py` and `data/manifest_file.py` meet them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import IO

from videomae.errors import ManifestError, VideoReadError
from videomae.video.addresses import RemotePath, is_remote, split_member, video_path
from videomae.video.opening import split_part
from videomae.video.probe import VIDEO_SUFFIXES
from videomae.video.remote import HTTP, NoRangesError, RemoteFile, list_remote, read_remote


def joined(folder: Path, text: str) -> Path:
    """Return the path that a row names: an address, an absolute path, or one relative to the manifest's folder.

    Raises:
        ConfigError: If it is an address that no path can hold.
    """
    return video_path(text) if "://" in text else folder / text


def is_remote_folder(path: Path) -> bool:
    """Tell whether an address is that of a folder, by its name alone; nothing behind http is."""
    if not is_remote(path) or str(path).lower().startswith(HTTP) or split_member(path) is not None:
        return False
    return split_part(path).path.suffix.lower() not in (*VIDEO_SUFFIXES, ".csv", ".parquet")


def is_remote_file(path: Path) -> bool:
    """Tell whether there is a file behind an address.

    Raises:
        ManifestError: If nobody can be asked.
    """
    try:
        RemoteFile(str(path)).close()
    except NoRangesError:
        with contextlib.suppress(ManifestError):
            content_of(path)
            return True
        return False
    except VideoReadError as error:
        if "does not exist" in str(error) or "is a folder" in str(error):
            return False
        raise ManifestError(str(error)) from None
    return True


def opened_text(path: Path) -> IO[str]:
    """Open a text file, local or remote, as `csv` wants it.

    Raises:
        ManifestError: If a remote one cannot be read.
        OSError: If a local one cannot.
        UnicodeDecodeError: If a remote one is not UTF-8.
    """
    if is_remote(path):
        return io.StringIO(content_of(path).decode("utf-8-sig"), newline="")
    return path.open(encoding="utf-8-sig", newline="")


def content_of(path: Path) -> bytes:
    """Return the bytes of a remote file.

    Raises:
        ManifestError: If it cannot be read.
    """
    try:
        return read_remote(str(path))
    except (VideoReadError, OSError) as error:
        raise ManifestError(f"{error}") from None


def remote_videos(folder: Path) -> list[Path]:
    """Return the videos below an address, at any depth, in order of their names; hidden ones are left out.

    Raises:
        ManifestError: If it cannot be listed, or holds no video.
    """
    try:
        found = list(_videos(folder, list_remote(str(folder))))
    except VideoReadError as error:
        raise ManifestError(str(error)) from None
    if not found:
        raise ManifestError(
            f"{folder} holds no video, at any depth (known suffixes: {' '.join(sorted(VIDEO_SUFFIXES))}): give a "
            "folder that does; behind an address, a folder of pictures is no video"
        )
    return sorted(found, key=str)


def _videos(folder: Path, paths: list[RemotePath]) -> Iterator[Path]:
    for path in paths:
        below = inside(folder, path).parts
        if path.suffix.lower() in VIDEO_SUFFIXES and not any(part.startswith(".") for part in below):
            yield path


def inside(folder: Path, path: Path) -> PurePath:
    """Return the path of a video below its folder."""
    return path.relative_to(folder)
