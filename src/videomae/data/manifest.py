"""Which videos make a data set: the rows, their fingerprint, and what stands for procedural clips.

Folders are listed in `data/scan.py`, files with a row for each video are read in `data/manifest_file.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from videomae.errors import ManifestError
from videomae.video.index_store import IndexStore, index_store
from videomae.video.opening import part_name, size_of

PROCEDURAL = "procedural:"
"""What stands for a folder where the clips of a pre-training run are drawn instead of read; a seed may follow."""

CLIPS_AN_EPOCH = 10_000
"""Procedural clips that count as one pass; the next pass has others."""


class VideoRow(NamedTuple):
    """One video of a data set, or a part of one."""

    path: Path
    """The video."""
    label: int | None
    """Class id; None where the data set has no labels, or several for this video."""
    labels: tuple[int, ...] = ()
    """Class ids where a video may have several; empty in data sets of one label for each."""
    start_seconds: float | None = None
    """Frames shown before this time do not count; None: from the beginning."""
    end_seconds: float | None = None
    """Frames shown at this time or later do not count; None: to the end."""
    group: str | None = None
    """What the video belongs to, such as the recording that it is cut from; None where nothing says it."""
    split: str | None = None
    """Its part of the data set: train, val or test; None where nothing says it."""
    extra: tuple[tuple[str, str], ...] = ()
    """Further columns of the manifest file, with their text."""

    @property
    def source(self) -> Path:
        """What to open: the path, for a part with its times after it; see `video.opening`."""
        return part_name(self.path, self.start_seconds, self.end_seconds)


@dataclass(frozen=True)
class Manifest:
    """The videos of a data set: of a folder in the order of their relative paths, of a file in the file's order."""

    root: Path
    """Folder that relative paths start from."""
    rows: tuple[VideoRow, ...]
    """The videos, at least one."""
    classes: tuple[str, ...]
    """Class names in label order; empty where there are no labels."""
    file: Path | None = None
    """The manifest file that lists the videos; None where a folder was scanned."""

    @property
    def name(self) -> Path:
        """What to call the data set in messages."""
        return self.file or self.root

    def relative_path(self, row: VideoRow) -> str:
        """Return the name of a row: its path below the root, with forward slashes on every system.

        A video elsewhere has its whole path; a part of a video has its times after it.
        """
        name, root = row.source.as_posix(), self.root.as_posix()
        # As text: pathlib's own relative_to takes ten times as long, and there may be a million rows.
        return name.removeprefix("" if root == "." else root if root.endswith("/") else f"{root}/")

    def with_rows(self, rows: Iterable[VideoRow]) -> Manifest:
        """Return the data set with other rows."""
        return Manifest(self.root, tuple(rows), self.classes, self.file)

    def index_store(self) -> IndexStore | None:
        """Return what keeps the frame indices of these videos, beside the manifest file or in the folder.

        None where they are switched off, for a single video, and for procedural clips.
        """
        if len(self.rows) < 2 or procedural_seed(self.root) is not None:
            return None
        return index_store(self.root)

    def fingerprint(self) -> str:
        """Return a SHA-256 that changes when a video is added, removed, renamed, resized or relabelled.

        It does not depend on where the folder lies. Contents are not read: an edit that keeps the size stays
        unseen. The size of a folder of pictures is their number; of a video behind an address nobody is asked.
        """
        digest = sha256()
        for name, row in sorted(((self.relative_path(row), row) for row in self.rows), key=itemgetter(0)):
            entry = (name, size_of(row.path), row.labels or row.label)
            digest.update(repr(entry).encode("utf-8", "surrogatepass") + b"\n")
        return digest.hexdigest()


def whole_video(row: VideoRow) -> VideoRow:
    """Return the row of the video that a row is a part of."""
    return row._replace(start_seconds=None, end_seconds=None)


def procedural_seed(root: str | os.PathLike[str]) -> int | None:
    """Return the seed of `procedural:SEED`, 0 where none is given, or None where `root` is something else.

    Raises:
        ManifestError: If what follows is no seed.
    """
    name, colon, seed = os.fspath(root).partition(":")
    if name + colon != PROCEDURAL:
        return None
    if seed and not (seed.isascii() and seed.isdigit()):
        raise ManifestError(
            f"{root} names no seed: use {PROCEDURAL} or a whole number after it, such as {PROCEDURAL}7"
        )
    return int(seed or 0)


def procedural_row(root: Path, number: int) -> VideoRow:
    """Return what stands for a procedural clip in a manifest; no file has its path, which names seed and number."""
    return VideoRow(root / f"seed-{procedural_seed(root)}-clip-{number}", None)


def procedural_number(row: VideoRow) -> int:
    """Return the number of the clip that `procedural_row` has made."""
    return int(row.path.name.rpartition("-")[2])
