"""Files that are either complete or not there: written beside their place, then renamed into it.

Errors of the disk are left as they are, `OSError`: the caller knows what to call them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL_SUFFIX = ".tmp"  # added to the file's own name while it is written


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which takes the name `path` only when all of it is on the disk.

    If the body or the disk fails, whatever was at `path` is untouched and nothing is left beside it. Only a
    killed process leaves its partial file, `partial_path(path)`.

    Args:
        path: The file to make or to replace; its folder exists.

    Raises:
        OSError: If the file cannot be written or renamed.
    """
    partial = partial_path(path)
    try:
        yield partial
        with open(partial, "rb+") as stream:
            # Before the rename: else a power cut could leave the new name with old or no content.
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first failure is the one to report
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing under the rules of `atomic_path`."""
    with atomic_path(path) as partial, open(partial, "wb") as stream:
        yield stream


def write_text_atomic(path: Path, text: str) -> None:
    """Write a text file, UTF-8, under the rules of `atomic_path`; its folder is made if it is missing.

    Raises:
        OSError: If the folder cannot be made or the file cannot be written or renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as stream:
        stream.write(text.encode("utf-8"))


def partial_path(path: Path) -> Path:
    """Return where `path` is written before it is complete: the same folder, so that the rename is atomic."""
    return path.with_name(path.name + PARTIAL_SUFFIX)


def sync_folder(folder: Path) -> None:
    """Put the rename itself on the disk; only POSIX systems let a folder be synchronised."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse; the file is complete either way
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
