"""One video encoded again for training: smaller, turned, without sound, quick to read at random positions.

Every frame is kept and shown at its own time. Runs in processes of its own and imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter

from videomae.atomic import atomic_path
from videomae.collection.configs import PrepareConfig
from videomae.errors import VideoReadError
from videomae.video.decode import VideoReader
from videomae.video.encoded import open_container
from videomae.video.index_store import IndexStore
from videomae.video.opening import open_reader
from videomae.video.rgb import Orientation, frame_orientation
from videomae.video.stream import VideoSource


class PrepareJob(NamedTuple):
    """What to encode."""

    source: Path
    """A video."""
    target: Path
    """The .mp4 file to write; where the video is split, `part_path` of it for each part."""
    config: PrepareConfig
    """How."""
    store: IndexStore | None = None
    """Keeps what is known of the files that are written."""


class PreparedPart(NamedTuple):
    """A file that was written."""

    path: Path
    """The file."""
    num_frames: int
    """Its frames."""
    size_bytes: int
    """Its size."""


class SizedFrame(NamedTuple):
    """A frame as it is encoded."""

    picture: VideoFrame
    """Turned and scaled, yuv420p."""
    tick: int
    """When it is shown after the first frame, in units of the time base."""
    base: Fraction
    """The time base, seconds."""


class _NoTimesError(Exception):
    """A frame has no time, or not a later one than the frame before. Never leaves this file."""


def prepare_file(job: PrepareJob) -> list[PreparedPart]:
    """Encode a video; each file is complete or not there.

    Raises:
        VideoReadError: If the video cannot be read, or what was written does not have its frames.
        OSError: If a file cannot be written.
    """
    with open_reader(job.source) as reader:
        times = reader.timestamps_seconds
        starts = part_starts(times.tolist(), job.config.split_seconds)
        size = prepared_size(reader.info.width, reader.info.height, job.config.short_side)
        rate = Fraction(reader.info.frame_rate or 25.0).limit_denominator(1001)
    targets = [job.target] if len(starts) == 1 else [part_path(job.target, number) for number in range(len(starts))]
    job.target.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _encode(job, targets, starts, size, rate, is_timed=True)
    except _NoTimesError:
        return _encode(job, targets, starts, size, rate, is_timed=False)


def part_starts(times: list[float], split_seconds: float | None) -> list[float]:
    """Return when each part of a video begins, in seconds: as few parts of equal length as `split_seconds` allows."""
    usual = times[-1] / (len(times) - 1) if len(times) > 1 else 0.0
    length = times[-1] + usual
    if split_seconds is None or length <= split_seconds + 1e-6:
        return [0.0]
    number = min(math.ceil(length / split_seconds - 1e-6), len(times))
    bounds = [part * length / number for part in range(number)]
    first = [next((time for time in times if time >= bound - 1e-6), math.inf) for bound in bounds]
    # Where frames lie far apart, a part may have none.
    return [0.0, *(bound for bound, (one, other) in zip(bounds[1:], pairwise(first), strict=True) if one < other)]


def part_path(target: Path, number: int) -> Path:
    """Return the file of a part of a video that is split."""
    return target.with_name(f"{target.stem}_part{number:04}{target.suffix}")


def prepared_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return width and height of the encoded frames: even, the shorter `short_side` at most, never enlarged."""
    scale = min(short_side / min(width, height), 1.0)
    # Rounded down where nothing is scaled, so that no frame is enlarged; else to the nearest.
    halves = [side // 2 if scale == 1.0 else round(side * scale / 2) for side in (width, height)]
    return max(halves[0], 1) * 2, max(halves[1], 1) * 2


def sized_frames(path: Path, size: tuple[int, int], *, rate: Fraction, is_timed: bool = True) -> Iterator[SizedFrame]:
    """Decode a video from end to end, turn its frames and scale them.

    Args:
        path: A video.
        size: Width and height after the turn.
        rate: Frames a second, where the times of the file are not used.
        is_timed: Whether they are used.

    Raises:
        VideoReadError: If the file cannot be read.
    """
    reformatter = VideoReformatter()
    first: int | None = None
    last = -1
    for number, (frame, base) in enumerate(_decoded(path)):
        tick = number
        if is_timed and base is not None:
            if frame.pts is None or (first is not None and frame.pts - first <= last):
                raise _NoTimesError
            first = frame.pts if first is None else first
            tick = last = frame.pts - first
        orientation = frame_orientation(frame)
        width, height = size[::-1] if orientation.transpose else size
        picture = reformatter.reformat(
            frame, width=width, height=height, format="yuv420p", interpolation="BICUBIC", threads=1
        )
        if orientation != Orientation():
            picture = _turned(picture, orientation)
        picture.pict_type = PictureType.NONE  # else the encoder would repeat the types of the source's frames
        picture.pts = tick
        unit = base if is_timed and base is not None else 1 / rate
        picture.time_base = unit
        yield SizedFrame(picture, tick, unit)


def _decoded(path: Path) -> Iterator[tuple[VideoFrame, Fraction | None]]:
    """Yield the frames of a video with their time base; None: they are evenly spaced."""
    with open_reader(path) as reader:
        if not isinstance(reader, VideoReader):  # a folder of pictures
            for array in reader.all_frames():
                yield VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24"), None
            return
        index = reader.info.stream_index
    with VideoSource(str(path), open_container(str(path)), index) as source:
        base = source.stream.time_base
        for frame in source.frames(source.packets()):
            yield frame, base


class _Output:
    """A file that is being written."""

    def __init__(self, path: Path, frame: SizedFrame, config: PrepareConfig, rate: Fraction) -> None:
        first = frame.picture
        # bitexact: no random identifiers. faststart: the index in front, for readers of remote files.
        layout = {"fflags": "+bitexact", "movflags": "+faststart"}
        self.container: OutputContainer = av.open(str(path), "w", format="mp4", options=layout)
        # fastdecode (no arithmetic coding, no deblocking) reads a third faster for a tenth more bytes. No B-frames:
        # they cost the decoder a delay at every jump. mbtree would change the bytes from call to call.
        options = {"crf": str(config.crf), "g": str(config.gop), "tune": "fastdecode"}
        options |= {"bf": "0", "mbtree": "0", "a53cc": "0"}
        stream = self.container.add_stream("libx264", rate=rate, options=options)
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        context.time_base = frame.base
        context.thread_count = 1  # x264's output depends on the number of threads
        context.colorspace, context.color_range = first.colorspace, first.color_range
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        self.stream = stream
        self.first_tick = frame.tick
        self.num_frames = 0

    def add(self, frame: SizedFrame) -> None:
        frame.picture.pts = frame.tick - self.first_tick
        self.container.mux(self.stream.encode(frame.picture))
        self.num_frames += 1

    def close(self) -> None:
        self.container.mux(self.stream.encode(None))
        self.container.close()


def _encode(
    job: PrepareJob,
    targets: list[Path],
    starts: list[float],
    size: tuple[int, int],
    rate: Fraction,
    *,
    is_timed: bool,
) -> list[PreparedPart]:
    written: list[PreparedPart] = []
    frames = sized_frames(job.source, size, rate=rate, is_timed=is_timed)
    waiting: SizedFrame | None = next(frames, None)
    for target, end in zip(targets, [*starts[1:], math.inf], strict=True):
        if waiting is None:
            break
        with atomic_path(target) as partial:
            with ExitStack() as opened:
                output = _Output(partial, waiting, job.config, rate)
                opened.callback(output.container.close)
                while waiting is not None and waiting.tick * float(waiting.base) < end - 1e-6:
                    output.add(waiting)
                    waiting = next(frames, None)
                output.close()
            _check(partial, output.num_frames, job.source)
        VideoReader(target, store=job.store).close()  # so that training opens it without reading its packets
        written.append(PreparedPart(target, output.num_frames, target.stat().st_size))
    return written


def _check(partial: Path, num_frames: int, source: Path) -> None:
    with VideoReader(partial) as reader:
        if len(reader) != num_frames:
            raise VideoReadError(
                f"{source} has {num_frames} frames, and the file that was written {len(reader)}: it is left out; "
                "its times may be broken, re-encode it with another program first"
            )


def _turned(picture: VideoFrame, orientation: Orientation) -> VideoFrame:
    """Turn a yuv420p frame, plane by plane."""
    array = picture.to_ndarray()  # [H * 3 / 2, W]: the planes below each other
    height, width = picture.height, picture.width
    luma, chroma = array[:height], array[height:].reshape(2, height // 2, width // 2)
    planes = [np.ascontiguousarray(orientation.apply(plane)) for plane in (luma, *chroma)]
    shape = planes[0].shape[1]
    turned = VideoFrame.from_ndarray(np.concatenate([plane.reshape(-1, shape) for plane in planes]), format="yuv420p")
    turned.colorspace, turned.color_range = picture.colorspace, picture.color_range
    turned.color_primaries, turned.color_trc = picture.color_primaries, picture.color_trc
    return turned
