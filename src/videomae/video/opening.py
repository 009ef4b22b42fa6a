"""One way to open whatever counts as a video: a file, a folder of numbered pictures, or a part of either.

A part is written as the path with `#t=START,END` after it, seconds, as in W3C media fragments: `a.mp4#t=2.5,7`. So a
part has a name of its own wherever a path has one: in results, in files of features, on the command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoReadError
from videomae.video.addresses import is_remote, split_member, video_path
from videomae.video.closing import Closing
from videomae.video.decode import VideoReader
from videomae.video.decoders import DecoderName
from videomae.video.encoded import EncodedFile, EncodedVideo, encoded_name, local_path
from videomae.video.index_store import IndexStore
from videomae.video.pictures import PictureReader, num_pictures, split_template
from videomae.video.probe import VideoInfo
from videomae.video.rgb import ByteArray
from videomae.video.torchcodec_reader import TorchcodecReader

_PART = re.compile(r"(?P<path>.+)#t=(?P<start>\d+(?:\.\d+)?)?(?:,(?P<end>\d+(?:\.\d+)?))?", flags=re.DOTALL)
_SLACK_SECONDS = 1e-6  # what writing a time as text may cost


class Reader(Protocol):
    """A video, read by frame index; see `VideoReader`, the first of its kind."""

    @property
    def info(self) -> VideoInfo:
        """Facts of the video; of a part, those of the whole."""

    def __len__(self) -> int: ...

    @property
    def timestamps_seconds(self) -> NDArray[np.float64]:
        """`[len]`, time at which each frame is shown, from the beginning of the whole video."""

    def frames(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, size: tuple[int, int] | None = None
    ) -> ByteArray:
        """Read frames by index, `[T, H, W, 3]` uint8 RGB in the order asked, scaled to a height and width."""

    def frames_in_order(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, threads: int = 1
    ) -> Iterator[ByteArray]:
        """Iterate over some frames in one pass, `[H, W, 3]` uint8 RGB; their indices ascend, without repeats."""

    def all_frames(self) -> Iterator[ByteArray]:
        """Iterate over all frames, `[H, W, 3]` uint8 RGB."""

    def close(self) -> None:
        """Close the file; may be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class VideoPart(NamedTuple):
    """A video or a part of one."""

    path: Path
    """The video."""
    start_seconds: float | None
    """Frames shown before this time are not in it; None: from the beginning."""
    end_seconds: float | None
    """Frames shown at this time or later are not in it; None: to the end."""


def part_name(path: Path, start_seconds: float | None, end_seconds: float | None) -> Path:
    """Return the name of a part of a video; of the whole, the path itself."""
    suffix = part_suffix(start_seconds, end_seconds)
    return path.with_name(f"{path.name}{suffix}") if suffix else path


def part_suffix(start_seconds: float | None, end_seconds: float | None) -> str:
    """Return what stands behind the name of a video in that of a part of it; empty for the whole."""
    if start_seconds is None and end_seconds is None:
        return ""
    end = "" if end_seconds is None else f",{plain_seconds(end_seconds)}"
    return f"#t={plain_seconds(start_seconds or 0.0)}{end}"


def split_part(name: str | os.PathLike[str]) -> VideoPart:
    """Tell the video from the part of it that a name means; what is there under the whole name is no part."""
    text, start, end = split_name(name)
    return VideoPart(video_path(name if start is None and end is None else text), start, end)


def split_name(name: str | os.PathLike[str]) -> tuple[str, float | None, float | None]:
    """Return the name of a video, and the start and end of the part of it that is meant, as `split_part` does."""
    text = os.fspath(name)
    found = _PART.fullmatch(text) if "#t=" in text else None
    if found is None or os.path.exists(text):
        return text, None, None
    start, end = (None if time is None else float(time) for time in found.group("start", "end"))
    return found["path"], start, end


def is_there(path: Path) -> bool:
    """Tell whether there is something to open, without opening it; behind an address nobody is asked."""
    if is_remote(path):
        return True
    member = split_member(path)
    path = path if member is None else member.archive
    folder, template = split_template(path)
    return path.exists() or (template is not None and folder.is_dir())


def size_of(path: Path, *, ask: bool = False) -> int:
    """Return the bytes of a file or the number of pictures of a folder; -1 if it is gone.

    Args:
        path: A video.
        ask: Whether to ask a server for the size of a video behind an address; it is -1 otherwise.
    """
    if is_remote(path) or split_member(path) is not None:
        found = version_of(path) if ask or not is_remote(path) else None
        return -1 if found is None else found[0]
    folder, template = split_template(path)
    try:
        if path.is_dir() or (template is not None and not path.exists()):
            return num_pictures(folder)
        return path.stat().st_size
    except OSError:
        return -1


def version_of(path: Path) -> tuple[int, int] | None:
    """Return size and time of modification of what a path names, of a remote video a number in place of the time.

    None where it is gone, or its server cannot be asked.
    """
    try:
        if is_remote(path) or split_member(path) is not None:
            file = EncodedFile(path)
            file.close()
            return file.size_bytes, file.modified_ns
        facts = path.stat()
    except (OSError, VideoReadError):
        return None
    return facts.st_size, facts.st_mtime_ns


def open_reader(
    video: EncodedVideo,
    *,
    store: IndexStore | None = None,
    fps: float | None = None,
    allow_truncated: bool = False,
    decoder: DecoderName = "pyav",
) -> Reader:
    """Open a video or a part of one.

    Args:
        video: A video in any form that `VideoReader` takes; or a folder of numbered pictures, or a template of their
            names in one, such as `clip/img_{:05}.jpg`. A path or address with `#t=START,END` after it, seconds, is a
            part of it.
        store: Keeps what is known of the files of a collection; it changes nothing but speed.
        fps: Frames a second to read it at, see `ResampledReader`; None: its own frames.
        allow_truncated: Read a file that ends before what it promises as far as it goes.
        decoder: Which library decodes a file; it changes frames by rounding alone.

    Raises:
        VideoReadError: If it cannot be read, or no frame of it is shown between the two times.
        ConfigError: If there is no such decoder here.
    """
    start = end = None
    reader: Reader
    if not isinstance(video, str | os.PathLike):
        reader = _file_reader(video, None, allow_truncated, decoder)
    elif (local := local_path(video)) is not None:
        path, start, end = split_part(local)
        reader = _open_whole(path, store, allow_truncated, decoder)
    else:
        address, start, end = split_name(encoded_name(video))
        reader = _file_reader(address, store, allow_truncated, decoder)
    try:
        if start is not None or end is not None:
            reader = PartReader(reader, start_seconds=start, end_seconds=end)
        return reader if fps is None else ResampledReader(reader, fps)
    except BaseException:
        reader.close()
        raise


def _open_whole(path: Path, store: IndexStore | None, allow_truncated: bool, decoder: DecoderName) -> Reader:
    if path.is_dir():
        return PictureReader(path)
    folder, template = split_template(path)
    if template is not None and folder.is_dir() and not path.exists():
        return PictureReader(folder, template)
    return _file_reader(path, store, allow_truncated, decoder)


def _file_reader(
    video: EncodedVideo, store: IndexStore | None, allow_truncated: bool, decoder: DecoderName
) -> VideoReader:
    match decoder:
        case "pyav":
            return VideoReader(video, store=store, allow_truncated=allow_truncated)
        case "torchcodec":
            return TorchcodecReader(video, device="cpu", store=store, allow_truncated=allow_truncated)
        case "torchcodec-cuda":
            return TorchcodecReader(video, device="cuda", store=store, allow_truncated=allow_truncated)


class PartReader(Closing):
    """The frames of a video that are shown between two times; their indices count from the first of them."""

    def __init__(self, reader: Reader, *, start_seconds: float | None, end_seconds: float | None) -> None:
        """Find the frames.

        Args:
            reader: The whole video; closing the part closes it.
            start_seconds: Time of the first frame at the earliest; None: from the beginning.
            end_seconds: All frames are shown before it; None: to the end.

        Raises:
            VideoReadError: If there is no such frame.
        """
        times = reader.timestamps_seconds
        inside = np.ones(len(times), dtype=np.bool_)
        if start_seconds is not None:
            inside &= times >= start_seconds - _SLACK_SECONDS
        if end_seconds is not None:
            inside &= times < end_seconds - _SLACK_SECONDS
        chosen = np.flatnonzero(inside)
        if not len(chosen):
            until = "the end" if end_seconds is None else f"second {end_seconds:g}"
            raise VideoReadError(
                f"{reader.info.path} has no frame from second {start_seconds or 0:g} to {until}: its last one is "
                f"shown at second {times[-1]:.2f}; give a part that lies in it"
            )
        self.first_frame = int(chosen[0])
        """Index in the whole video of the part's first frame."""
        self._num_frames = int(chosen[-1]) + 1 - self.first_frame
        self._reader = reader

    @property
    def info(self) -> VideoInfo:
        """Facts of the whole video."""
        return self._reader.info

    def __len__(self) -> int:
        return self._num_frames

    @property
    def timestamps_seconds(self) -> NDArray[np.float64]:
        """`[len]`, time at which each frame is shown, from the beginning of the whole video."""
        return self._reader.timestamps_seconds[self.first_frame : self.first_frame + self._num_frames]

    def frames(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, size: tuple[int, int] | None = None
    ) -> ByteArray:
        """Read frames by index; see `VideoReader.frames`.

        Raises:
            VideoReadError: If there is no such frame or the file cannot be read.
        """
        wanted = np.asarray(indices, np.int64).reshape(-1)
        self._check_numbers(wanted)
        return self._reader.frames(wanted + self.first_frame, size=size)

    def frames_in_order(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, threads: int = 1
    ) -> Iterator[ByteArray]:
        """Iterate over some frames in one pass; see `VideoReader.frames_in_order`."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        there = wanted[(wanted >= 0) & (wanted < self._num_frames)]
        yield from self._reader.frames_in_order(there + self.first_frame, threads=threads)
        self._check_numbers(wanted)

    def _check_numbers(self, wanted: NDArray[np.int64]) -> None:
        for number in wanted[(wanted < 0) | (wanted >= self._num_frames)][:1]:
            raise VideoReadError(
                f"frame {number} was asked of a part of {self.info.path} that has frames 0 to {self._num_frames - 1}"
            )

    def all_frames(self) -> Iterator[ByteArray]:
        """Iterate over the frames of the part, `[H, W, 3]` uint8 RGB."""
        return islice(self._reader.all_frames(), self.first_frame, self.first_frame + self._num_frames)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._reader.close()


class ResampledReader(Closing):
    """A video at a constant frame rate: at each tick the frame that is shown then.

    A video of a lower rate repeats frames, one of a higher rate leaves some out. The first tick is the first frame.
    """

    def __init__(self, reader: Reader, fps: float) -> None:
        """Find the frames.

        Args:
            reader: The video or part; closing this closes it.
            fps: Ticks a second.
        """
        times = reader.timestamps_seconds - reader.timestamps_seconds[0]
        self._ticks: NDArray[np.float64] = np.arange(int((times[-1] + _SLACK_SECONDS) * fps) + 1) / fps  # [n]
        self.shown: NDArray[np.int64] = np.searchsorted(times, self._ticks + _SLACK_SECONDS, side="right") - 1
        """`[n]`, index of the frame at each tick."""
        self.reader = reader
        """What is resampled."""

    @property
    def info(self) -> VideoInfo:
        """Facts of the video as it is stored."""
        return self.reader.info

    def __len__(self) -> int:
        return len(self.shown)

    @property
    def timestamps_seconds(self) -> NDArray[np.float64]:
        """`[len]`, time of each tick, from the beginning of the whole video."""
        times: NDArray[np.float64] = self._ticks + self.reader.timestamps_seconds[0]
        return times

    def frames(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, size: tuple[int, int] | None = None
    ) -> ByteArray:
        """Read frames by tick; see `VideoReader.frames`.

        Raises:
            VideoReadError: If there is no such tick or the file cannot be read.
        """
        wanted = np.asarray(indices, np.int64).reshape(-1)
        self._check_numbers(wanted)
        return self.reader.frames(self.shown[wanted], size=size)

    def frames_in_order(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, threads: int = 1
    ) -> Iterator[ByteArray]:
        """Iterate over the frames of some ticks in one pass; see `VideoReader.frames_in_order`."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        stored, counts = np.unique(self.shown[wanted[(wanted >= 0) & (wanted < len(self))]], return_counts=True)
        frames = self.reader.frames_in_order(stored, threads=threads)
        yield from chain.from_iterable(map(repeat, frames, counts.tolist()))
        self._check_numbers(wanted)

    def _check_numbers(self, wanted: NDArray[np.int64]) -> None:
        for number in wanted[(wanted < 0) | (wanted >= len(self))][:1]:
            raise VideoReadError(
                f"frame {number} was asked of {self.info.path}, which has frames 0 to {len(self) - 1} at the frame "
                "rate that it is read at"
            )

    def all_frames(self) -> Iterator[ByteArray]:
        """Iterate over the frames of all ticks, `[H, W, 3]` uint8 RGB."""
        times_shown = np.bincount(self.shown, minlength=len(self.reader))
        return chain.from_iterable(map(repeat, self.reader.all_frames(), times_shown.tolist()))

    def close(self) -> None:
        """Close the file; may be called twice."""
        self.reader.close()


def stored_frames(reader: Reader, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which frames of the whole video, as it is stored, indices of a reader mean."""
    if isinstance(reader, ResampledReader):
        return stored_frames(reader.reader, reader.shown[indices])
    return indices + reader.first_frame if isinstance(reader, PartReader) else indices


def plain_seconds(seconds: float) -> str:
    """Return a time in seconds as text without an exponent, to a microsecond."""
    text = f"{seconds:.6f}"
    return text.rstrip("0").rstrip(".")
