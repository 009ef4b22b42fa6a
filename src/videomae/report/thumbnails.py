"""Small moving pictures of videos in a page: animated WebP in a data address, each of bounded size."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from videomae.errors import VideoReadError
from videomae.video.opening import open_reader
from videomae.video.sampling import ClipConfig, clip_indices

THUMBNAIL_PIXELS = 160  # longer side
MAX_FRAMES = 16
FRAME_MILLISECONDS = 120  # slow enough to see what happens, whatever the rate of the video
MAX_BYTES = 150_000  # of one thumbnail; a noisy one is encoded again, more coarsely
QUALITIES = (60, 35, 15, 5)


def moving_thumbnail(path: Path, clip: ClipConfig) -> str | None:
    """Return the middle clip of a video as a data address, an animated WebP of at most `MAX_BYTES`.

    Args:
        path: The video, or a part of one; see `open_reader`.
        clip: Which frames a model sees of it; of long clips every second, third, ... is shown.

    Returns:
        None where the video cannot be read, or does not get small enough.
    """
    try:
        with open_reader(path, fps=clip.fps) as reader:
            indices = clip_indices(len(reader), clip, num_views=1)[0]  # [T]
            indices = indices[:: -(-len(indices) // MAX_FRAMES)]
            height, width = reader.info.height, reader.info.width
            scale = min(1.0, THUMBNAIL_PIXELS / max(height, width))
            size = (max(round(height * scale), 1), max(round(width * scale), 1))
            frames = reader.frames(np.asarray(indices), size=size)  # [T, h, w, 3]
    except VideoReadError:
        return None
    images = [Image.fromarray(frame) for frame in frames]
    for quality in QUALITIES:
        stream = io.BytesIO()
        images[0].save(
            stream,
            "WEBP",
            save_all=True,
            append_images=images[1:],
            duration=FRAME_MILLISECONDS,
            loop=0,
            quality=quality,
        )
        if stream.tell() <= MAX_BYTES:
            return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return None
