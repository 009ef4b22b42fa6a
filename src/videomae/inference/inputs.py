"""A video in whatever form a caller has it, opened for reading frames by index.

Bytes, file objects and http addresses become a temporary file while they are read, because a decoder goes back and
forth in it; frames in memory are taken as they are.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.errors import ConfigError, VideoReadError
from videomae.inference.clips import ReadFrames
from videomae.processing.frames import collect_videos
from videomae.video.opening import Reader, open_reader, stored_frames
from videomae.video.stream import reason

Frames: TypeAlias = NDArray[np.uint8]
EncodedVideo: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
VideoInput: TypeAlias = EncodedVideo | NDArray[Any] | Tensor | Sequence[Any]
"""One video: encoded, or its frames."""

SEQUENCES = (list, tuple, deque)
CHANNELS = (1, 3)  # grey, RGB
BYTES = (bytes, bytearray, memoryview)
TIMEOUT_SECONDS = 60  # without a byte from a server
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
def open_frames(video: VideoInput, *, fps: float | None = None) -> Iterator[OpenVideo]:
    """Open one video of any accepted form.

    Args:
        video: See `ACCEPTED`.
        fps: Frames a second to read a file at; None: its own frames. Frames in memory have no times.

    Yields:
        The video; it is closed, and a temporary file removed, at the end.

    Raises:
        VideoReadError: If the video, or an address, cannot be read.
        ConfigError: If it is no video, or its frames are of another shape or type.
    """
    path = path_of(video)
    if path is not None and ("://" not in path or os.path.exists(path)):
        with open_reader(path, fps=fps) as reader:
            yield _opened(reader, path)
    elif path is not None or isinstance(video, BYTES) or hasattr(video, "read"):
        name = path or _name(video)
        with tempfile.TemporaryDirectory(prefix="videomae-") as folder:
            copy = os.path.join(folder, "video")
            _copy(video, copy, name)
            try:
                with open_reader(copy, fps=fps) as reader:
                    yield _opened(reader, name)
            except VideoReadError as error:  # the caller has not seen the copy
                raise VideoReadError(str(error).replace(copy, name)) from error
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
        name, len(reader), reader.frames, lambda: reader.timestamps_seconds, partial(stored_frames, reader)
    )


def _copy(video: Any, path: str, name: str) -> None:
    """Write what a video is encoded as into a file."""
    if isinstance(video, str | os.PathLike):
        _download(name, path)
        return
    content = video if isinstance(video, BYTES) else None
    with open(path, "wb") as file:
        if content is not None:
            file.write(content)
            return
        try:
            shutil.copyfileobj(video, file)
        except TypeError:
            raise ConfigError(f'{name} is open as text: open it with mode "rb"') from None
        except (OSError, ValueError) as error:
            raise VideoReadError(f"{name} cannot be read: {reason(error)}") from error


def _download(address: str, path: str) -> None:
    if not address.lower().startswith(("http://", "https://")):
        scheme = address.partition("://")[0]
        raise VideoReadError(
            f"{address} cannot be opened: addresses of the kind {scheme}:// are not read; give an http(s) address, "
            "or download it or read its frames first"
        )
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer, open(path, "wb") as file:
            shutil.copyfileobj(answer, file)
    except (OSError, ValueError) as error:  # urllib's own errors are OSErrors
        why = getattr(error, "reason", None) or error
        text = why if isinstance(why, str) else reason(why)
        raise VideoReadError(
            f"{address} cannot be downloaded: {text}; download it first and give the file"
        ) from error


def _is_video(item: Any) -> bool:
    """Tell a video in a list from a frame."""
    encoded = isinstance(item, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(item, "read")
    return encoded or isinstance(item, SEQUENCES) or getattr(item, "ndim", 0) >= 4


def _name(video: Any) -> str:
    if isinstance(video, BYTES):
        return f"the {len(video)} bytes"
    name = getattr(video, "name", None)
    return name if isinstance(name, str) else "the open file"


def _refuse(frames: Any) -> NoReturn:
    if isinstance(frames, np.ndarray | Tensor):
        raise ConfigError(
            f"the frames have shape {list(frames.shape)} and dtype {frames.dtype}; they must be uint8 [n, H, W, 3] "
            "or [n, 3, H, W], RGB"
        )
    raise ConfigError(f"a {type(frames).__name__} is no video: {ACCEPTED}")
