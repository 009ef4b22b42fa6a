"""What an importer finds, before it is written as a manifest file; and the search for videos by their names."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from videomae.errors import ManifestError
from videomae.video.probe import VIDEO_SUFFIXES

SPLIT_OF: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""The part of a data set that a word of another format means."""


@dataclass(frozen=True)
class ListedVideo:
    """A video as a list of another format names it."""

    path: Path
    """Where it is, or should be."""
    labels: tuple[str, ...] = ()
    """Class names."""
    group: str = ""
    """What it belongs to, such as its recording; empty where nothing says it."""
    split: str = ""
    """train, val or test; empty where nothing says it."""
    extra: tuple[tuple[str, str], ...] = ()
    """Further columns."""


class Collection(NamedTuple):
    """The videos of a list."""

    videos: list[ListedVideo]
    """In the order of the list."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; None: alphabetical."""
    has_several: bool = False
    """Whether a video may have several labels."""
    notes: tuple[str, ...] = ()
    """What the list leaves out, for people."""


class VideoTree:
    """The videos below a folder by the names of their files without suffix."""

    def __init__(self, root: Path) -> None:
        """List the folder.

        Args:
            root: The folder; links are followed.

        Raises:
            ManifestError: If it is no folder.
        """
        if not root.is_dir():
            raise ManifestError(f"{root} is no folder: give the folder of the videos with --videos")
        self.root = root
        self._paths: dict[str, list[Path]] = defaultdict(list)
        for folder, folders, files in os.walk(root, followlinks=True):
            folders.sort()
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                    self._paths[stem].append(Path(folder, name))

    def find(self, stem: str, *, suffix: str, hints: Iterable[str] = ()) -> Path:
        """Return the video of a name; where it is missing, the path that it would have in the root.

        Args:
            stem: Name without suffix.
            suffix: Of the path of a missing one.
            hints: Names of folders by which one of several is chosen.
        """
        found = self._paths.get(stem)
        if not found:
            return self.root / f"{stem}{suffix}"
        wanted = {hint for hint in hints if hint}
        return max(found, key=lambda path: len(wanted & set(path.parts)))  # the first of several that are as good


def read_lines(path: Path) -> list[str]:
    """Read a text file.

    Raises:
        ManifestError: If it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read ({_reason(error)}): give a text file in UTF-8") from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ManifestError: If it cannot be read as such.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} cannot be read as JSON ({_reason(error)})") from None


def files_of(source: Path, pattern: str) -> list[Path]:
    """Return a file alone, or the files of a folder whose names fit a pattern, in order.

    Raises:
        ManifestError: If there is none.
    """
    found = [source] if source.is_file() else sorted(source.glob(pattern)) if source.is_dir() else []
    if not found:
        what = f"has no {pattern}" if source.is_dir() else "does not exist"
        raise ManifestError(f"{source} {what}: give the file, or the folder of the annotation files")
    return found


def folder_of(source: Path) -> Path:
    """Return the folder that a file is in, or the folder itself."""
    return source if source.is_dir() else source.parent


def split_in_name(path: Path) -> str:
    """Return the part of a data set that a file's name tells; empty where it does not."""
    words = path.stem.lower().replace("-", "_").replace(".", "_").split("_")
    return next((SPLIT_OF[word] for word in words if word in SPLIT_OF), "")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
