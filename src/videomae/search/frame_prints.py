"""What the frames of a video look like, five a second: a few numbers each, to find copies that are shifted in time.

As for `collection.fingerprints`, a frame is gray, without black borders, and the lowest frequencies of its cosine
transform are kept; here each frame by itself. Brightness is left out, and values are replaced by the root of their
size, with their sign: else the two or three lowest frequencies would say it all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videomae.collection.fingerprints import NUM_FREQUENCIES, SIDE, cosines, without_borders
from videomae.inference.windows import open_as_far_as_whole
from videomae.video.encoded import EncodedVideo
from videomae.video.index_store import IndexStore
from videomae.video.opening import Reader

RATE = 5.0  # frames a second
LONG_SIDE = 96  # pixels of a frame that is looked at
BORDER_FRAMES = 48  # over the whole video, from which borders are told
CHUNK = 32  # frames read at a time
DARK = 1.0  # contrast (norm of the frequencies over SIDE) below which a frame shows nothing, as in a fade from black
GRAY = np.array([0.299, 0.587, 0.114], np.float32)

FloatArray = NDArray[np.float32]


class FramePrints(NamedTuple):
    """The frames of one video."""

    values: FloatArray
    """`[n, 143]`, of unit length; 0 for a frame that shows nothing."""
    start_seconds: float
    """When the first frame is shown."""

    @property
    def seconds(self) -> float:
        """How long the video is."""
        return len(self.values) / RATE


def frame_prints(video: EncodedVideo, *, store: IndexStore | None = None) -> FramePrints:
    """Look at a video in one pass, after a few frames for its borders.

    Args:
        video: A video; one that is cut off is read as far as it goes.
        store: Keeps what is known of the files of a collection.

    Raises:
        VideoReadError: If nothing of it can be read.
    """
    with open_as_far_as_whole(video, store=store, fps=RATE) as (reader, _):
        n = len(reader)
        looked = np.unique(np.linspace(0, n - 1, min(n, BORDER_FRAMES)).round().astype(np.int64))
        top, bottom, left, right = content_box(np.concatenate(list(_gray(reader, looked))))
        parts = [
            prints_of(frames[:, top:bottom, left:right]) for frames in _gray(reader, np.arange(n, dtype=np.int64))
        ]
        return FramePrints(np.concatenate(parts), float(reader.timestamps_seconds[0]))


def content_box(frames: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of what is not black border in `[n, H, W]` frames."""
    height, width = frames.shape[1:]
    numbered = np.arange(height * width, dtype=np.int64).reshape(1, height, width)
    inside = without_borders(frames, cut=numbered)[0]
    top, left = divmod(int(inside[0, 0]), width)
    bottom, right = divmod(int(inside[-1, -1]), width)
    return top, bottom + 1, left, right + 1


def prints_of(frames: NDArray[np.uint8]) -> FloatArray:
    """Return the prints of gray frames `[n, H, W]`, `[n, 143]`."""
    small = np.stack([np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BOX)) for one in frames])
    basis = cosines()
    values = (basis @ small.astype(np.float32) @ basis.T).reshape(len(frames), NUM_FREQUENCIES**2)[:, 1:]
    shows = np.linalg.norm(values, axis=1) / SIDE > DARK
    rooted = np.sign(values) * np.sqrt(np.abs(values))
    unit = rooted / np.maximum(np.linalg.norm(rooted, axis=1, keepdims=True), 1e-6)
    result: FloatArray = np.where(shows[:, None], unit, 0.0).astype(np.float32)
    return result


def _gray(reader: Reader, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Yield frames as gray pictures of at most `LONG_SIDE` pixels, some at a time."""
    width, height = reader.info.width, reader.info.height
    scale = LONG_SIDE / max(width, height)
    size = (max(8, round(height * scale)), max(8, round(width * scale)))
    for start in range(0, len(indices), CHUNK):
        frames = reader.frames(indices[start : start + CHUNK], size=size)  # [b, h, w, 3]
        yield np.rint(frames.astype(np.float32) @ GRAY).astype(np.uint8)
