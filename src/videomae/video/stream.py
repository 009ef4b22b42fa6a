"""One video stream of one file: its packets and frames in order, damage tolerated, colors converted.

What `probe`, `index` and `decode` build on: opens containers, turns every failure of the codec library into a
VideoReadError, and decodes forward from wherever it stands.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videomae.errors import VideoReadError

ByteArray: TypeAlias = NDArray[np.uint8]

# Demuxers that take a text for a video: they draw it as an image, or follow it to other files.
_TEXT_FORMATS = frozenset({"tty", "concat", "hls", "dash"})


class Orientation(NamedTuple):
    """How a stored frame is turned to be shown: transposed first, then rows and columns reversed."""

    transpose: bool = False
    """Rows and columns are exchanged."""
    flip_rows: bool = False
    """The last row comes first."""
    flip_columns: bool = False
    """The last column comes first."""

    @property
    def rotation_degrees(self) -> int:
        """Clockwise turn from the stored to the shown frame: 0, 90, 180 or 270."""
        return (90 if self.transpose else 0) + (180 if self.flip_rows else 0)

    @property
    def is_mirrored(self) -> bool:
        """True where the turned frame is also reflected left to right."""
        return (self.flip_rows != self.flip_columns) != self.transpose

    def apply(self, frame: ByteArray) -> ByteArray:
        """Turn a frame `[H, W, 3]`; returns a view, `[W, H, 3]` where transposed."""
        turned = frame.swapaxes(0, 1) if self.transpose else frame
        return turned[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


class VideoSource:
    """One video stream, read forward from where it stands.

    Packets that do not decode are skipped and counted, as players and the FFmpeg command line do. Decoding runs in
    one thread: a data loader runs many readers side by side, and the frames of a damaged stream then never depend on
    how many processors there are.
    """

    def __init__(self, path: str, container: InputContainer, stream_index: int) -> None:
        """Take over a container that stands at its beginning.

        Args:
            path: The file, for messages.
            container: What `open_container` returned; closed with this object.
            stream_index: Index of a video stream that has a decoder.
        """
        self.path = path
        self.container = container
        self.stream = cast(VideoStream, container.streams[stream_index])
        self.stream.codec_context.thread_count = 1  # before the decoder opens, which the first packet does
        self.num_errors = 0
        """Packets that could not be decoded so far."""
        self._reformatter = VideoReformatter()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self.container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """Iterate over the packets from here to the end of the file, or to where its structure breaks.

        Raises:
            VideoReadError: If the file system fails.
        """
        try:
            for packet in self.container.demux(self.stream):
                # An empty packet tells the decoder that the stream has ended. The library appends one, and a
                # container may hold one anywhere; `frames` ends the stream itself.
                if packet.size:
                    yield packet
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise VideoReadError(f"{self.path} cannot be read: {reason(error)}") from error
            self.num_errors += 1

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Decode one packet, or with None what the decoder still holds; a damaged packet gives nothing."""
        try:
            return self.stream.codec_context.decode(packet)
        except av.FFmpegError:
            self.num_errors += 1
            return []

    def frames(self, packets: Iterable[Packet[VideoStream]]) -> Iterator[VideoFrame]:
        """Decode packets to the last; yields frames in the order in which they are shown."""
        for packet in packets:
            yield from self.decode(packet)
        yield from self.decode(None)

    def seek(self, timestamp: int) -> bool:
        """Move to a keyframe at or before a time, where the container can; returns whether it moved.

        Args:
            timestamp: Time in units of the stream's time base.
        """
        try:
            self.container.seek(timestamp, stream=self.stream)
        except av.FFmpegError:
            return False
        return True

    def to_rgb(self, frame: VideoFrame, *, width: int, height: int) -> ByteArray:
        """Convert a frame to RGB.

        The matrix and range are those the frame declares; where it declares none, BT.601 and the range that its pixel
        format implies. A frame of another size than asked for, in a stream that changes its size, is scaled.

        Returns:
            `[height, width, 3]` uint8, a view of the codec library's memory that stays valid.

        Raises:
            VideoReadError: If the pixel format cannot be converted.
        """
        try:
            # One thread: starting several costs ten times the conversion of a small frame.
            converted = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        except av.FFmpegError as error:
            raise VideoReadError(
                f"{self.path} has {frame.format.name} frames, which cannot be converted to RGB: {reason(error)}"
            ) from error
        plane = converted.planes[0]
        rows = np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)  # lines may be padded
        return rows[:height, : width * 3].reshape(height, width, 3)


def open_container(path: str) -> InputContainer:
    """Open a file that should hold video.

    Raises:
        VideoReadError: If it does not exist, is empty, is no file or is not recognised.
    """
    try:
        facts = os.stat(path)
    except OSError as error:
        raise VideoReadError(f"{path} cannot be opened: {reason(error)}") from error
    if stat.S_ISDIR(facts.st_mode):
        raise VideoReadError(f"{path} is a folder: name a video file in it")
    if not stat.S_ISREG(facts.st_mode):
        raise VideoReadError(f"{path} is not a regular file: copy the stream to a file first")
    if facts.st_size == 0:
        raise VideoReadError(f"{path} is empty (0 bytes): copy or download it again")
    try:
        container = _open(os.path.abspath(path))  # absolute, so that "a:b.mp4" is a name and no protocol
    except av.FFmpegError as error:
        raise VideoReadError(
            f"{path} cannot be read as video: {reason(error)}; it is damaged, cut off, or not a video"
        ) from error
    if _TEXT_FORMATS.intersection(container.format.name.split(",")):
        container.close()
        raise VideoReadError(f"{path} is a text file, not a video")
    return container


def _open(path: str) -> InputContainer:
    try:
        return av.open(path)
    except UnicodeDecodeError:
        # PyAV before 19 insists on UTF-8 in titles and comments unless told otherwise; 19 neither insists nor
        # takes the argument.
        return av.open(path, metadata_errors="replace")


def frame_orientation(frame: VideoFrame) -> Orientation:
    """Return how a decoded frame is to be turned, from its display matrix.

    Quarter turns and reflections are followed; a matrix that slants the frame, which no camera writes, is not.
    """
    try:
        matrix = cast(Any, frame.side_data).get(SideDataType.DISPLAYMATRIX)  # PyAV's stubs know another key
    except ValueError:  # side data of a kind that this PyAV cannot name: the angle alone is still to be had
        quarters = round(-frame.rotation / 90) % 4
        return Orientation(quarters % 2 == 1, quarters in (2, 3), quarters in (1, 2))
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(cast(Any, matrix), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if 20 * max(abs(a), abs(d)) < min(abs(b), abs(c)):
        return Orientation(transpose=True, flip_rows=b < 0, flip_columns=c < 0)
    if 20 * max(abs(b), abs(c)) < min(abs(a), abs(d)):
        return Orientation(transpose=False, flip_rows=d < 0, flip_columns=a < 0)
    return Orientation()


def reason(error: Exception) -> str:
    """Return what an error says, without its number and file name, in lower case."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]
