"""Which videos are probed: their labels and groups, from a manifest file or from one folder for each class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomae.data.manifest import Manifest, whole_video
from videomae.data.manifest_file import GROUP, LABELS_FILE, SPLIT
from videomae.data.scan import manifest_file_of, scan_labelled
from videomae.data.splits import rows_of_split
from videomae.errors import ManifestError
from videomae.video.addresses import video_path

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
        return ProbeVideos(self.manifest.with_rows(rows), groups, self.has_groups)

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
        root: A folder with `labels.csv`, a manifest file (see `data/manifest_file.py`), or a folder with one folder
            of videos for each class.
        split: Take only the rows with this value in the column split.

    Raises:
        ManifestError: If the folder or the manifest file cannot be used, or a class is in a single group, so that no
            probe could be trained and tested on it.
    """
    folder = video_path(root).expanduser()
    if split is not None and manifest_file_of(folder) is None:
        raise ManifestError(
            f"split is {split!r}, but {folder} has no {LABELS_FILE} with a column {SPLIT}: leave it out"
        )
    manifest = scan_labelled(folder, subset=manifest_file_of(folder) is not None)
    if split is not None:
        manifest = rows_of_split(manifest, split)
    if any(row.label is None for row in manifest.rows):
        raise ManifestError(
            f"{manifest.name} has test videos without a label: leave them out with --split train or --split val"
        )
    manifest = _with_used_classes(manifest)
    has_groups = any(row.group for row in manifest.rows)
    groups = tuple(row.group or manifest.relative_path(whole_video(row)) for row in manifest.rows)
    found = ProbeVideos(manifest, groups, has_groups)
    check_classes(found)
    return found


def _with_used_classes(manifest: Manifest) -> Manifest:
    """Leave out the classes that no row has."""
    used = sorted({row.label for row in manifest.rows if row.label is not None})
    ids = {label: number for number, label in enumerate(used)}
    rows = tuple(row._replace(label=None if row.label is None else ids[row.label]) for row in manifest.rows)
    return replace(manifest, rows=rows, classes=tuple(manifest.classes[label] for label in used))


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
