"""What the frames of a video look like, five a second: a few numbers each, to find copies that are shifted in time.

As for `collection.fingerprints`, a frame is gray, without black borders, and the lowest frequencies of its cosine
transform are kept; here each frame by itself. Brightness is left out, and values are replaced by the root of their
size, with their sign: else the two or three lowest frequencies would say it all.

The same is kept of what changes: each frame minus the mean of those around it, of which only what stands out by
more than compression does counts. So a bird that is a pixel of a still scene is told from another one, and noise from
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomae.collection.fingerprints import BLACK, NUM_FREQUENCIES, SIDE, cosines
from videomae.errors import VideoReadError
from videomae.inference.windows import open_as_far_as_whole
from videomae.video.encoded import EncodedVideo
from videomae.video.index_store import IndexStore
from videomae.video.opening import Reader

RATE = 5.0  # frames a second
LONG_SIDE = 96  # pixels of a frame that is looked at
BORDER_FRAMES = 48  # over the whole video, from which borders are told
BORDER_SIDE = 512  # longer side of those: a border that is found a pixel beside the true one shifts the whole frame
MARGIN = 0.02  # of height and width, left out at each edge
CHUNK = 32  # frames read at a time
DARK = 1.0  # contrast (norm of the frequencies over SIDE) below which a frame shows nothing
FADED = 0.25  # of the video's usual contrast, below which it does not either, as in a fade from black
AROUND = 12  # frames before and after one, from whose mean a change is counted
BLOCK = 1024  # frames in memory as floating-point numbers
NOISE = 3.0  # levels of gray that compression changes
NUM_VALUES = NUM_FREQUENCIES**2 - 1  # of a frame, without its brightness
COARSE = np.array([NUM_FREQUENCIES * row + column for row in range(6) for column in range(6)])[1:] - 1
GRAY = np.array([0.299, 0.587, 0.114], np.float32)

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]


class FramePrints(NamedTuple):
    """The frames of one video."""

    values: FloatArray
    """`[n, 143]`, of unit length; 0 for a frame that shows nothing."""
    changes: FloatArray
    """`[n, 143]`, what differs from the frames around, in levels of gray; 0 where nothing does."""
    coarse: FloatArray
    """`[n, 35]`, the very lowest frequencies as they are, in levels of gray, without brightness."""
    start_seconds: float
    """When the first frame is shown."""
    fault: str | None = None
    """Why the video was not read to its end; None: it was."""

    @property
    def seconds(self) -> float:
        """How long the video is."""
        return len(self.values) / RATE


class ContentBox(NamedTuple):
    """What is not black border, in parts of the frame's height and width."""

    top: float
    bottom: float
    left: float
    right: float


WHOLE = ContentBox(0.0, 1.0, 0.0, 1.0)


def frame_prints(video: EncodedVideo, *, store: IndexStore | None = None) -> FramePrints:
    """Look at a video in one pass, after a few frames for its borders.

    Args:
        video: A video; one that is cut off or breaks off is read as far as it goes.
        store: Keeps what is known of the files of a collection.

    Raises:
        VideoReadError: If nothing of it can be read.
    """
    with open_as_far_as_whole(video, store=store, fps=RATE) as (reader, fault):
        box = content_box(_looked_at(reader))
        parts: list[ByteArray] = []
        try:
            for frames in _gray(reader, np.arange(len(reader), dtype=np.int64), LONG_SIDE):
                parts.append(small_frames(frames, box))
        except VideoReadError as error:
            if not parts:
                raise
            fault = str(error)
        return prints_of(np.concatenate(parts), float(reader.timestamps_seconds[0]), fault)


def content_box(frames: ByteArray) -> ContentBox:
    """Tell black borders from `[n, H, W]` frames.

    Frames that are black but for less than a quarter of their height or width stay whole: they are dark.
    """
    brightest = frames.max(axis=0)
    height, width = brightest.shape
    rows = np.flatnonzero(np.percentile(brightest, 98, axis=1) > BLACK)
    columns = np.flatnonzero(np.percentile(brightest, 98, axis=0) > BLACK)
    if len(rows) < height / 4 or len(columns) < width / 4:
        return WHOLE
    return ContentBox(rows[0] / height, (rows[-1] + 1) / height, columns[0] / width, (columns[-1] + 1) / width)


def small_frames(frames: ByteArray, box: ContentBox = WHOLE) -> ByteArray:
    """Return what is inside the borders of `[n, H, W]` frames, `[n, 32, 32]`: the mean over each cell's area."""
    rows = _shares(box.top, box.bottom, frames.shape[1])
    columns = _shares(box.left, box.right, frames.shape[2])
    small: FloatArray = np.einsum("rh,nhw,cw->nrc", rows, frames.astype(np.float32), columns, optimize=True)
    rounded: ByteArray = np.rint(small).astype(np.uint8)
    return rounded


def _shares(first: float, last: float, size: int) -> FloatArray:
    """Return the share of each of `size` pixels in each of 32 cells, `[32, size]`, between two parts of their length.

    A fiftieth is left out at either end, where borders run into what is inside.
    """
    margin = MARGIN * (last - first)
    edges = np.linspace(first + margin, last - margin, SIDE + 1) * size
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares = np.maximum(overlap, 0.0)
    result: FloatArray = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def prints_of(small: ByteArray, start_seconds: float = 0.0, fault: str | None = None) -> FramePrints:
    """Return the prints of the frames of a video, `[n, 32, 32]`."""
    starts = range(0, len(small), BLOCK)
    blocks = [small[start : start + BLOCK] for start in starts]
    frequencies = np.concatenate([_frequencies(block.astype(np.float32)) for block in blocks])
    spread = np.concatenate([block.std(axis=(1, 2), dtype=np.float32) for block in blocks])
    shows = np.linalg.norm(frequencies, axis=1) / SIDE > DARK
    usual = float(np.median(spread[shows])) if shows.any() else 1.0
    shows &= spread > FADED * usual
    rooted = np.sign(frequencies) * np.sqrt(np.abs(frequencies))
    unit = rooted / np.maximum(np.linalg.norm(rooted, axis=1, keepdims=True), 1e-6)
    values: FloatArray = np.where(shows[:, None], unit, 0.0).astype(np.float32)
    coarse = np.where(shows[:, None], frequencies[:, COARSE] / SIDE, 0.0).astype(np.float32)
    gains = np.where(shows, usual / np.maximum(spread, 1e-3), 0.0).astype(np.float32)
    changes = np.concatenate([_changes(small, gains, start) for start in starts])
    return FramePrints(values, changes, coarse, start_seconds, fault)


def _changes(small: ByteArray, gains: FloatArray, start: int) -> FloatArray:
    """Return the changes of a block of frames.

    Args:
        small: `[n, 32, 32]`.
        gains: `[n]`, what brings each frame to the video's usual contrast, so that a fade is no change; 0 where it
            shows nothing.
        start: The first frame of the block.
    """
    first, last = max(start - AROUND, 0), start + BLOCK + AROUND
    frames, gain = small[first:last].astype(np.float32), gains[first:last]
    level = (frames - frames.mean(axis=(1, 2), keepdims=True)) * gain[:, None, None]
    change = (level - _mean_around(level, gain > 0))[start - first : start - first + BLOCK]
    change = np.sign(change) * np.maximum(np.abs(change) - np.float32(NOISE), np.float32(0.0))
    change[gains[start : start + BLOCK] == 0] = 0.0
    result: FloatArray = (_frequencies(change) / SIDE).astype(np.float32)
    return result


def _mean_around(level: FloatArray, shows: NDArray[np.bool_]) -> FloatArray:
    """Return for each of `[n, 32, 32]` frames the mean of those around it that show something."""
    n = len(level)
    sums = np.concatenate([np.zeros_like(level[:1], np.float64), np.cumsum(level, axis=0, dtype=np.float64)])
    counts = np.concatenate([[0], np.cumsum(shows)])
    first, last = np.maximum(np.arange(n) - AROUND, 0), np.minimum(np.arange(n) + AROUND + 1, n)
    mean = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)[:, None, None]
    result: FloatArray = mean.astype(np.float32)
    return result


def _frequencies(frames: FloatArray) -> FloatArray:
    """Return the lowest frequencies of `[n, 32, 32]` frames but the mean, `[n, 143]`."""
    basis = cosines()
    result: FloatArray = (basis @ frames @ basis.T).reshape(len(frames), -1)[:, 1:].astype(np.float32, copy=False)
    return result


def _looked_at(reader: Reader) -> ByteArray:
    """Return gray frames from all over a video; of one that breaks off, from its beginning."""
    n = len(reader)
    indices = np.unique(np.linspace(0, n - 1, min(n, BORDER_FRAMES)).round().astype(np.int64))
    try:
        return np.concatenate(list(_gray(reader, indices, BORDER_SIDE)))
    except VideoReadError:
        return next(_gray(reader, np.arange(min(n, CHUNK), dtype=np.int64), BORDER_SIDE))


def _gray(reader: Reader, indices: NDArray[np.int64], long_side: int) -> Iterator[ByteArray]:
    """Yield frames as gray pictures of at most a number of pixels, some at a time; none is enlarged."""
    width, height = reader.info.width, reader.info.height
    scale = min(long_side / max(width, height), 1.0)
    size = (max(8, round(height * scale)), max(8, round(width * scale)))
    for start in range(0, len(indices), CHUNK):
        frames = reader.frames(indices[start : start + CHUNK], size=size)  # [b, h, w, 3]
        yield np.rint(frames.astype(np.float32) @ GRAY).astype(np.uint8)
