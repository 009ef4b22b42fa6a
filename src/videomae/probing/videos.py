"""Which videos are probed: their labels and groups, from `labels.csv` or from one folder for each class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from videomae.data.labels_file import GROUP, LABEL, LABELS_FILE, PATH, SPLIT, read_labels_file
from videomae.data.manifest import Manifest, VideoRow, scan_labelled
from videomae.errors import ManifestError

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ProbeVideos:
    """Labelled videos and what belongs together among them."""

    manifest: Manifest
    """The videos, a label for each."""
    groups: tuple[str, ...]
    """Group of each video, such as the recording that it is cut from."""
    has_groups: bool
    """Whether groups were given; otherwise each video is a group of its own."""

    @property
    def labels(self) -> IntArray:
        """Class ids, int64 `[n]`."""
        return np.asarray([row.label for row in self.manifest.rows], dtype=np.int64)

    @property
    def group_ids(self) -> IntArray:
        """Groups by number, int64 `[n]`."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(self.groups))}
        return np.asarray([numbers[name] for name in self.groups], dtype=np.int64)

    def subset(self, kept: NDArray[np.bool_]) -> ProbeVideos:
        """Return the videos where `kept`, bool `[n]`, is true."""
        rows = tuple(row for row, keep in zip(self.manifest.rows, kept, strict=True) if keep)
        groups = tuple(group for group, keep in zip(self.groups, kept, strict=True) if keep)
        manifest = Manifest(self.manifest.root, rows, self.manifest.classes)
        return ProbeVideos(manifest, groups, self.has_groups)

    def summary(self) -> list[str]:
        """Return lines for people, a warning where no groups were given."""
        counts = Counter(row.label for row in self.manifest.rows)
        named = ", ".join(f"{name} {counts[label]}" for label, name in enumerate(self.manifest.classes))
        groups = f" in {len(set(self.groups))} groups" if self.has_groups else ""
        lines = [f"videos: {len(self.groups)}{groups}, {len(self.manifest.classes)} classes: {named}"]
        if not self.has_groups:
            lines.append(
                f"no groups: each video counts as independent of the others; where several are cut from one "
                f"recording, every figure is too good: give {LABELS_FILE} with a column {GROUP}"
            )
        return lines


def find_videos(root: Path, *, split: str | None = None) -> ProbeVideos:
    """List the videos of a folder with their labels and groups.

    Args:
        root: A folder with `labels.csv` (columns path, label and, where wanted, group and split; others are
            ignored), or with one folder of videos for each class.
        split: Take only the rows with this value in the column split.

    Raises:
        ManifestError: If the folder or the list cannot be used, or a class is in a single group, so that no probe
            could be trained and tested on it.
    """
    folder = root.expanduser()
    if (folder / LABELS_FILE).is_file():
        found = _from_list(folder, folder / LABELS_FILE, split)
    elif split is not None:
        raise ManifestError(
            f"split is {split!r}, but {folder} has no {LABELS_FILE} with a column {SPLIT}: leave it out"
        )
    else:
        manifest = scan_labelled(folder)
        names = tuple(manifest.relative_path(row) for row in manifest.rows)
        found = ProbeVideos(manifest, names, has_groups=False)
    check_classes(found)
    return found


def check_classes(videos: ProbeVideos) -> None:
    """Check that each class can be trained and tested on.

    Raises:
        ManifestError: If there is one class, or a class has all its videos in one group.
    """
    classes, labels, groups = videos.manifest.classes, videos.labels, videos.group_ids
    if len(classes) < 2:
        raise ManifestError(f"{videos.manifest.root} has one class, {classes[0]}: a probe needs at least two")
    for label, name in enumerate(classes):
        count = len(set(groups[labels == label].tolist()))
        if count < 2:
            what = "group" if videos.has_groups else "video"
            raise ManifestError(
                f"class {name} of {videos.manifest.root} has {count} {what}(s) that can be read, and needs at least "
                f"two, one to train on and one to test on: add videos of another {what}, or leave the class out"
            )


def _from_list(folder: Path, path: Path, split: str | None) -> ProbeVideos:
    rows = _read_rows(path, split)
    names = tuple(sorted({row["label"] for row in rows}))
    ids = {name: number for number, name in enumerate(names)}
    rows.sort(key=lambda row: row["path"])
    twice = [name for name, count in Counter(row["path"] for row in rows).items() if count > 1]
    if twice:
        raise ManifestError(f"{path} has {twice[0]} more than once: leave one row for each video")
    missing = [row["path"] for row in rows if not (folder / row["path"]).is_file()]
    if missing:
        raise ManifestError(
            f"{path} names {len(missing)} videos that are not there, first {missing[0]}: paths are relative "
            f"to {folder}"
        )
    manifest = Manifest(folder, tuple(VideoRow(folder / row["path"], ids[row["label"]]) for row in rows), names)
    has_groups = GROUP in rows[0]
    return ProbeVideos(manifest, tuple(row[GROUP if has_groups else "path"] for row in rows), has_groups)


def _read_rows(path: Path, split: str | None) -> list[dict[str, str]]:
    """Return the rows of a list, each with all columns that matter and none of them empty."""
    columns, rows = read_labels_file(path)
    needed = (PATH, LABEL, *((SPLIT,) if split is not None else ()))
    for name in needed:
        if name not in columns:
            raise ManifestError(
                f"{path} has no column {name}: its first line names the columns, such as path,label,group"
            )
    kept = []
    for line, row in rows:
        values = {name: value for name, value in row.items() if name != SPLIT or split is not None}
        empty = [name for name, value in values.items() if not value]
        if empty:
            raise ManifestError(f"{path}, line {line}, has no {empty[0]}: fill it in, or leave the row out")
        pure = PurePosixPath(values["path"])
        if pure.is_absolute() or ".." in pure.parts:
            raise ManifestError(f"{path}, line {line}: {values['path']} leaves the folder: give a path below it")
        if split is None or values[SPLIT] == split:
            kept.append(values)
    if not kept:
        found = ", ".join(sorted({row.get(SPLIT, "") for _, row in rows})) or "none"
        wanted = "" if split is None else f" with split {split!r} (there are: {found})"
        raise ManifestError(f"{path} has no row{wanted}: give one for each video")
    return kept
