"""Which videos are held out of training, their labels where there are some, and their clips."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from videomae.data.augment import resize_centre
from videomae.data.manifest import Manifest, VideoRow, procedural_number, procedural_row, procedural_seed
from videomae.data.manifest_file import GROUP, LABEL, LABELS_FILE, PATH, read_table
from videomae.data.procedural import ProceduralVideos
from videomae.data.scan import SPLIT_NAMES
from videomae.engine.seeding import derive_seed
from videomae.errors import ManifestError, VideoReadError
from videomae.monitor.configs import MonitorConfig
from videomae.video.index_store import IndexStore
from videomae.video.opening import open_reader
from videomae.video.sampling import ClipConfig, centre_clip

MIN_HELD_OUT = 4  # fewer clips are no sample: then training videos are measured instead
MAX_SEEN = 16  # training videos that are measured where none is held out
FIRST_PROCEDURAL = 1 << 40  # index of the first held-out clip of `procedural:`; no run trains so many
MAX_GROUP_FRACTION = 0.1  # of all videos; what more share is no name of a recording but of the whole set
_LAST_NUMBER = re.compile(r"[-_. ]?[a-z]{0,5}\d+$", flags=re.IGNORECASE)


@dataclass(frozen=True)
class WatchedVideos:
    """The videos of a run, divided."""

    train: Manifest
    """What is trained on."""
    measured: tuple[VideoRow, ...]
    """What the monitor measures on, in the order in which it is used; `label` is set where there are labels, `group`
    in every row of a file."""
    unseen: bool
    """Whether the measured videos are held out of training."""


@dataclass(frozen=True)
class Annotations:
    """What is known of videos by their relative paths."""

    labels: dict[str, str]
    """Class names; empty where there are none."""
    groups: dict[str, str]
    """Recordings; videos that are not in it are grouped by name."""


def hold_out(manifest: Manifest, config: MonitorConfig, *, seed: int) -> WatchedVideos:
    """Divide videos into those to train on and those to measure on; a function of the arguments alone.

    Videos of a group are on one side: the column `group` of the manifest file or of `labels.csv` in the root, or
    else names that differ in their last number only (`v_Archery_g01_c01`, `v_Archery_g01_c02`). Groups are taken in
    an order that the seed decides, those that would exceed the number left out. Where a twentieth of the videos is
    fewer than 4, nothing is held out and up to 16 training videos are measured. Of `procedural:`, clips are
    measured that no run reaches.

    Args:
        manifest: All videos.
        config: Fraction and largest number.
        seed: Of the run.
    """
    if not config.enabled:
        return WatchedVideos(manifest, (), unseen=False)
    if procedural_seed(manifest.root) is not None:
        numbers = range(FIRST_PROCEDURAL, FIRST_PROCEDURAL + config.max_clips)
        measured = tuple(procedural_row(manifest.root, number) for number in numbers)
        return WatchedVideos(manifest, measured, unseen=True)
    found = read_annotations(manifest)
    ids = {name: number for number, name in enumerate(sorted(set(found.labels.values())))}
    by_group: dict[str, list[VideoRow]] = {}
    for row in manifest.rows:
        by_group.setdefault(_group(manifest, row, found), []).append(row)
    largest = max(1.0, MAX_GROUP_FRACTION * len(manifest.rows))
    groups: list[tuple[str, list[VideoRow]]] = []
    for name, rows in by_group.items():
        is_video = rows[0].source != rows[0].path  # the parts of one
        whole = len(rows) <= largest or is_video or manifest.relative_path(rows[0]) in found.groups
        groups += [(name, rows)] if whole else [(manifest.relative_path(row), [row]) for row in rows]
    groups.sort(key=lambda group: (derive_seed(seed, "held out", group[0]), group[0]))
    count = min(round(config.held_out * len(manifest.rows)), config.max_clips)
    chosen: dict[VideoRow, str] = {}  # and the group of each
    for name, rows in groups:
        if len(chosen) + len(rows) <= count:
            chosen |= dict.fromkeys(rows, name)
    unseen = len(chosen) >= MIN_HELD_OUT
    if not unseen:
        chosen = dict([(row, name) for name, rows in groups for row in rows][:MAX_SEEN])
    kept = tuple(row for row in manifest.rows if row not in chosen) if unseen else manifest.rows
    measured = tuple(
        row._replace(label=ids.get(found.labels.get(manifest.relative_path(row), "")), group=name)
        for row, name in chosen.items()
    )
    return WatchedVideos(manifest.with_rows(kept), measured, unseen)


def read_annotations(manifest: Manifest) -> Annotations:
    """Take what a manifest file says, or `labels.csv` in the root, or else take top folders as classes.

    A `labels.csv` that cannot be read as such says nothing: pre-training needs neither labels nor groups.
    """
    names = [manifest.relative_path(row) for row in manifest.rows]
    if manifest.file is not None:
        named = list(zip(names, manifest.rows, strict=True))
        labels = {name: manifest.classes[row.label] for name, row in named if row.label is not None}
        return Annotations(labels, {name: row.group for name, row in named if row.group})
    try:
        rows = read_table(manifest.root / LABELS_FILE).rows
    except ManifestError:
        rows = []
    labels, groups = (
        {row[PATH]: row[column] for _, row in rows if row.get(PATH) and row.get(column)} for column in (LABEL, GROUP)
    )
    if not labels and all("/" in name for name in names):
        tops = {name: PurePosixPath(name).parts[0] for name in names}
        if len(set(tops.values())) > 1 and not {top.lower() for top in tops.values()} <= SPLIT_NAMES:
            labels = tops
    return Annotations(labels, groups)


def _group(manifest: Manifest, row: VideoRow, found: Annotations) -> str:
    name = manifest.relative_path(row)
    if name in found.groups:
        return f"group {found.groups[name]}"
    if row.source != row.path:
        return f"parts of {row.path.as_posix()}"
    stem = _LAST_NUMBER.sub("", Path(name).stem)
    return f"{PurePosixPath(name).parent}/{stem}" if stem else name


def centre_clips(
    rows: tuple[VideoRow, ...], clip: ClipConfig, *, size: int, store: IndexStore | None = None
) -> tuple[Tensor, list[VideoRow]]:
    """Read the middle of each video, cropped at the center, or draw procedural clips.

    Args:
        rows: The videos.
        clip: How many frames, how far apart.
        size: S.
        store: Keeps what is known of the files of a collection; it changes nothing but speed.

    Returns:
        Clips `[n, T, C, S, S]` uint8, and the rows that they are of: those that could be read.
    """
    source = procedural_seed(rows[0].path.parent) if rows else None
    if source is not None:
        videos = ProceduralVideos(source, num_frames=clip.num_frames, size=size)
        return videos.clips(torch.tensor([procedural_number(row) for row in rows])), list(rows)
    clips, kept = [], []
    for row in rows:
        try:
            with open_reader(row.source, store=store, fps=clip.fps) as reader:
                frames = reader.frames(centre_clip(len(reader), clip))
        except VideoReadError:
            continue  # the loader of the run names it, or nobody needs it
        clips.append(resize_centre(np.ascontiguousarray(frames), size=size))
        kept.append(row)
    empty = torch.empty(0, clip.num_frames, 3, size, size, dtype=torch.uint8)
    return torch.stack(clips) if clips else empty, kept
