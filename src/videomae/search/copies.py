"""Videos that show the same, in part or whole, at another time or speed.

Two videos are compared frame by frame. First those pairs are found of which some frames look alike. For each of them,
speeds from 0.9 to 1.1 and every offset are tried, by Fourier transforms along time: the frames that would then be
shown together are compared by what changes in them, since the frames of a camera that stands still look alike at any
offset. The best alignment counts if the changes agree over it.

Where hardly anything changes, as in minutes of an empty street, nothing tells the time, and two recordings of one
view are as good as copies. Then the frames as they are must agree, to less than light and weather mostly change
between two recordings. Such pairs are marked and rank below all others: no figure tells them from copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomae.search.frame_prints import RATE, FramePrints

COARSE_SPEEDS = (0.9, 0.925, 0.95, 0.975, 1.0, 1.025, 1.05, 1.075, 1.1)
FINE_STEPS = (-0.0125, 0.0125)  # tried around the best of those
MAX_SPEED = 1.1125
MIN_OVERLAP_SECONDS = 1.6
MIN_OVERLAP = 0.4  # of the shorter video
USUAL_SPEED = 0.1  # what a speed of 1.1 must gain, times 0.1, over the original one
ALIKE = 0.8  # cosine from which two frames look alike
MIN_ALIKE = 0.15  # fraction of the frames of the shorter video
BLOCK_VALUES = 5 * 10**7  # similarities in memory at a time

# Measured on 396 copies of 33 videos other than those in docs/search.md, and on 769 pairs of different videos whose
# frames look alike (experiments/footage/copies.py). Of pairs in which something changes, the changes of 95 of 100
# copies and of none of the others correlate by 0.35. Where nothing does, 91 of 100 copies and none of the others
# differ by less than 0.6 levels of gray: the nearest others, of one camera on one day, by 0.66. That does not carry
# over: among 365 other recordings 170 pairs differ by less, so such pairs are marked (`Copy.is_still`).
MIN_LOOK = 0.7  # mean cosine of frames shown together
ACTIVE = 0.01  # mean squared change, below which nothing changes
MIN_CHANGE = 0.35  # correlation of the changes
DOUBTFUL_CHANGE = 0.2  # from here on they count if the frames as they are agree as well
# The changes must also agree in most of the frames that change. A single great one is not enough: two recordings of a
# thermal camera correlated by 0.98, each with one adjustment of the camera in it. Of 166 copies of 30 videos all but
# one reach this, and 17 of 58 pairs of 365 recordings that did without.
MIN_AGREEMENT = 0.5  # median cosine
STILL_SCORE = 0.2  # the highest of two still scenes
STILL_DIFFERENCE = 0.6  # levels of gray
LIVELY = 1.0  # mean squared change; below it a scene is still but for something small
LIVELY_DIFFERENCE = (
    0.8  # levels of gray, in such a scene: two birds over one field may fly alike, the light is another
)

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
    """Correlation of the changes, at most 1; where nothing changes at most 0.2, less what the frames differ by."""
    is_still: bool
    """True if nothing changes: they may also be two recordings of one view."""


class Alignment(NamedTuple):
    """How the frames of one video lie in another."""

    speed: float
    """Frames of the second for each of the first."""
    shift: float
    """Frame n of the first is frame `speed * n + shift` of the second."""
    overlap: int
    """Frames of the first that are in the second."""
    score: float
    """As of `Copy`."""
    is_still: bool
    """As of `Copy`."""


def find_copies(videos: Sequence[FramePrints]) -> Iterator[Copy]:
    """Yield all pairs of videos that show the same, as they are found."""
    for one, other in _candidates([video.values for video in videos]):
        first, second = videos[one], videos[other]
        found = align(first, second)
        if found is not None:
            start = second.start_seconds - found.speed * first.start_seconds
            offset, overlap = found.shift / RATE + start, found.overlap / RATE
            yield Copy(one, other, offset, found.speed, overlap, found.score, found.is_still)


def align(first: FramePrints, second: FramePrints) -> Alignment | None:
    """Find how the frames of one video lie in another; None if they do not show the same."""
    n, m = len(first.values), len(second.values)
    least = max(int(MIN_OVERLAP_SECONDS * RATE), int(MIN_OVERLAP * min(n, m)))
    if min(n, m) < least:
        return None
    changes = first.changes, second.changes
    if min(_energy(one) for one in changes) < ACTIVE:
        changes = _without_mean(first.values), _without_mean(second.values)  # a drift of the light may tell the time
    place = _best_place(*changes, least=least)
    if place is None:
        return None
    speed, shift = place
    rows = np.arange(n)
    columns = np.rint(speed * rows + shift).astype(np.int64)
    inside = (columns >= 0) & (columns < m)
    rows, columns = rows[inside], columns[inside]
    overlap = len(rows)
    shown = np.any(first.values[rows], axis=1) & np.any(second.values[columns], axis=1)  # dark frames show nothing
    rows, columns = rows[shown], columns[shown]
    if len(rows) < least:
        return None
    found = _score(first, rows, second, columns)
    return None if found is None else Alignment(speed, shift, overlap, *found)


def _score(
    first: FramePrints, rows: NDArray[np.int64], second: FramePrints, columns: NDArray[np.int64]
) -> tuple[float, bool] | None:
    """Return how sure it is that frames shown together are the same, and if nothing moves; None if they are not."""
    look = float((first.values[rows] * second.values[columns]).sum(axis=1).mean())
    if look < MIN_LOOK:
        return None
    one, other = first.changes[rows], second.changes[columns]
    energies = [_energy(change) for change in (one, other)]
    # The median: a few frames may be faded, or have something in them for a moment.
    apart = first.coarse[rows] - second.coarse[columns]
    difference = float(np.median(np.sqrt(np.square(apart).sum(axis=1))))
    if min(energies) < ACTIVE:
        if difference > STILL_DIFFERENCE:
            return None
        return STILL_SCORE * (1.0 - difference / (2 * STILL_DIFFERENCE)), True
    correlation = float((one * other).sum()) / len(rows) / float(np.sqrt(energies[0] * energies[1]))
    if _agreement(one, other) < MIN_AGREEMENT:
        return None
    if min(energies) < LIVELY and difference > LIVELY_DIFFERENCE:
        return None
    least = DOUBTFUL_CHANGE if difference <= STILL_DIFFERENCE else MIN_CHANGE
    return (correlation, False) if correlation >= least else None


def _agreement(one: FloatArray, other: FloatArray) -> float:
    """Return the median cosine of two videos' changes, over the frames in which one of them changes."""
    sizes = np.square(one).sum(axis=1), np.square(other).sum(axis=1)  # [n]
    changes = np.maximum(*sizes) > ACTIVE
    cosines = (one * other).sum(axis=1) / np.sqrt(np.maximum(sizes[0] * sizes[1], 1e-12))
    return float(np.median(cosines[changes]))


def _best_place(one: FloatArray, other: FloatArray, *, least: int) -> tuple[float, float] | None:
    """Return speed and shift of the best of all alignments that overlap by at least some frames."""
    rank_at = _ranks(one, other, least=least)
    tried = [found for speed in COARSE_SPEEDS if (found := rank_at(speed)) is not None]
    if not tried:
        return None
    middle = max(tried)[1]
    tried += [found for step in FINE_STEPS if (found := rank_at(middle + step)) is not None]
    _, speed, shift = max(tried)
    return speed, shift


def _ranks(one: FloatArray, other: FloatArray, *, least: int) -> Callable[[float], tuple[float, float, float] | None]:
    """Return what tells rank, speed and shift of the best alignment at a speed."""
    n, m = len(one), len(other)
    length = _fast_length(int(n * MAX_SPEED) + m + 1)  # no wrapping round in the transforms
    energy = np.square(one).sum(axis=1)  # [n]
    other_spectrum = np.fft.rfft(other, length, axis=0)  # [l, P]
    other_energy = np.fft.rfft(np.square(other).sum(axis=1), length)
    other_shown = np.fft.rfft(np.ones(m, np.float32), length)

    def rank_at(speed: float) -> tuple[float, float, float] | None:
        stretched = np.rint(np.arange(round(speed * n)) / speed).astype(np.int64)
        rows = np.minimum(stretched, n - 1)
        spectrum = np.fft.rfft(one[rows], length, axis=0).conj() * other_spectrum
        both = np.fft.irfft(spectrum.sum(axis=1), length)
        shown = np.fft.rfft(np.ones(len(rows), np.float32), length).conj()
        counts = np.rint(np.fft.irfft(shown * other_shown, length))
        energies = np.fft.irfft(np.fft.rfft(energy[rows], length).conj() * other_shown, length)
        energies += np.fft.irfft(shown * other_energy, length)
        # Unlike a correlation this falls where the changes differ in size: slow motion looks the same at any speed.
        alike = 2 * both / np.maximum(energies, 1e-6) - USUAL_SPEED * abs(speed - 1.0)
        ranks = np.where(counts >= least, alike * np.sqrt(np.maximum(counts, 0)), -np.inf)
        place = int(ranks.argmax())
        if counts[place] < least:
            return None
        around = ranks[[place - 1, place, (place + 1) % length]]
        return float(ranks[place]), speed, (place if place < m else place - length) + _between(around)

    return rank_at


def _fast_length(least: int) -> int:
    """Return a length that transforms are fast for: a power of two, or three or five times one."""
    return min(odd << max(0, (-(-least // odd) - 1).bit_length()) for odd in (1, 3, 5))


def _between(around: NDArray[np.floating]) -> float:
    """Return where between three neighbouring places the top of a parabola through them lies, from the middle."""
    before, top, after = (float(one) for one in around)
    bend = before - 2 * top + after
    return 0.0 if not np.isfinite(bend) or bend >= 0 else min(max((before - after) / (2 * bend), -0.5), 0.5)


def _energy(changes: FloatArray) -> float:
    return float(np.square(changes).sum(axis=1).mean())


def _without_mean(values: FloatArray) -> FloatArray:
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
