"""A video with the heat map of each moment laid over it: where the reconstruction error is unusual."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomae.anomaly.run import VideoScores
from videomae.explain.overlay import enlarged, overlaid
from videomae.video.opening import Reader, open_reader
from videomae.video.write import write_video

Frames = NDArray[np.uint8]
FRAME_RATE = 10.0
CHUNK = 16  # frames in memory
SHORT_SIDE = 224  # pixels
FULL = 6.0  # standard deviations that are shown brightest
EDGE = 4  # pixels of the frame around moments above the threshold


def write_heat_video(path: Path, scores: VideoScores) -> None:
    """Write it; moments above the threshold have a bright edge.

    Args:
        path: .mp4, .m4v, .mov or .mkv.
        scores: Of the video, which must still be there.

    Raises:
        VideoReadError: If the video cannot be read.
        ConfigError: If the name ends otherwise.
    """
    with open_reader(scores.path, fps=FRAME_RATE) as reader:
        write_video(path, heat_frames(reader, scores), frame_rate=FRAME_RATE)


def heat_frames(reader: Reader, scores: VideoScores) -> Iterator[Frames]:
    """Yield the frames, `[H, W, 3]`, each under the map of the nearest window."""
    middles = (scores.starts + scores.ends) / 2
    scale = SHORT_SIDE / min(reader.info.height, reader.info.width)
    size = tuple(2 * round(side * scale / 2) for side in (reader.info.height, reader.info.width))
    times = reader.timestamps_seconds
    for start in range(0, len(reader), CHUNK):
        indices = np.arange(start, min(start + CHUNK, len(reader)))
        frames = reader.frames(indices, size=size)  # type: ignore[arg-type]
        for frame, second in zip(frames, times[indices], strict=True):
            window = int(np.abs(middles - second).argmin())
            yield heat_frame(frame, scores, window)


def heat_frame(frame: Frames, scores: VideoScores, window: int) -> Frames:
    """Return a frame under the map of a window; the map covers the square in the middle, which the model sees."""
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    shown = frame.copy()
    heat = np.maximum(scores.scores.maps[window], 0.0)[None]
    square = frame[None, top : top + side, left : left + side]
    shown[top : top + side, left : left + side] = overlaid(square, heat, largest=FULL)[0][:side, :side]
    if scores.scores.score[window] > scores.threshold:
        for edge in (shown[:EDGE], shown[-EDGE:], shown[:, :EDGE], shown[:, -EDGE:]):
            edge[:] = (255, 80, 40)
    result: Frames = enlarged(shown[None])[0]
    return result
