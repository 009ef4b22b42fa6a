"""The video with the labels of its events burnt in: what is on, how sure it is, and where in the video that is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videomae.errors import ConfigError
from videomae.inference.files import PLACEHOLDER, check_name_for_each, check_output
from videomae.timeline.events import Event
from videomae.timeline.timeline import Timeline
from videomae.video.opening import Reader, ResampledReader
from videomae.video.write import CONTAINER_FORMATS, write_video

ByteArray = NDArray[np.uint8]
TEXT_OF_HEIGHT = 1 / 18  # height of a line of text as a part of the frame's
MIN_TEXT_PIXELS = 11
PAPER, INK, MUTED, BAR = (16, 20, 27), (255, 255, 255), (170, 178, 189), (106, 166, 255)


def check_annotated(name: str, *, num_videos: int) -> None:
    """Check that a file name is one of a video that can be written, for each of the videos.

    Raises:
        ConfigError: If it ends otherwise, its folder is missing, or it is one name for several videos.
    """
    check_name_for_each("annotate", name, num_videos)
    check_output(name.replace(PLACEHOLDER, "video"))
    if Path(name).suffix.lower() not in CONTAINER_FORMATS:
        raise ConfigError(f"annotate is {name!r}; its name must end with {', '.join(CONTAINER_FORMATS)}")


def annotate_video(reader: Reader, timeline: Timeline, output: Path) -> None:
    """Write a video again with its events in it, without sound, at an even frame rate; reads it a second time.

    Args:
        reader: The video, as it was read for the timeline.
        timeline: Of it.
        output: The file, .mp4, .m4v, .mov or .mkv; it is complete or not there.

    Raises:
        VideoReadError: If a frame cannot be read.
        ConfigError: If the file cannot be of that name.
        OSError: If the disk refuses.
    """
    rate = min(max(timeline.video.frame_rate, 1.0), 120.0)
    # Frames that lie at uneven times are put at even ones, so that labels and picture stay together.
    even = reader if isinstance(reader, ResampledReader) else ResampledReader(reader, rate)
    times = even.timestamps_seconds
    frames = (
        drawn(frame, scores_at(timeline, float(seconds)), seconds=float(seconds))
        for frame, seconds in zip(even.all_frames(), times, strict=False)
    )
    write_video(output, frames, frame_rate=rate)


def scores_at(timeline: Timeline, seconds: float) -> dict[str, float]:
    """Return the events that are on at a time, by label, with their scores then, between windows in a line."""
    on: list[Event] = [one for one in timeline.events if one.start_seconds <= seconds < one.end_seconds]
    centres = timeline.seconds
    return {one.label: float(np.interp(seconds, centres, timeline.curves[:, one.label_id])) for one in on}


def drawn(frame: ByteArray, scores: Mapping[str, float], *, seconds: float) -> ByteArray:
    """Draw labels and the time into a frame.

    Args:
        frame: uint8 `[H, W, 3]`.
        scores: What is on, in [0, 1].
        seconds: The time to show.

    Returns:
        uint8 `[H, W, 3]`, a copy with even height and width, as codecs need.
    """
    height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
    image = Image.fromarray(frame[:height, :width])
    pixels = max(MIN_TEXT_PIXELS, round(height * TEXT_OF_HEIGHT))
    draw, font, line = ImageDraw.Draw(image), ImageFont.load_default(pixels), round(pixels * 1.5)
    for row, text in enumerate([clock(seconds), *(f"{label} {score:.0%}" for label, score in scores.items())]):
        top = row * line
        draw.rectangle((0, top, font.getlength(text) + pixels, top + line), fill=PAPER)
        if row:
            score = list(scores.values())[row - 1]
            draw.rectangle((0, top + line - 3, width * score, top + line - 1), fill=BAR)
        draw.text((pixels / 2, top + pixels / 5), text, fill=INK if row else MUTED, font=font)
    return np.asarray(image)


def clock(seconds: float, *, decimal: str = ".") -> str:
    """Return `h:mm:ss.mmm`, whole milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest // 1000:02}{decimal}{rest % 1000:03}"
