"""The parts of a data set: those that a manifest file names, and a validation part split off by a hash.

Rows of one group are never on two sides.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from typing import Literal

from videomae.data.manifest import Manifest, VideoRow
from videomae.data.manifest_file import GROUP, LABELS_FILE
from videomae.errors import ConfigError, ManifestError


def has_splits(manifest: Manifest) -> bool:
    """Tell whether a manifest file says which part of the data set each video belongs to."""
    return any(row.split for row in manifest.rows)


def rows_of_split(manifest: Manifest, split: str) -> Manifest:
    """Return the rows of a part; the classes are those of the whole.

    Raises:
        ManifestError: If it has none.
    """
    if split == "all":
        return manifest
    chosen = [row for row in manifest.rows if row.split == split]
    if not chosen:
        found = ", ".join(sorted({row.split for row in manifest.rows if row.split})) or "none"
        raise ManifestError(
            f"{manifest.name} has no row with split {split!r} (there are: {found}): give another split, or add rows"
        )
    return manifest.with_rows(chosen)


def training_rows(manifest: Manifest) -> Manifest:
    """Return what to train on: the rows of the split train, or all where no row has a split.

    Raises:
        ManifestError: If there are splits and no row is of train.
    """
    return rows_of_split(manifest, "train") if has_splits(manifest) else manifest


def measured_rows(manifest: Manifest, *, first: Literal["test", "val"] = "test") -> Manifest:
    """Return what to measure on: the rows of the split test or val, or all where no row has a split.

    A split test without labels does not count.

    Args:
        manifest: The whole.
        first: Which of the two is taken where there are both.

    Raises:
        ManifestError: If all rows are of train.
    """
    labelled = [row for row in manifest.rows if row.label is not None or row.labels]
    # Values are labels too, which only their reader knows of.
    splits = {row.split for row in labelled or manifest.rows}
    if splits == {"train"}:
        raise ManifestError(
            f"{manifest.name} has only labels of the split train: add rows of test or val; videomae evaluate also "
            "takes --split train"
        )
    order = (first, "test", "val")
    return rows_of_split(manifest, next((name for name in order if name in splits), "all"))


def not_used_lines(whole: Manifest, *parts: Manifest) -> list[str]:
    """Tell how many rows of a data set are in none of its parts; nothing where all are."""
    num_used = sum(len(part.rows) for part in parts)
    if num_used == len(whole.rows):
        return []
    return [f"videos: {num_used} of the {len(whole.rows)} in {whole.name}; the others are of another split"]


def train_and_val(manifest: Manifest, *, val_fraction: float) -> tuple[Manifest, Manifest]:
    """Divide a data set into what is trained on and what is validated on.

    The rows of the splits train and val; without val, a part of the training rows, see `split_manifest`. Other rows
    are in neither.

    Args:
        manifest: The whole.
        val_fraction: Fraction of the training rows for validation where nothing says which, in (0, 1).

    Returns:
        (training, validation).

    Raises:
        ConfigError: If the fraction is out of range.
        ManifestError: If a part is empty, or a group is in both.
    """
    train = training_rows(manifest)
    if any(row.split == "val" for row in manifest.rows):
        val = rows_of_split(manifest, "val")
        check_apart(train, val)
        return train, val
    divided = split_manifest(train, val_fraction=val_fraction)
    if not any(row.group for row in train.rows):
        warnings.warn(
            f"{manifest.name} says nothing of groups, so its validation videos are chosen by their names: clips of "
            f"one recording may be in training and in validation, which makes the accuracy too good; give "
            f"{LABELS_FILE} with a column {GROUP}, or the validation videos with --data.val",
            UserWarning,
            stacklevel=2,
        )
    return divided


def check_apart(train: Manifest, val: Manifest) -> None:
    """Check that no group of the training videos is among the others.

    Raises:
        ManifestError: If one is.
    """
    groups = {row.group for row in train.rows if row.group}
    both = sorted({row.group for row in val.rows if row.group and row.group in groups})
    if both:
        raise ManifestError(
            f"group {both[0]} of {val.name} is in the training and in the validation videos, with {len(both) - 1} "
            "other groups: give all rows of a group one split, or leave the column out if it names no recordings"
        )


def split_manifest(manifest: Manifest, *, val_fraction: float) -> tuple[Manifest, Manifest]:
    """Split a data set in two by hashes of the videos' relative paths, or of their groups, class by class.

    Without groups, a video's side depends on its own path, so adding videos never moves another - except in a class
    so small that the hash puts all of it on one side: there the video nearest to the border changes sides, so that
    every class with two videos or more is on both. A class of one video is for training. The fraction is met on
    average, not exactly. Videos cut from one recording look alike; a split by path does not keep them together.

    With groups, none is separated, and neither are the parts of one video. They are taken in the order of their
    hashes as long as their most frequent class lacks so many videos, so that few and unequal groups still meet the
    fraction as nearly as they can. Every class with two groups is on both sides, as far as groups of several
    classes allow it.

    Args:
        manifest: With or without labels.
        val_fraction: Fraction of videos in the second manifest, in (0, 1).

    Returns:
        (training, validation), with the root and the classes of the whole.

    Raises:
        ConfigError: If the fraction is out of range.
        ManifestError: If no class has two videos or groups, so that nothing is left to validate on.
    """
    if not 0.0 < val_fraction < 1.0:
        hint = f": did you mean {val_fraction / 100:g}?" if 1.0 < val_fraction < 100.0 else ""
        raise ConfigError(f"val_fraction is {val_fraction:g}; it is a fraction in (0, 1){hint}")
    has_groups = any(row.group or row.source != row.path for row in manifest.rows)
    in_val = (_val_of_groups if has_groups else _val_of_videos)(manifest, val_fraction)
    if not in_val:
        what = "groups" if has_groups else "videos"
        raise ManifestError(
            f"{manifest.name} has no class with two {what}, so none is left for validation: add {what}"
        )
    train = [row for row in manifest.rows if row not in in_val]
    return manifest.with_rows(train), manifest.with_rows(row for row in manifest.rows if row in in_val)


def _val_of_videos(manifest: Manifest, val_fraction: float) -> set[VideoRow]:
    """Choose the rows for validation where each stands for itself."""
    by_class: dict[int | None, list[VideoRow]] = {}
    for row in manifest.rows:
        by_class.setdefault(row.label, []).append(row)
    in_val: set[VideoRow] = set()
    for rows in by_class.values():
        ordered = sorted(rows, key=lambda row: _rank(manifest.relative_path(row)))
        count = sum(_fraction(manifest.relative_path(row)) < val_fraction for row in rows)
        in_val.update(ordered[: min(max(count, 1), len(rows) - 1)])
    return in_val


def _val_of_groups(manifest: Manifest, val_fraction: float) -> set[VideoRow]:
    """Choose the rows for validation, all of a group or none; a row without a group goes with its video's others."""
    by_group: dict[str, list[VideoRow]] = {}
    of_class: dict[int | None, set[str]] = {}
    for row in manifest.rows:
        name = row.group or row.path.as_posix()
        by_group.setdefault(name, []).append(row)
        of_class.setdefault(row.label, set()).add(name)
    in_val = _filled(by_group, val_fraction)
    for groups in of_class.values():
        if groups <= in_val:  # every class is trained on
            in_val.remove(max(groups, key=_rank))
    for groups in of_class.values():
        if not groups & in_val:
            for name in sorted(groups, key=_rank):
                touched = {row.label for row in by_group[name]}
                if all(of_class[label] - in_val - {name} for label in touched):
                    in_val.add(name)
                    break
    return {row for name in in_val for row in by_group[name]}


def _filled(by_group: Mapping[str, list[VideoRow]], val_fraction: float) -> set[str]:
    """Take groups by their hashes as long as their class lacks so many videos, then one more where that is nearer."""
    of_main_class: dict[int | None, list[str]] = {}
    for name, rows in by_group.items():
        ((label, _),) = Counter(row.label for row in rows).most_common(1)
        of_main_class.setdefault(label, []).append(name)
    chosen = set[str]()
    for names in of_main_class.values():
        sizes = {name: len(by_group[name]) for name in sorted(names, key=_rank)}
        lacking = val_fraction * sum(sizes.values())
        for name, size in sizes.items():
            if size <= lacking:
                chosen.add(name)
                lacking -= size
        rest = [name for name in sizes if name not in chosen]
        nearest = min(rest, key=sizes.__getitem__, default=None)
        if nearest is not None and sizes[nearest] - lacking < lacking:
            chosen.add(nearest)
    return chosen


def _rank(name: str) -> tuple[float, str]:
    return _fraction(name), name


def _fraction(name: str) -> float:
    """Map a name to a fixed number in [0, 1)."""
    # NFC: macOS may spell the accents of one and the same name differently.
    name = unicodedata.normalize("NFC", name)
    # surrogatepass keeps file names that are not valid Unicode apart instead of failing.
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big") / 2.0**48
