"""What reads a clip of a video: this package, decord2, torchcodec, and PyAV as its own documentation shows.

Each function opens a file, reads frames by index, scales them, and closes the file; on one thread.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from videomae.video.decode import VideoReader
from videomae.video.index_store import IndexStore

Frames = NDArray[np.uint8]
Read = Callable[[Path, Sequence[int], int], Frames]
"""Takes a file, frame indices and a side S; returns uint8 RGB `[T, S, S, 3]`."""


def ours(store: IndexStore | None) -> Read:
    """Return this package's reader, with a store of frame indices or without."""

    def read(path: Path, indices: Sequence[int], side: int) -> Frames:
        with VideoReader(path, store=store) as reader:
            return reader.frames(indices, size=(side, side))

    return read


def plain_pyav(path: Path, indices: Sequence[int], side: int | None) -> Frames:
    """Seek to the first frame by its time, decode forward, and count frames by their times; no side: at full size."""
    found: dict[int, NDArray[Any]] = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate, base = stream.average_rate, stream.time_base
        assert rate is not None
        assert base is not None
        container.seek(round(min(indices) / rate / base), stream=stream)
        for frame in container.decode(stream):
            assert frame.pts is not None
            number = round((frame.pts - (stream.start_time or 0)) * base * rate)
            if number in indices:
                found[number] = frame.to_ndarray(format="rgb24", width=side, height=side, threads=1)
            if number >= max(indices):
                break
    return np.stack([found[number] for number in indices])


def decord_reader() -> Read | None:
    """Return decord2's reader; None where it is not installed."""
    try:
        decord: Any = importlib.import_module("decord")
    except (ImportError, OSError):
        return None

    def read(path: Path, indices: Sequence[int], side: int) -> Frames:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1, width=side, height=side)
        frames: Frames = reader.get_batch(list(indices)).asnumpy()
        return frames

    return read


def torchcodec_reader() -> Read | None:
    """Return torchcodec's reader; None where it is not installed or does not load."""
    try:
        decoders: Any = importlib.import_module("torchcodec.decoders")
        transforms: Any = importlib.import_module("torchcodec.transforms")
    except (ImportError, OSError, RuntimeError):
        return None

    def read(path: Path, indices: Sequence[int], side: int) -> Frames:
        decoder = decoders.VideoDecoder(
            str(path),
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            seek_mode="approximate",
            transforms=[transforms.Resize((side, side))],
        )
        frames: Frames = decoder.get_frames_at(list(indices)).data.numpy()
        return frames

    return read


def contenders() -> dict[str, Read]:
    """Return the readers of other packages that are here, by name."""
    found = {"decord2": decord_reader(), "torchcodec": torchcodec_reader(), "PyAV": plain_pyav}
    return {name: read for name, read in found.items() if read is not None}


def versions() -> dict[str, str]:
    """Return the versions of what is compared, and why something is not."""
    loaded = {"av": True, "decord2": decord_reader() is not None, "torchcodec": torchcodec_reader() is not None}
    found = {}
    for name, is_loaded in loaded.items():
        try:
            found[name] = version(name) + ("" if is_loaded else ", which does not load here")
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
