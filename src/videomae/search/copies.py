"""Videos that show the same, in part or whole, at another time or speed.

Two videos are compared frame by frame. First those pairs are found of which some frames look alike. For each of
them, speeds from 0.9 to 1.1 and every offset are tried, by Fourier transforms along time: the frames that would then
be shown together are compared by their change, the frame minus the mean over the video, since the frames of a camera
that stands still look alike at any offset. The best alignment counts if both the change and the look agree over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videomae.search.frame_prints import RATE, FramePrints

COARSE_SPEEDS = (0.9, 0.95, 1.0, 1.05, 1.1)
FINE_STEPS = (-0.025, -0.0125, 0.0125, 0.025)  # tried around the best of those
MAX_SPEED = 1.125
MIN_OVERLAP_SECONDS = 1.6
MIN_OVERLAP = 0.4  # of the shorter video
MIN_LOOK = 0.8  # mean cosine of frames shown together
MIN_CHANGE = 0.45  # correlation of their changes
STILL_LOOK = 0.97  # where nothing moves, the look alone must agree this well
STILL = 0.001  # mean squared change, of frames of unit length, below which nothing moves
USUAL_SPEED = 0.1  # what a speed of 1.1 must gain, times 0.1, over the original one
ALIKE = 0.8  # cosine from which two frames look alike
MIN_ALIKE = 0.3  # fraction of the frames of the shorter video
BLOCK_VALUES = 5 * 10**7  # similarities in memory at a time

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Copy:
    """Two videos that show the same."""

    one: int
    """Index of the first video."""
    other: int
    """Index of the second, larger."""
    offset_seconds: float
    """What is shown at second t of the first is shown at second `speed * t + offset_seconds` of the second."""
    speed: float
    """Seconds of the second video for each second of the first: 0.9 if it plays 1.1 times as fast."""
    overlap_seconds: float
    """How long they show the same, on the first's clock."""
    score: float
    """Correlation of the changes, or the mean cosine where nothing moves; at most 1."""


def find_copies(videos: Sequence[FramePrints]) -> list[Copy]:
    """Find all pairs of videos that show the same, surest first."""
    found = [
        copy
        for one, other in _candidates([video.values for video in videos])
        if (copy := compare(videos, one, other)) is not None
    ]
    return sorted(found, key=lambda copy: (-copy.score, copy.one, copy.other))


def compare(videos: Sequence[FramePrints], one: int, other: int) -> Copy | None:
    """Align two videos; None if they do not show the same."""
    first, second = videos[one], videos[other]
    alignment = align(first.values, second.values)
    if alignment is None:
        return None
    speed, shift, overlap, score = alignment
    start = second.start_seconds - speed * first.start_seconds
    return Copy(one, other, shift / RATE + start, speed, overlap / RATE, score)


def align(first: FloatArray, second: FloatArray) -> tuple[float, int, int, float] | None:
    """Find how the frames of one video lie in another.

    Args:
        first: `[n, P]` prints.
        second: `[m, P]`.

    Returns:
        Speed, offset and overlap in frames, and the score; None if they do not show the same.
    """
    n, m = len(first), len(second)
    least = max(int(MIN_OVERLAP_SECONDS * RATE), int(MIN_OVERLAP * min(n, m)))
    if min(n, m) < least:
        return None
    changes = [_change(values) for values in (first, second)]
    if min(float(np.square(change).sum(axis=1).mean()) for change in changes) < STILL:
        changes = [first, second]  # every offset fits: the change says nothing
    energies = [np.square(change).sum(axis=1) for change in changes]  # [n], [m]
    length = 1 << int(n * MAX_SPEED + m + 1).bit_length()  # no wrapping round in the transforms
    second_spectrum = np.fft.rfft(changes[1], length, axis=0)  # [l, P]
    second_energy = np.fft.rfft(energies[1], length)
    second_shown = np.fft.rfft(np.ones(m), length)

    def best_shift(speed: float) -> tuple[float, float, int] | None:
        """Return rank, speed and offset of the best offset at one speed."""
        stretched = np.rint(np.arange(round(speed * n)) / speed).astype(np.int64)
        rows = np.minimum(stretched, n - 1)
        both = np.fft.irfft((np.fft.rfft(changes[0][rows], length, axis=0).conj() * second_spectrum).sum(1), length)
        shown = np.fft.rfft(np.ones(len(rows)), length).conj()
        counts = np.rint(np.fft.irfft(shown * second_shown, length))
        energy = np.fft.irfft(np.fft.rfft(energies[0][rows], length).conj() * second_shown, length)
        energy += np.fft.irfft(shown * second_energy, length)
        # Unlike a correlation this falls where the changes differ in size: slow motion looks the same at any speed.
        alike = 2 * both / np.maximum(energy, 1e-6) - USUAL_SPEED * abs(speed - 1.0)
        ranks = np.where(counts >= least, alike * np.sqrt(np.maximum(counts, 0)), -np.inf)
        place = int(ranks.argmax())
        if counts[place] < least:
            return None
        return float(ranks[place]), speed, place if place < m else place - length

    tried = [found for speed in COARSE_SPEEDS if (found := best_shift(speed)) is not None]
    if not tried:
        return None
    middle = max(tried)[1]
    tried += [found for step in FINE_STEPS if (found := best_shift(middle + step)) is not None]
    _, speed, shift = max(tried)
    rows = np.arange(n)
    columns = np.rint(speed * rows).astype(np.int64) + shift
    inside = (columns >= 0) & (columns < m)
    together = first[rows[inside]], second[columns[inside]]
    shown = np.any(together[0], axis=1) & np.any(together[1], axis=1)  # dark frames show nothing
    together = together[0][shown], together[1][shown]
    if shown.sum() < least:
        return None
    score = _score(*together)
    return None if score is None else (speed, shift, int(inside.sum()), score)


def _score(one: FloatArray, other: FloatArray) -> float | None:
    """Return how sure it is that frames shown together are the same; None if they are not."""
    look = float((one * other).sum(axis=1).mean())
    if look < MIN_LOOK:
        return None
    changes = one - one.mean(axis=0), other - other.mean(axis=0)
    energies = [float(np.square(change).sum()) for change in changes]
    if min(energies) / len(one) < STILL:
        return look if look >= STILL_LOOK else None
    correlation = float((changes[0] * changes[1]).sum()) / np.sqrt(energies[0] * energies[1])
    return correlation if correlation >= MIN_CHANGE else None


def _change(values: FloatArray) -> FloatArray:
    """Return frames minus their mean; 0 for those that show nothing."""
    shows = np.any(values, axis=1)
    if not shows.any():
        return values
    change: FloatArray = np.where(shows[:, None], values - values[shows].mean(axis=0), 0.0).astype(np.float32)
    return change


def _candidates(videos: Sequence[FloatArray]) -> Iterator[tuple[int, int]]:
    """Yield pairs of which some frames look alike, the smaller index first.

    Every second frame of the one is compared with all of the other.
    """
    if len(videos) < 2:
        return
    starts = np.cumsum([0, *(len(values) for values in videos)])[:-1]
    every = np.concatenate(videos)  # [F, P]
    counts = np.zeros((len(videos), len(videos)), np.int32)
    halves = [values[::2] for values in videos]
    owners = np.repeat(np.arange(len(videos)), [len(half) for half in halves])
    half = np.concatenate(halves)
    block = max(1, BLOCK_VALUES // len(every))
    for start in range(0, len(half), block):
        similar = half[start : start + block] @ every.T  # [b, F]
        alike = np.maximum.reduceat(similar, starts, axis=1) >= ALIKE  # [b, V]
        np.add.at(counts, owners[start : start + block], alike)
    shortest = np.minimum.outer([len(values) for values in videos], [len(values) for values in videos]) / 2
    pairs = np.argwhere((counts >= MIN_ALIKE * shortest) | (MIN_ALIKE * shortest <= counts.T))
    yield from ((one, other) for one, other in pairs.tolist() if one < other)
