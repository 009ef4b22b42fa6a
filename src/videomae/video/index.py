"""Which frame of a video is where in its file: built from packets alone, or from a full decode.

The index of a frame is its position in a full sequential decode. This file predicts that order from the packets, says
when it cannot, and knows where decoding may begin. It reads no file and decodes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomae.video.packets import NO_TIME, UNKNOWN, IntArray, PacketFacts, PacketTable, packet_table

# Codecs whose keyframes need nothing before them, so that decoding may begin there. All others are read from
# the beginning.
SEEKABLE_CODECS = frozenset({
    "av1", "dnxhd", "ffv1", "flv1", "h263", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "prores",
    "rawvideo", "vp8", "vp9",
})  # fmt: skip

# A packet further than this from its position in presentation order means that time runs backwards somewhere in
# the file. No codec holds back more than 16 frames.
_MAX_REORDER = 64


class IndexBrokenError(Exception):
    """A packet or frame is not the one that the index predicts. Never leaves this package."""


class FrameFacts(NamedTuple):
    """What is kept of a decoded frame."""

    pts: int | None
    """Presentation time in units of the stream's time base."""
    is_key: bool
    """True where the decoder says that the frame needs no other."""


class SeekPoint(NamedTuple):
    """A position where decoding may begin."""

    frame: int
    """Index of the first frame that decodes right."""
    packet: int
    """Index of the packet to begin with."""


@dataclass(frozen=True)
class FrameIndex:
    """Where the frames of a video are."""

    num_frames: int
    """N, frames of the video."""
    time_seconds: NDArray[np.float64]
    """`[N]`, presentation time of each frame; the first is at 0."""
    pts: IntArray | None
    """`[N]`, the same in units of the time base, strictly ascending; None where frames are found only by counting."""
    packets: PacketTable
    """All packets in the order of the file."""
    seek_frames: IntArray
    """`[K]`, frames of the seek points, ascending from 0."""
    seek_packets: IntArray
    """`[K]`, their packets; the first is the beginning of the file."""
    packet_of: IntArray | None
    """`[N]`, the packet that shows each frame; None where a full decode has made the index."""

    @property
    def is_decoded(self) -> bool:
        """True where a full decode has made it, False where the packets alone did."""
        return self.packet_of is None

    @cached_property
    def frame_of(self) -> IntArray:
        """`[P]`, the frame that each packet shows, -1 for none; only where `packet_of` is known."""
        assert self.packet_of is not None
        frames = np.full(len(self.packets), -1, np.int64)
        frames[self.packet_of] = np.arange(self.num_frames)
        return frames

    def seek_point(self, frame: int) -> SeekPoint:
        """Return the last seek point from which a frame can be reached."""
        number = int(np.searchsorted(self.seek_frames, frame, "right")) - 1
        return SeekPoint(int(self.seek_frames[number]), int(self.seek_packets[number]))


def index_from_packets(packets: PacketTable, *, codec: str, seconds_per_unit: float) -> FrameIndex | None:
    """Predict the frames from the packets, where every packet is understood.

    Args:
        packets: All packets of the stream.
        codec: Canonical name of the codec.
        seconds_per_unit: The time base.

    Returns:
        The index, or None where only decoding can tell: an unknown codec, a packet that looks damaged, times that
        are missing, doubled or run backwards, a stream that does not begin with its first frame.
    """
    shown = np.flatnonzero(packets.num_shown == 1)
    file_order = packets.pts[shown]
    if (
        codec not in SEEKABLE_CODECS
        or not len(file_order)
        or (packets.num_shown == UNKNOWN).any()
        or (file_order == NO_TIME).any()
        or not packets.is_key[0]
    ):
        return None
    order = np.argsort(file_order, kind="stable")  # [N]
    pts = file_order[order]
    if (np.diff(pts) == 0).any() or np.abs(order - np.arange(len(order))).max() > _MAX_REORDER:
        return None
    # Frames that come before the first keyframe in time but after it in the file lack what they refer to; whether
    # they are shown is up to the decoder.
    if packets.pts[0] == NO_TIME or pts[0] < packets.pts[0]:
        return None
    return replace(_timed_index(packets, pts, packets.is_key, seconds_per_unit), packet_of=shown[order])


def index_from_frames(
    packets: Sequence[PacketFacts],
    frames: Sequence[FrameFacts],
    *,
    codec: str,
    seconds_per_unit: float,
    frame_rate: float | None,
) -> FrameIndex:
    """Make the index of a full decode.

    Args:
        packets: All packets of the stream, in the order of the file.
        frames: What the decoder gave, in its order.
        codec: Canonical name of the codec; where its keyframes are not known to be clean, frames are found by
            counting from the beginning.
        seconds_per_unit: The time base.
        frame_rate: Frames per second, to space frames evenly where the file gives no usable times.

    Returns:
        The index; its frame count is exact.
    """
    table = packet_table(packets)
    times = np.array([frame.pts for frame in frames if frame.pts is not None], np.int64)
    if len(times) == len(frames) and (np.diff(times) > 0).all():
        key_times = times[np.array([frame.is_key for frame in frames])]
        is_key = table.is_key & np.isin(table.pts, key_times)
        index = _timed_index(table, times, is_key, seconds_per_unit)
        return index if codec in SEEKABLE_CODECS else without_seeking(index)
    return FrameIndex(len(frames), evenly_spaced(len(frames), frame_rate), None, table, *_beginning(), packet_of=None)


def evenly_spaced(num_frames: int, frame_rate: float | None) -> NDArray[np.float64]:
    """Return `[N]`, times of frames in seconds where the file gives none."""
    return np.arange(num_frames) / (frame_rate or 25.0)  # 25: FFmpeg's own guess for streams without times


def without_seeking(index: FrameIndex) -> FrameIndex:
    """Return an index whose frames are found by counting from the beginning."""
    frames, packets = _beginning()
    return replace(index, pts=None, seek_frames=frames, seek_packets=packets)


def _beginning() -> tuple[IntArray, IntArray]:
    """Return the one seek point of a video that is read from its beginning."""
    return np.zeros(1, np.int64), np.zeros(1, np.int64)


def _timed_index(
    packets: PacketTable, pts: IntArray, is_key: NDArray[np.bool_], seconds_per_unit: float
) -> FrameIndex:
    """Return the index of frames with these times, ascending; decoding may begin at the packets where `is_key`."""
    numbers = np.flatnonzero(is_key & (packets.num_shown == 1))  # [K]
    frames = np.searchsorted(pts, packets.pts[numbers])
    is_frame = pts[np.minimum(frames, len(pts) - 1)] == packets.pts[numbers]
    numbers, frames = numbers[is_frame], frames[is_frame]
    # A keyframe that is shown before an earlier one is no use to a search by frame index. The first seek point is
    # the beginning of the file, whatever is there.
    is_later = frames > np.maximum.accumulate(np.append(0, frames))[:-1]
    return FrameIndex(
        len(pts),
        (pts - pts[0]) * seconds_per_unit,
        pts,
        packets,
        np.append(0, frames[is_later]),
        np.append(0, numbers[is_later]),
        packet_of=None,
    )
