"""Which frame of a video is where in its file: built from packets alone, or from a full decode.

The index of a frame is its position in a full sequential decode. This file predicts that order from the packets, says
when it cannot, and knows where decoding may begin. It reads no file and decodes nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]

# Codecs whose keyframes need nothing before them, so that decoding may begin there. All others are read from
# the beginning.
SEEKABLE_CODECS = frozenset({
    "av1", "dnxhd", "ffv1", "flv1", "h263", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "prores",
    "rawvideo", "vp8", "vp9",
})  # fmt: skip

# A packet further than this from its position in presentation order means that time runs backwards somewhere in
# the file. No codec holds back more than 16 frames.
_MAX_REORDER = 64


class PacketFacts(NamedTuple):
    """What is kept of a packet."""

    pts: int | None
    """Presentation time in units of the stream's time base."""
    dts: int | None
    """Decoding time."""
    size: int
    """Bytes."""
    is_key: bool
    """True where the container says that decoding may begin here."""
    num_shown: int | None
    """Frames that it will show: 0 or 1; None where the packet looks damaged."""

    @property
    def identity(self) -> tuple[int | None, int]:
        """What tells a packet from its neighbours, and is the same after a seek (decoding times are not)."""
        return self.pts, self.size


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
    packets: tuple[PacketFacts, ...]
    """All packets in the order of the file."""
    seek_points: tuple[SeekPoint, ...]
    """Ascending; the first is the beginning of the file."""
    is_decoded: bool
    """True where a full decode made it, False where the packets alone did."""

    def seek_point(self, frame: int) -> SeekPoint:
        """Return the last seek point from which a frame can be reached."""
        return self.seek_points[bisect_right(self.seek_points, frame, key=lambda point: point.frame) - 1]

    @cached_property
    def packet_numbers(self) -> dict[tuple[int | None, int], int]:
        """Index of each packet by its identity."""
        return {packet.identity: number for number, packet in enumerate(self.packets)}


def packet_facts(packet: Packet[VideoStream]) -> PacketFacts:
    """Read the facts of a packet."""
    if packet.is_corrupt:
        num_shown = None
    elif packet.is_discard:  # outside the edit list: decoded, never shown
        num_shown = 0
    else:
        num_shown = _frames_in(packet)
    return PacketFacts(packet.pts, packet.dts, packet.size, packet.is_keyframe, num_shown)


def index_from_packets(packets: Sequence[PacketFacts], *, codec: str, seconds_per_unit: float) -> FrameIndex | None:
    """Predict the frames from the packets, where every packet is understood.

    Args:
        packets: All packets of the stream, in the order of the file.
        codec: Canonical name of the codec.
        seconds_per_unit: The time base.

    Returns:
        The index, or None where only decoding can tell: an unknown codec, a packet that looks damaged, times that
        are missing, doubled or run backwards, a stream that does not begin with its first frame.
    """
    shown = [packet for packet in packets if packet.num_shown != 0]
    times = [packet.pts for packet in shown if packet.pts is not None]
    if (
        codec not in SEEKABLE_CODECS
        or not shown
        or any(packet.num_shown is None for packet in shown)
        or len(times) != len(shown)
        or len(set(times)) != len(times)
        or not packets[0].is_key
    ):
        return None
    file_order = np.array(times, np.int64)
    order = np.argsort(file_order)  # [N]
    if np.abs(order - np.arange(len(order))).max() > _MAX_REORDER:
        return None
    # Frames that come before the first keyframe in time but after it in the file lack what they refer to; whether
    # they are shown is up to the decoder.
    if packets[0].pts is None or times[order[0]] < packets[0].pts:
        return None
    return _build(packets, file_order[order], seconds_per_unit, key_times=set(times), is_decoded=False)


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
    times = np.array([frame.pts for frame in frames if frame.pts is not None], np.int64)
    if len(times) == len(frames) and (np.diff(times) > 0).all():
        key_times = {frame.pts for frame in frames if frame.is_key and frame.pts is not None}
        index = _build(packets, times, seconds_per_unit, key_times=key_times, is_decoded=True)
        return index if codec in SEEKABLE_CODECS else without_seeking(index)
    even = np.arange(len(frames)) / (frame_rate or 25.0)  # 25: FFmpeg's own guess for streams without times
    return FrameIndex(len(frames), even, None, tuple(packets), (SeekPoint(0, 0),), is_decoded=True)


def without_seeking(index: FrameIndex) -> FrameIndex:
    """Return an index whose frames are found by counting from the beginning."""
    return FrameIndex(index.num_frames, index.time_seconds, None, index.packets, (SeekPoint(0, 0),), index.is_decoded)


def _build(
    packets: Sequence[PacketFacts],
    pts: IntArray,
    seconds_per_unit: float,
    *,
    key_times: set[int],
    is_decoded: bool,
) -> FrameIndex:
    frames = {time: frame for frame, time in enumerate(pts.tolist())}
    points = [SeekPoint(0, 0)]
    for number, packet in enumerate(packets):
        # A keyframe that is shown before an earlier one is no use to a search by frame index.
        if packet.is_key and packet.num_shown and packet.pts in key_times and packet.pts in frames:
            point = SeekPoint(frames[packet.pts], number)
            if point.frame > points[-1].frame:
                points.append(point)
    time_seconds = (pts - pts[0]) * seconds_per_unit
    return FrameIndex(len(pts), time_seconds, pts, tuple(packets), tuple(points), is_decoded)


def _frames_in(packet: Packet[VideoStream]) -> int | None:
    """Count the frames that an intact packet shows, or None where its structure is broken.

    Only what changes the count is looked at: frames that VP8 and VP9 decode but do not show, MPEG-4 packets that
    hold two frames or none, and H.264 or HEVC packets whose units do not add up, which a decoder drops.
    """
    context = packet.stream.codec_context
    match context.codec.canonical_name:
        case "vp8":
            return memoryview(packet)[0] >> 4 & 1
        case "vp9":
            return _vp9_frames(bytes(packet))
        case "mpeg4":
            return 1 if bytes(packet).count(b"\x00\x00\x01\xb6") == 1 else None
        case "h264" | "hevc" as codec:
            return _unit_frames(memoryview(packet), codec, context.extradata or b"")
    return 1


def _vp9_frames(data: bytes) -> int | None:
    """Read show_existing_frame and show_frame of a VP9 frame header (VP9 bitstream specification, 6.2)."""
    marker = data[-1]
    if marker & 0b11100000 == 0b11000000:
        index_size = 2 + (1 + (marker >> 3 & 3)) * (1 + (marker & 7))  # the marker stands at both its ends
        if len(data) > index_size and data[-index_size] == marker:
            return 1  # a superframe: hidden frames and the one that they serve
    header = "".join(f"{byte:08b}" for byte in data[:2])
    if not header.startswith("10"):
        return None
    position = 5 if header[2:4] == "11" else 4  # after marker and profile; profile 3 has a reserved bit
    return int(header[position] == "1" or header[position + 2 : position + 3] == "1")


def _unit_frames(data: memoryview, codec: str, extradata: bytes) -> int | None:
    """Check that the length-prefixed units of an H.264 or HEVC packet fill it and that one holds a frame."""
    size_byte = 4 if codec == "h264" else 21  # of the configuration record in MP4 and Matroska
    if len(extradata) <= size_byte or extradata[0] != 1:
        return 1  # start codes instead of lengths (transport streams): cut into packets by the parser itself
    prefix = (extradata[size_byte] & 3) + 1
    position, holds_frame = 0, False
    while position < len(data):
        start = position + prefix
        position = start + int.from_bytes(data[position:start], "big")
        if not start < position <= len(data) or data[start] & 0x80:
            return None
        kind = data[start] & 31 if codec == "h264" else data[start] >> 1 & 63
        holds_frame |= 1 <= kind <= 5 if codec == "h264" else kind < 32
    return 1 if holds_frame else None
