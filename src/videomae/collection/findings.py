"""What is wrong with a collection: findings of the kinds in `KINDS`, made from the facts of its files.

Reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from videomae.collection.duplicates import Pairs
from videomae.collection.measure import FileFacts
from videomae.data.manifest import Manifest, VideoRow, whole_video

MAX_NAMED = 3  # videos named in a sentence; a finding has all of them beside it


class Kind(NamedTuple):
    """A kind of finding."""

    title: str
    """A word or two for tables."""
    fix: str
    """What to do about it."""


KINDS: dict[str, Kind] = {
    "unreadable": Kind("unreadable", "copy or download it again, or train with the skip list"),
    "truncated": Kind("truncated", "copy or download it again, or train with the skip list"),
    "audio_only": Kind("no video stream", "take it out of the collection, or train with the skip list"),
    "damaged": Kind("damaged frames", "copy it again; if they stay, look at it before you keep it"),
    "too_short": Kind(
        "too short for a clip", "use fewer frames or a smaller stride; else a clip repeats the last frame"
    ),
    "variable_rate": Kind(
        "variable frame rate", "nothing, if the frames of a clip may be unevenly apart; else re-encode it"
    ),
    "frame_count": Kind(
        "wrong frame count in the header", "nothing here, frames are counted; for other programs prepare the videos"
    ),
    "odd_size": Kind("odd width or height", "nothing here; for other programs prepare the videos"),
    "rotated": Kind("rotated or mirrored", "nothing here, frames are turned; for other programs prepare the videos"),
    "exact_duplicate": Kind("exact duplicate", "keep one; the skip list names the others"),
    "near_duplicate": Kind("near duplicate", "look at them and keep the best copy"),
    "label_conflict": Kind("copies with different labels", "correct the label, or leave all copies out"),
    "leak": Kind("same video in train and test", "keep one side; the skip list names the videos of train"),
    "group_leak": Kind("group in train and test", "give all videos of a recording to one split"),
}
"""Every kind of finding, by the name that `check.json` has for it, in the order of reports."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one video or group."""

    kind: str
    """A key of `KINDS`."""
    path: str
    """The video relative to the collection's root; of a group, its name."""
    what: str
    """What was found."""
    others: tuple[str, ...] = ()
    """The other videos concerned."""
    skip: tuple[str, ...] = ()
    """What goes on the skip list because of it."""

    @property
    def fix(self) -> str:
        """What to do about it."""
        return KINDS[self.kind].fix


@dataclass(frozen=True)
class Side:
    """A collection with the facts of its files."""

    manifest: Manifest
    """The rows."""
    facts: Mapping[Path, FileFacts]
    """By path of the row."""

    @cached_property
    def rows(self) -> dict[Path, list[VideoRow]]:
        """The rows of each file."""
        found: dict[Path, list[VideoRow]] = {}
        for row in self.manifest.rows:
            found.setdefault(row.path, []).append(row)
        return found


def file_findings(side: Side, *, span: int) -> list[Finding]:
    """Return what is wrong with single files.

    Args:
        side: The collection.
        span: Frames from the first frame of a clip to its last.
    """
    found: list[Finding] = []
    for path, rows in side.rows.items():
        facts = side.facts[path]
        name = side.manifest.relative_path(whole_video(rows[0]))
        found += _of_file(name, facts)
        if facts.fault is None:
            found += _short(side.manifest, rows, facts, span)
    return found


def duplicate_findings(side: Side, pairs: Pairs) -> list[Finding]:
    """Return the files of one collection that are copies of another of it, and copies labelled differently."""
    names = _names(side)
    found: list[Finding] = []
    for kind, groups in (("exact_duplicate", pairs.exact), ("near_duplicate", pairs.near)):
        for group in groups:
            # First the copies that a leak would have to keep, so that the skip list never empties a test split.
            first, *others = sorted(group, key=lambda path: (_splits(side, path) <= {None, "train"}, names[path]))
            texts = tuple(names[path] for path in others)
            same = "has the same content as" if kind == "exact_duplicate" else "looks the same as"
            what = f"{same} {_listed(texts)}"
            skip = texts if kind == "exact_duplicate" else ()
            found.append(Finding(kind, names[first], what, texts, skip))
    for group in (*pairs.exact, *pairs.near):
        labels = {path: sorted(_labels(side, path)) for path in group}
        if len({tuple(one) for one in labels.values()}) > 1:
            first, *others = sorted(group, key=lambda path: names[path])
            said = _listed([f"{names[path]} is {', '.join(labels[path]) or 'without label'}" for path in group])
            found.append(Finding("label_conflict", names[first], said, tuple(names[path] for path in others)))
    return found


def leak_findings(train: Side, test: Side, copies: Iterable[Sequence[Path]], *, is_one: bool) -> list[Finding]:
    """Return videos, copies and groups that are in training and in testing.

    Args:
        train: What is trained on.
        test: What is tested on.
        copies: Groups of files that are copies of each other, exact or near, over both.
        is_one: Whether both are splits of one collection; else any file of the second counts as tested on.
    """
    names_train, names_test = _names(train), _names(test)
    in_train, in_test = set(names_train), set(names_test)
    found = []
    clusters = [set(group) for group in copies]
    covered = set().union(*clusters) if clusters else set()
    clusters += [{path} for path in sorted((in_train & in_test) - covered)]
    for cluster in clusters:
        ours, theirs = sorted(cluster & in_train), sorted(cluster & in_test)
        if not ours or not theirs:
            continue
        tested = tuple(names_test[path] for path in theirs)
        trained = tuple(names_train[path] for path in ours)
        what = f"is trained on; the test videos have it as {_listed(tested)}"
        rows = [row for path in ours for row in train.rows[path]]
        # A whole file in the list would take the rows of the test split along.
        both = is_one and set(ours) & in_test
        skip = tuple(train.manifest.relative_path(row) for row in rows) if both else trained
        found.append(Finding("leak", trained[0], what, (*trained[1:], *tested), skip))
    groups = _groups(train), _groups(test)
    for group in sorted(groups[0].keys() & groups[1].keys()):
        first, second = (one[group] for one in groups)
        what = f"has {len(first)} videos in train and {len(second)} in test, such as {first[0]} and {second[0]}"
        found.append(Finding("group_leak", group, what, (*first, *second)))
    return found


def split_sides(side: Side) -> tuple[Side, Side] | None:
    """Return a collection's training part and the rest; None where it has no splits, or one part alone."""
    train = [row for row in side.manifest.rows if row.split == "train"]
    test = [row for row in side.manifest.rows if row.split not in (None, "train")]
    if not train or not test:
        return None
    return tuple(Side(side.manifest.with_rows(rows), side.facts) for rows in (train, test))  # type: ignore[return-value]


def _of_file(name: str, facts: FileFacts) -> list[Finding]:
    if facts.fault is not None:
        what = facts.reason.removeprefix(f"{facts.path} ").removeprefix(f"{facts.path}: ")
        return [Finding(facts.fault, name, what, skip=(name,))]
    found = []
    info = facts.info
    assert info is not None
    if facts.num_damaged:
        found.append(Finding("damaged", name, f"{facts.num_damaged} of {facts.num_frames} frames are damaged"))
    if facts.is_variable:
        found.append(Finding("variable_rate", name, "the time from frame to frame changes"))
    if info.num_frames_claimed not in (None, facts.num_frames):
        what = f"the header says {info.num_frames_claimed} frames, {facts.num_frames} decode"
        found.append(Finding("frame_count", name, what))
    if info.width % 2 or info.height % 2:
        found.append(Finding("odd_size", name, f"frames are {info.width}x{info.height}"))
    if info.rotation_degrees or info.is_mirrored:
        turn = f"shown turned by {info.rotation_degrees} degrees" if info.rotation_degrees else "shown"
        found.append(Finding("rotated", name, turn + (" and mirrored" if info.is_mirrored else "")))
    return found


def _short(manifest: Manifest, rows: Sequence[VideoRow], facts: FileFacts, span: int) -> list[Finding]:
    found = []
    for row in rows:
        part = (row.start_seconds, row.end_seconds)
        count = facts.num_frames if part == (None, None) else facts.part_frames.get(part, 0)
        name = manifest.relative_path(row)
        if count == 0:
            what = f"no frame is shown in this part; the video has {facts.num_frames} frames"
            found.append(Finding("unreadable", name, what, skip=(name,)))
        elif count < span:
            found.append(Finding("too_short", name, f"{count} frames, a clip spans {span}"))
    return found


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _names(side: Side) -> dict[Path, str]:
    return {row.path: side.manifest.relative_path(whole_video(row)) for row in side.manifest.rows}


def _splits(side: Side, path: Path) -> set[str | None]:
    return {row.split for row in side.rows[path]}


def _labels(side: Side, path: Path) -> set[str]:
    ids = {label for row in side.rows[path] for label in (*row.labels, row.label) if label is not None}
    return {side.manifest.classes[label] for label in ids}


def _groups(side: Side) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for row in side.manifest.rows:
        if row.group:
            groups.setdefault(row.group, []).append(side.manifest.relative_path(row))
    return groups
