"""Video files from arrays: every file is complete or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from videomae.errors import ConfigError

if TYPE_CHECKING:
    from av.video.stream import VideoStream

ByteArray: TypeAlias = NDArray[np.uint8]

CONTAINER_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""What can be written, by the ending of the file's name."""


def write_video(
    path: str | os.PathLike[str],
    frames: ByteArray | Iterable[ByteArray],
    *,
    frame_rate: float = 25.0,
    codec: Literal["libx264", "mpeg4"] | None = None,
    quality: int = 18,
    keyframe_interval: int = 12,
) -> None:
    """Encode frames into a video file.

    The file is written under another name and renamed when it is complete; a failure leaves whatever was there
    before, and nothing else. The same frames and settings give the same bytes on every computer with the same FFmpeg.

    Args:
        path: The file; its ending chooses the container: .mp4, .m4v, .mov or .mkv.
        frames: `[T, H, W, 3]` uint8 RGB, or the frames one by one; at least one, height and width even (the codecs
            store color at half resolution).
        frame_rate: Frames per second.
        codec: libx264 (H.264) or mpeg4 (MPEG-4 part 2); None takes libx264 where this FFmpeg has it, else mpeg4.
        quality: 1 (nearly lossless) to 51 (worst), in steps of H.264's constant rate factor.
        keyframe_interval: Frames from one keyframe to the next at most; reading at random positions is faster the
            shorter it is, and the file larger.

    Raises:
        ConfigError: If the frames, the ending or a setting cannot be used, or the folder does not exist.
        OSError: If the disk refuses.
    """
    target = Path(path)
    if target.suffix.lower() not in CONTAINER_FORMATS:
        raise ConfigError(
            f"{target} cannot be written as video: its name must end with {', '.join(CONTAINER_FORMATS)}"
        )
    if not target.parent.is_dir():
        raise ConfigError(f"{target} cannot be written: its folder does not exist; create {target.parent} first")
    if not 0.001 <= frame_rate <= 1000:
        raise ConfigError(f"frame_rate is {frame_rate:g}; it is in frames per second, 0.001 to 1000")
    if not 1 <= quality <= 51:
        raise ConfigError(f"quality is {quality}; it goes from 1 (nearly lossless) to 51 (worst)")
    if keyframe_interval < 1:
        raise ConfigError(f"keyframe_interval is {keyframe_interval}; it is a number of frames, at least 1")
    checked = _checked_frames(target, frames)
    first = next(checked, None)
    if first is None:
        raise ConfigError(f"{target} cannot be written: there are no frames")
    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")  # own name: two processes may write one file
    codec = codec or _best_codec()
    rate = Fraction(frame_rate).limit_denominator(1001)  # 29.97 and its like are multiples of 1/1001
    try:
        _encode(
            partial,
            chain((first,), checked),
            container_format=CONTAINER_FORMATS[target.suffix.lower()],
            rate=rate,
            codec=codec,
            options={"g": str(keyframe_interval)} | _quality_options(codec, quality),
        )
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _encode(
    path: Path,
    frames: Iterator[ByteArray],
    *,
    container_format: str,
    rate: Fraction,
    codec: str,
    options: dict[str, str],
) -> None:
    import av

    # bitexact: no random identifiers. faststart: the index in front, so that a reader need not fetch the end of the
    # file first.
    layout = {"fflags": "+bitexact"} | ({} if container_format == "matroska" else {"movflags": "+faststart"})
    with av.open(str(path), "w", format=container_format, options=layout) as container:
        stream = cast("VideoStream", container.add_stream(codec, rate=rate, options=options))
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # x264's output depends on the number of threads
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
            encoded = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            encoded.pts = number
            encoded.time_base = 1 / rate
            container.mux(stream.encode(encoded))
        container.mux(stream.encode(None))


def _best_codec() -> Literal["libx264", "mpeg4"]:
    import av

    return "libx264" if "libx264" in av.codecs_available else "mpeg4"


def _quality_options(codec: str, quality: int) -> dict[str, str]:
    """Return the encoder's options for a rate factor."""
    if codec == "libx264":
        # mbtree (bits saved by looking ahead) gives other bytes from call to call and from processor to processor.
        return {"crf": str(quality), "mbtree": "0"}
    # MPEG-4's quantiser is the step size itself, H.264's factor six times its logarithm: 12 is a step of 1.
    step = str(min(max(round(2 ** ((quality - 12) / 6)), 1), 31))
    return {"qmin": step, "qmax": step}


def _checked_frames(target: Path, frames: Iterable[ByteArray]) -> Iterator[ByteArray]:
    """Pass frames on as long as they are images of one size."""
    shape: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            found = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise ConfigError(f"frame {number} of {target} is {found}; frames are uint8 arrays [H, W, 3]")
        height, width, _ = frame.shape
        if height % 2 or width % 2 or not frame.size:
            raise ConfigError(
                f"the frames of {target} are {width}x{height}; video needs even sizes: crop or pad by one pixel"
            )
        if shape is not None and frame.shape != shape:
            raise ConfigError(
                f"frame {number} of {target} is {width}x{height}, the first is {shape[1]}x{shape[0]}: "
                "all frames of a video have one size"
            )
        shape = frame.shape
        yield frame
