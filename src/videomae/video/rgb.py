"""From a decoded frame to the image that is shown: colors converted to RGB, scaled, turned."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from videomae.errors import ConfigError, VideoReadError
from videomae.video.stream import LIBRARY_ERRORS, reason

ByteArray: TypeAlias = NDArray[np.uint8]


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


def checked_size(size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return a size to scale to, height and width in pixels.

    Raises:
        ConfigError: If it is not positive.
    """
    if size is not None and min(size) < 1:
        raise ConfigError(f"size is {size}; it is a height and a width in pixels, at least 1 each")
    return size


# Pixel formats that the library scales without converting them to others on the way.
_PLANAR = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"})


class RgbConverter:
    """Converts the frames of one video."""

    def __init__(self, name: str, orientation: Orientation, *, width: int, height: int) -> None:
        """Prepare for a video.

        Args:
            name: The video, for messages.
            orientation: How its frames are turned.
            width: Its own width after the turn, pixels.
            height: Its own height after the turn.
        """
        self._name = name
        self._own_size = width, height
        self._orientation = orientation
        self._scaler = VideoReformatter()
        self._reformatter = VideoReformatter()

    def convert(self, frame: VideoFrame, *, width: int, height: int) -> ByteArray:
        """Convert a frame to RGB, scale it in the same pass, and turn it.

        The matrix and range are those the frame declares; where it declares none, BT.601 and the range that its pixel
        format implies. Frames are scaled bilinearly, with antialiasing. A stream may change its size on the way; its
        frames are then scaled to the video's own.

        Args:
            frame: A decoded frame.
            width: Of the result after the turn, pixels.
            height: Of the result after the turn.

        Returns:
            `[height, width, 3]` uint8, a view of the codec library's memory that stays valid.

        Raises:
            VideoReadError: If the pixel format cannot be converted.
        """
        is_scaled = (width, height) != self._own_size
        if self._orientation.transpose:
            width, height = height, width
        try:
            # One thread: starting several costs ten times the conversion of a small frame.
            if is_scaled and frame.format.name in _PLANAR:
                # Scaled as it is and then converted: a third of the time of doing both at once.
                frame = self._scaler.reformat(frame, width=width, height=height, threads=1)
            converted = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        except LIBRARY_ERRORS as error:
            raise VideoReadError(
                f"{self._name} has {frame.format.name} frames, which cannot be converted to RGB: {reason(error)}"
            ) from error
        plane = converted.planes[0]
        rows = np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)  # lines may be padded
        return self._orientation.apply(rows[:height, : width * 3].reshape(height, width, 3))


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
