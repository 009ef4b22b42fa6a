"""A video in whatever form a caller has it, encoded or as frames, opened for reading frames by index."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, NoReturn, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.errors import ConfigError
from videomae.inference.clips import ReadFrames
from videomae.processing.frames import collect_videos
from videomae.video.decoders import DecoderName
from videomae.video.encoded import EncodedVideo as EncodedVideo
from videomae.video.encoded import encoded_name
from videomae.video.index_store import IndexStore
from videomae.video.opening import Reader, open_reader, stored_frames

Frames: TypeAlias = NDArray[np.uint8]
VideoInput: TypeAlias = EncodedVideo | NDArray[Any] | Tensor | Sequence[Any]
"""One video: encoded, or its frames."""

SEQUENCES = (list, tuple, deque)
CHANNELS = (1, 3)  # grey, RGB
ACCEPTED = (
    "give a path, an http(s) address, bytes or an open binary file of a video; or its frames: uint8 [n, H, W, 3] or "
    "[n, 3, H, W] as array or tensor, or a list or deque of such frames or PIL images; or a list of videos"
)


class OpenVideo(NamedTuple):
    """A video that is being read."""

    name: str
    """What to call it in messages."""
    num_frames: int
    """n."""
    read: ReadFrames
    """Frames by index."""
    seconds: Callable[[], NDArray[np.float64]] | None
    """Returns `[n]`, the times of the frames from the start; None for frames in memory. Call it after reading."""
    stored: Callable[[NDArray[np.int64]], NDArray[np.int64]] = lambda indices: indices
    """Returns which frames of the whole video, as it is stored, indices mean."""


def batch_of(videos: Any) -> list[Any] | None:
    """Return the videos of a batch; None where the input is one video.

    A batch is a list, tuple or deque of videos, or frames with one more dimension, `[B, n, H, W, 3]`.

    Raises:
        ConfigError: If a list is empty or mixes frames and videos.
    """
    if isinstance(videos, np.ndarray | Tensor):
        return list(videos) if videos.ndim == 5 else None
    if not isinstance(videos, SEQUENCES):
        return None
    if len(videos) == 0:
        raise ConfigError(f"the {type(videos).__name__} of videos or frames is empty: {ACCEPTED}")
    are_videos = {_is_video(item) for item in videos}
    if len(are_videos) > 1:
        raise ConfigError(f"the {type(videos).__name__} mixes frames and videos: {ACCEPTED}")
    return list(videos) if are_videos == {True} else None


def path_of(video: Any) -> str | None:
    """Return the path or address of a video that is given by one, else None."""
    return os.fspath(video) if isinstance(video, str | os.PathLike) else None


@contextmanager
def open_frames(
    video: VideoInput,
    *,
    fps: float | None = None,
    store: IndexStore | None = None,
    decoder: DecoderName = "pyav",
) -> Iterator[OpenVideo]:
    """Open one video of any accepted form.

    Args:
        video: See `ACCEPTED`.
        fps: Frames a second to read a file at; None: its own frames. Frames in memory have no times.
        store: Keeps what is known of the files of a collection; it changes nothing but speed.
        decoder: What decodes a file.

    Yields:
        The video; it is closed at the end. A file that was open before stays open.

    Raises:
        VideoReadError: If the video, or an address, cannot be read.
        ConfigError: If it is no video, or its frames are of another shape or type.
    """
    if isinstance(video, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(video, "read"):
        encoded = cast(EncodedVideo, video)
        with open_reader(encoded, store=store, fps=fps, decoder=decoder) as reader:
            yield _opened(reader, encoded_name(encoded))
    else:
        frames = frames_array(video)
        yield OpenVideo("the frames", len(frames), lambda wanted: frames[wanted], None)


def frames_array(video: Any) -> Frames:
    """Return the frames of a video in memory, uint8 `[n, H, W, 3]`; grey frames become grey RGB.

    Raises:
        ConfigError: If they are no frames, or of another shape, size or type.
    """
    frames = list(video) if isinstance(video, SEQUENCES) else video
    layout = None
    if not isinstance(frames, list):
        shape: Any = getattr(frames, "shape", ())
        if len(shape) != 4 or 0 in shape or not {shape[1], shape[3]}.intersection(CHANNELS):
            _refuse(frames)
        layout = "channels_last" if shape[3] in CHANNELS else "channels_first"
    try:
        runs = collect_videos(frames, num_channels=3, input_data_format=layout)[0]
    except ValueError as error:
        raise ConfigError(f"the frames cannot be taken: {' '.join(str(error).split())}") from None
    if len({(run.shape[1:], run.dtype) for run in runs}) > 1:
        sizes = " and ".join(sorted({f"{run.shape[3]}x{run.shape[2]}" for run in runs}))
        raise ConfigError(f"the frames differ in size or type ({sizes}): give frames of one video")
    whole = torch.cat(runs) if len(runs) > 1 else runs[0]  # [n, C, H, W]
    if whole.dtype != torch.uint8 or whole.shape[1] not in CHANNELS:
        _refuse(frames if not isinstance(frames, list) else whole)
    array: Frames = whole.permute(0, 2, 3, 1).cpu().numpy()
    return array if array.shape[3] == 3 else np.repeat(array, 3, axis=3)


def _opened(reader: Reader, name: str) -> OpenVideo:
    return OpenVideo(
        name, len(reader), reader.frames_in_order, lambda: reader.timestamps_seconds, partial(stored_frames, reader)
    )


def _is_video(item: Any) -> bool:
    """Tell a video in a list from a frame."""
    encoded = isinstance(item, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(item, "read")
    return encoded or isinstance(item, SEQUENCES) or getattr(item, "ndim", 0) >= 4


def _refuse(frames: Any) -> NoReturn:
    if isinstance(frames, np.ndarray | Tensor):
        raise ConfigError(
            f"the frames have shape {list(frames.shape)} and dtype {frames.dtype}; they must be uint8 [n, H, W, 3] "
            "or [n, 3, H, W], RGB"
        )
    raise ConfigError(f"a {type(frames).__name__} is no video: {ACCEPTED}")
