"""What is kept of the packets of a video stream: one at a time while they are read, arrays of all of them afterwards.

An hour of video has 100,000 packets, so that nothing is kept of them as Python objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, cast
from zlib import crc32

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]

NO_TIME = int(np.iinfo(np.int64).min)
"""Stands in arrays for a time that is not known, as in FFmpeg."""

UNKNOWN = -1
"""Stands in `PacketTable.num_shown` for a packet that looks damaged."""


DIRECT_CODECS = frozenset({"h264", "hevc"})
"""Codecs of which packets and headers are all that a decoder needs, so that it can do without the container. Others
depend on more of what a container says, such as sizes and tags."""


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
    is_disposable: bool = False
    """True where no other frame refers to its frame: it need not be decoded for the sake of others."""
    position: int | None = None
    """Where in the file its bytes begin; None where the container does not say."""
    checksum: int | None = None
    """CRC-32 of its bytes; None where nobody asks for it."""


@dataclass(frozen=True)
class PacketTable:
    """All packets of a stream in the order of the file."""

    pts: IntArray
    """`[P]`, presentation times; `NO_TIME` where unknown."""
    dts: IntArray
    """`[P]`, decoding times; `NO_TIME` where unknown."""
    sizes: IntArray
    """`[P]`, bytes."""
    is_key: NDArray[np.bool_]
    """`[P]`, see `PacketFacts.is_key`."""
    num_shown: NDArray[np.int8]
    """`[P]`, 0, 1 or `UNKNOWN`."""
    is_disposable: NDArray[np.bool_]
    """`[P]`, see `PacketFacts.is_disposable`."""

    def __len__(self) -> int:
        return len(self.sizes)

    def number(self, pts: int | None, size: int) -> int:
        """Return the index of the last packet of this time and size, -1 if there is none.

        The two tell a packet from its neighbours, and are the same after a seek; decoding times are not.
        """
        time = NO_TIME if pts is None else pts
        times, order = self._by_time
        first, end = np.searchsorted(times, time, "left"), np.searchsorted(times, time, "right")
        for number in order[first:end][::-1].tolist():
            if self.sizes[number] == size:
                return int(number)
        return -1

    @cached_property
    def _by_time(self) -> tuple[IntArray, IntArray]:
        order = np.argsort(self.pts, kind="stable")
        return self.pts[order], order


def packet_table(packets: Sequence[PacketFacts]) -> PacketTable:
    """Put the facts of all packets into arrays."""
    return PacketTable(
        np.array([NO_TIME if packet.pts is None else packet.pts for packet in packets], np.int64),
        np.array([NO_TIME if packet.dts is None else packet.dts for packet in packets], np.int64),
        np.array([packet.size for packet in packets], np.int64),
        np.array([packet.is_key for packet in packets], np.bool_),
        np.array([UNKNOWN if packet.num_shown is None else packet.num_shown for packet in packets], np.int8),
        np.array([packet.is_disposable for packet in packets], np.bool_),
    )


def packet_facts(packet: Packet[VideoStream]) -> PacketFacts:
    """Read the facts of a packet."""
    codec = packet.stream.codec_context.codec.canonical_name
    num_shown, is_disposable = _frames_in(packet, codec)
    if packet.is_corrupt:
        num_shown = None
    elif packet.is_discard:  # outside the edit list: decoded, never shown
        num_shown = 0
    checksum = crc32(cast(Any, packet)) if codec in DIRECT_CODECS else None
    return PacketFacts(
        packet.pts, packet.dts, packet.size, packet.is_keyframe, num_shown, is_disposable, packet.pos, checksum
    )


def _frames_in(packet: Packet[VideoStream], codec: str) -> tuple[int | None, bool]:
    """Count the frames that an intact packet shows, None where its structure is broken; and tell if it is disposable.

    Only what changes the count is looked at: frames that VP8 and VP9 decode but do not show, MPEG-4 packets that
    hold two frames or none, and H.264 or HEVC packets whose units do not add up, which a decoder drops.
    """
    match codec:
        case "vp8":
            return memoryview(packet)[0] >> 4 & 1, False
        case "vp9":
            return _vp9_frames(bytes(packet)), False
        case "mpeg4":
            return 1 if bytes(packet).count(b"\x00\x00\x01\xb6") == 1 else None, False
        case "h264" | "hevc":
            return _unit_frames(memoryview(packet), codec, packet.stream.codec_context.extradata or b"")
    return 1, False


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


def _unit_frames(data: memoryview, codec: str, extradata: bytes) -> tuple[int | None, bool]:
    """Check that the length-prefixed units of an H.264 or HEVC packet fill it and that one holds a frame.

    A frame is disposable where H.264's nal_ref_idc is 0 for all of its slices (ITU-T H.264, 7.4.1). Of HEVC nothing
    is said: there it depends on temporal sub-layers.
    """
    size_byte = 4 if codec == "h264" else 21  # of the configuration record in MP4 and Matroska
    if len(extradata) <= size_byte or extradata[0] != 1:
        return 1, False  # start codes instead of lengths (transport streams): cut into packets by the parser itself
    prefix = (extradata[size_byte] & 3) + 1
    position, holds_frame, is_disposable = 0, False, codec == "h264"
    while position < len(data):
        start = position + prefix
        position = start + int.from_bytes(data[position:start], "big")
        if not start < position <= len(data) or data[start] & 0x80:
            return None, False
        kind = data[start] & 31 if codec == "h264" else data[start] >> 1 & 63
        if 1 <= kind <= 5 if codec == "h264" else kind < 32:
            holds_frame = True
            is_disposable = is_disposable and not data[start] & 0x60
    return (1, is_disposable) if holds_frame else (None, False)
