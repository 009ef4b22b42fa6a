"""A video with the heat map of each moment laid over it: where the reconstruction error is unusual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomae.anomaly.run import VideoScores
from videomae.errors import ConfigError, RunError
from videomae.explain.overlay import colored, enlarged
from videomae.inference.files import PLACEHOLDER, check_name_for_each, check_output, output_names
from videomae.inference.windows import open_as_far_as_whole
from videomae.video.opening import Reader
from videomae.video.write import CONTAINER_FORMATS, write_video

Frames = NDArray[np.uint8]
FRAME_RATE = 10.0
CHUNK = 16  # frames in memory
SHORT_SIDE = 224  # pixels
FULL = 6.0  # standard deviations that are shown brightest, or more in a video where all is unusual
EDGE = 4  # pixels of the frame around moments above the threshold


def check_heat_video(name: str, *, num_videos: int) -> None:
    """Check that a file name is one of a video that can be written, for each of the videos.

    Raises:
        ConfigError: If it ends otherwise, its folder is missing, or it is one name for several videos.
    """
    check_name_for_each("heatmap", name, num_videos)
    check_output(name.replace(PLACEHOLDER, "video"))
    if Path(name).suffix.lower() not in CONTAINER_FORMATS:
        raise ConfigError(f"heatmap is {name!r}; its name must end with {', '.join(CONTAINER_FORMATS)}")


def write_heat_videos(name: str, scored: Sequence[VideoScores], *, videos: Sequence[str]) -> list[Path]:
    """Write a video of each of the scored ones; moments above the threshold have a bright edge.

    Args:
        name: The file, .mp4, .m4v, .mov or .mkv, with `{video}` in it where there are several.
        scored: The videos, which must still be there.
        videos: All videos of the call, in order; see `output_names`.

    Returns:
        The files.

    Raises:
        VideoReadError: If a video cannot be read.
        RunError: If the disk refuses.
    """
    targets = output_names(name, videos)
    written = []
    for scores in scored:
        target = Path(targets[scores.path])
        try:
            with open_as_far_as_whole(scores.path, fps=FRAME_RATE) as (reader, _):
                write_video(target, heat_frames(reader, scores), frame_rate=FRAME_RATE)
        except OSError as error:
            raise RunError(f"{target} cannot be written ({error.strerror or error}): free space") from None
        written.append(target)
    return written


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
    full = max(FULL, float(np.quantile(scores.scores.maps, 0.98)))
    square = frame[None, top : top + side, left : left + side]
    shown[top : top + side, left : left + side] = colored(square, heat, largest=full)[0]
    if scores.scores.score[window] > scores.threshold:
        for edge in (shown[:EDGE], shown[-EDGE:], shown[:, :EDGE], shown[:, -EDGE:]):
            edge[:] = (255, 80, 40)
    result: Frames = enlarged(shown[None])[0]
    return result
