"""What can be seen of the data itself before anything is learnt: blank, still, repeated and disordered clips."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

BLANK_STD = 2.0  # of 255: the spread of pixels below which a frame shows nothing
# Of 255: the mean and the largest change of a pixel from frame to frame below which nothing moves. Not the mean
# alone: a distant drone before a still sky is a few pixels. Compression of a still scene changes less.
STILL_CHANGE = (0.6, 24.0)
THUMBNAIL = 16  # pixels of a side
TWIN_DIFFERENCE = (3.0, 24.0)  # of 255: root mean square, and largest, of thumbnails of one clip compressed twice
MOVING_CHANGE = 1.0  # of 255: clips that change less from frame to frame say nothing about the order of frames
MAX_COMPARED_FILES = 20_000
HASHED_BYTES = 1 << 16


@dataclass(frozen=True)
class DataStatistics:
    """Of a sample of clips, held out and to be trained on."""

    num_clips: int
    """Clips of the sample."""
    pixel_std: float
    """Mean spread of the pixels of a clip, of 255."""
    blank: float
    """Fraction of clips that show one color."""
    still: float
    """Fraction of clips, blank ones excluded, in which nothing moves."""
    twins: float
    """Fraction of clips that look like another one of the sample."""
    equal_files: float
    """Fraction of the videos that have the same content as an earlier one."""
    order: float | None
    """Mean change between neighboring frames over that between any two frames; None where too little moves.

    Well below 1 in videos, 1 where frames are in no order.
    """


def data_statistics(clips: Tensor, paths: Sequence[Path]) -> DataStatistics:
    """Measure a sample of clips, and the files of all videos.

    Args:
        clips: `[n, T, C, S, S]` uint8, each of another video.
        paths: All videos.
    """
    stds, still, ratios = [], [], []
    for clip in clips:
        frames = clip.float()
        stds.append(float(frames.std(dim=(1, 2, 3)).mean()))
        change = neighbour_change(frames)
        most = float((frames[1:] - frames[:-1]).abs().max()) if len(frames) > 1 else 255.0
        still.append(change < STILL_CHANGE[0] and most < STILL_CHANGE[1])
        if len(frames) > 2 and change > MOVING_CHANGE:
            ratios.append(change / any_change(frames))
    n = max(len(clips), 1)
    is_blank = [std < BLANK_STD for std in stds]
    is_still = [one and not blank for one, blank in zip(still, is_blank, strict=True)]
    looks = clips[torch.tensor([not one for one in is_blank], dtype=torch.bool)] if len(clips) else clips
    return DataStatistics(
        num_clips=len(clips),
        pixel_std=round(sum(stds) / n, 4),
        blank=sum(is_blank) / n,
        still=sum(is_still) / n,
        twins=twin_fraction(looks),
        equal_files=equal_file_fraction(paths),
        order=round(sum(ratios) / len(ratios), 5) if len(ratios) >= 3 else None,
    )


def neighbour_change(frames: Tensor) -> float:
    """Return the mean absolute difference of neighboring frames `[T, C, H, W]`."""
    return float((frames[1:] - frames[:-1]).abs().mean()) if len(frames) > 1 else 0.0


def any_change(frames: Tensor) -> float:
    """Return the mean absolute difference of any two different frames: what neighbors have in a shuffled clip."""
    flat = frames.flatten(1)
    T = len(flat)
    total = sum(float((flat[first + 1 :] - flat[first]).abs().mean(dim=1).sum()) for first in range(T - 1))
    return max(total / (T * (T - 1) / 2), 1e-9)


def twin_fraction(clips: Tensor) -> float:
    """Return the fraction of clips `[n, T, C, S, S]` whose thumbnails are those of another clip."""
    if len(clips) < 2:
        return 0.0
    middle = clips[:, [0, clips.shape[1] // 2]].float().flatten(0, 1)  # [n * 2, C, S, S]
    small = F.adaptive_avg_pool2d(middle, THUMBNAIL).unflatten(0, (len(clips), 2)).flatten(1)  # [n, 2 * C * 256]
    mean = torch.cdist(small, small) / small.shape[1] ** 0.5 / TWIN_DIFFERENCE[0]
    largest = torch.cdist(small, small, p=float("inf")) / TWIN_DIFFERENCE[1]
    difference = torch.maximum(mean, largest)
    difference.fill_diagonal_(float("inf"))
    return float((difference.min(dim=1).values < 1.0).float().mean())


def equal_file_fraction(paths: Sequence[Path]) -> float:
    """Return the fraction of files that are equal to an earlier one in size and in their first and last 64 KiB.

    Only files of equal size are read. Of more than 20,000 files the first 20,000 are looked at.
    """
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths[:MAX_COMPARED_FILES]:
        try:
            by_size[path.stat().st_size].append(path)
        except OSError:
            continue
    num_equal = 0
    for group in by_size.values():
        if len(group) > 1:
            digests = [_digest(path) for path in group]
            num_equal += len(digests) - len(set(digests))
    return num_equal / max(min(len(paths), MAX_COMPARED_FILES), 1)


def _digest(path: Path) -> bytes:
    digest = blake2b(digest_size=16)
    try:
        with open(path, "rb") as stream:
            digest.update(stream.read(HASHED_BYTES))
            stream.seek(-min(HASHED_BYTES, path.stat().st_size), os.SEEK_END)
            digest.update(stream.read(HASHED_BYTES))
    except OSError:
        return str(path).encode("utf-8", "surrogatepass")  # it cannot be equal to another
    return digest.digest()
