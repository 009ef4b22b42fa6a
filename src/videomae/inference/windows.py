"""Windows over a whole video: where they lie, and their frames, each decoded once, in batches.

What is in memory is two batches of resized frames and a few numbers for each window, however long the video is.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.engine.jobs import num_processors
from videomae.errors import ConfigError, DamagedVideoError, TruncatedVideoError, VideoReadError
from videomae.inference.clips import clip_batches
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.decoders import DecoderName
from videomae.video.encoded import EncodedVideo
from videomae.video.index_store import IndexStore
from videomae.video.opening import Reader, open_reader, stored_frames
from videomae.video.sampling import ClipConfig, IntArray, sliding_clips

FloatArray = NDArray[np.float64]
Item = TypeVar("Item")

DEFAULT_OVERLAP = 0.5  # of neighbouring windows, where no step is given
MAX_DECODERS = 8  # threads that decode one video: more hold more frames and are hardly faster


class Windows(NamedTuple):
    """Where the windows of a video lie."""

    indices: IntArray
    """int64 `[W, T]`, the frames of each window by the reader's indices, starts ascending."""
    stored_indices: IntArray
    """`[W, T]`, the same frames by their indices in the whole video, as it is stored."""
    start_seconds: FloatArray
    """`[W]`, when the first frame of each appears, from the beginning of the video."""
    end_seconds: FloatArray
    """`[W]`, when the last frame of each is replaced."""
    step_seconds: float
    """Distance of neighbouring windows; the last may be nearer."""


class WindowBatch(NamedTuple):
    """Windows that go through the model together."""

    first: int
    """Index of the first of them."""
    clips: Tensor
    """uint8 `[b, T, C, h, w]`, for `clips.normalized`."""


def plan_windows(
    reader: Reader, clip: ClipConfig, *, window_seconds: float | None = None, step_seconds: float | None = None
) -> Windows:
    """Lay windows over a video; together they cover it, and the last ends with its last frame.

    Args:
        reader: The video, opened at `clip.fps`.
        clip: How the model's clips are sampled.
        window_seconds: Length of a window, whose T frames are then spread evenly over it; None: the clip's stride. A
            video shorter than that clip has one window, in which its end is repeated, as in prediction.
        step_seconds: From the start of a window to that of the next; None: half a window.

    Raises:
        ConfigError: If a length is not positive, the window is longer than the video or too short for its frames, or
            the clip is of segments and no window is given.
    """
    check_seconds(window_seconds, step_seconds)
    times, ends = frame_times(reader.timestamps_seconds, reader.info.frame_rate)
    seconds = float(ends[-1] - times[0])
    rate = len(times) / seconds if seconds > 0 else 25.0
    if window_seconds is not None:
        clip = _clip_of(window_seconds, clip, rate=rate, seconds=seconds, name=str(reader.info.path))
    elif clip.kind == "segment":
        raise ConfigError(
            "the model's clips spread over whole videos (clip.kind is 'segment'), so that a window has no length of "
            "its own: give --window, in seconds, about as long as the videos it was trained on"
        )
    span_seconds = clip.num_frames * clip.stride / rate
    step = span_seconds * (1 - DEFAULT_OVERLAP) if step_seconds is None else step_seconds
    step_frames = max(1, round(step * rate))
    indices = sliding_clips(len(times), clip, step_frames=step_frames)
    stored = stored_frames(reader, indices)
    return Windows(indices, stored, times[indices[:, 0]], ends[indices[:, -1]], step_frames / rate)


def check_seconds(window_seconds: float | None, step_seconds: float | None) -> None:
    """Check the length of windows and their distance, where they are given.

    Raises:
        ConfigError: If one is not positive.
    """
    for name, value in (("window", window_seconds), ("step", step_seconds)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} is {value:g}; it is in seconds, above 0, such as --{name} 2")


def frame_times(seconds: FloatArray, frame_rate: float | None) -> tuple[FloatArray, FloatArray]:
    """Return when each frame of a video appears and when the next replaces it, `[n]` each.

    The last frame stays for as long as the median of the others, or as the frame rate says of a single frame; 0
    where nothing is known.
    """
    if len(seconds) > 1:
        last = float(np.median(np.diff(seconds)))
    else:
        last = 1.0 / frame_rate if frame_rate else 0.0
    return seconds, np.append(seconds[1:], seconds[-1] + last)


def window_batches(
    reader: Reader, windows: Windows, processor: VideoMAEImageProcessor, *, batch_size: int, first: int = 0
) -> Iterator[WindowBatch]:
    """Iterate over windows in batches, in one pass over the video; the next batch is decoded while one is used.

    Args:
        reader: The video that they were planned for; it must stay open, and be used for nothing else meanwhile.
        windows: From `plan_windows`.
        processor: Resizes and crops.
        batch_size: Windows of a batch; the last may have fewer.
        first: Window to begin with, a multiple of the batch size, so that batches are those of a whole pass.

    Yields:
        Batches, in order.

    Raises:
        VideoReadError: If a frame cannot be read; the batches before it have been given.
    """
    read = partial(reader.frames_in_order, threads=min(MAX_DECODERS, num_processors()))
    batches = clip_batches(read, windows.indices[first:], processor, batch_size=batch_size)
    for number, clips in enumerate(_one_ahead(batches)):
        yield WindowBatch(first + number * batch_size, clips)


@contextmanager
def open_as_far_as_whole(
    video: EncodedVideo,
    *,
    store: IndexStore | None = None,
    fps: float | None = None,
    decoder: DecoderName = "pyav",
) -> Iterator[tuple[Reader, str | None]]:
    """Open a video, and one that was cut off or is damaged for what is in it.

    Args:
        video: As for `open_reader`, and so the others.
        store: Likewise.
        fps: Likewise.
        decoder: Likewise; what is not whole is left to PyAV.

    Yields:
        The reader, and what is wrong with the file; None: nothing known.

    Raises:
        VideoReadError: If nothing of it can be read.
    """
    fault: str | None = None
    try:
        reader = _opened(video, store=store, fps=fps, decoder=decoder)
    except (TruncatedVideoError, DamagedVideoError) as error:
        fault = str(error)
        try:
            reader = _opened(video, fps=fps, allow_truncated=True)
        except VideoReadError:
            raise error from None
    try:
        yield reader, fault
    finally:
        reader.close()


def _opened(
    video: EncodedVideo,
    *,
    store: IndexStore | None = None,
    fps: float | None = None,
    allow_truncated: bool = False,
    decoder: DecoderName = "pyav",
) -> Reader:
    reader = open_reader(video, store=store, fps=fps, allow_truncated=allow_truncated, decoder=decoder)
    try:
        len(reader)  # counts frames that cannot be told from the packets: here damage shows
    except BaseException:
        reader.close()
        raise
    return reader


def _clip_of(window_seconds: float, clip: ClipConfig, *, rate: float, seconds: float, name: str) -> ClipConfig:
    """Return the dense clip whose T frames spread over a window."""
    if window_seconds > seconds + 0.5 / rate:
        raise ConfigError(
            f"window is {window_seconds:g} seconds and {name} has {seconds:.2f}: give a --window of at most "
            f"{seconds:.2f}, or leave it out for the model's own sampling"
        )
    stride = round(window_seconds * rate / clip.num_frames)
    if stride < 1:
        raise ConfigError(
            f"window is {window_seconds:g} seconds, in which {name} has {max(1, round(window_seconds * rate))} "
            f"frames, and the model takes {clip.num_frames}: give a --window of at least "
            f"{clip.num_frames / rate:.2f}"
        )
    return replace(clip, stride=stride, kind="dense")


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Compute the next item in a thread while one is used; no more than that one is ahead."""
    over = object()
    # Resizing a frame in several threads would take them from the model, at more cost than the work has.
    with ThreadPoolExecutor(1, "decode", torch.set_num_threads, (1,)) as pool:
        coming = pool.submit(next, items, over)
        while (item := coming.result()) is not over:
            coming = pool.submit(next, items, over)
            yield cast(Item, item)
