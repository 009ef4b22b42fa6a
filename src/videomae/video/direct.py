"""Frames decoded from their packets alone, read from their places in the file, without its container.

This is how frames of MP4 and QuickTime files are read once their packets are known: nothing is opened, searched or
read but the packets that the wanted frames need. It decides nothing: where a packet or a frame is not what the index
predicts, it says so, and the file is read through its container.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import cast
from zlib import crc32

import numpy as np
from av.codec import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videomae.video.encoded import EncodedFile
from videomae.video.index import FrameIndex, IndexBrokenError
from videomae.video.packets import DIRECT_CODECS, NO_TIME, IntArray, PacketFacts
from videomae.video.stream import LIBRARY_ERRORS, TimeBudget, VideoSource

_NUM_TRIED = 8  # packets

# What a container may say of the colors where the packets do not.
_COLORS = ("color_range", "color_primaries", "color_trc", "colorspace")


@dataclass(frozen=True)
class DirectAccess:
    """What it takes to decode the packets of a file without its container."""

    decoder: str
    """FFmpeg's name of the decoder."""
    extradata: bytes
    """Headers of the stream."""
    settings: dict[str, int]
    """Attributes of the decoder's context that the container has set."""
    positions: IntArray
    """`[P]`, where in the file the packets begin."""
    checksums: IntArray
    """`[P]`, CRC-32 of each."""


def direct_access(source: VideoSource, file: EncodedFile, packets: Sequence[PacketFacts]) -> DirectAccess | None:
    """Return how to read packets without the container; None where their bytes are not simply in the file.

    Args:
        source: The stream, after its first frame.
        file: The file.
        packets: All packets of the stream.
    """
    context = source.stream.codec_context
    is_plain = context.codec.canonical_name in DIRECT_CODECS and "mov" in source.container.format.name.split(",")
    if not is_plain or not context.extradata or not _has_one_description(file):
        return None
    positions = [packet.position for packet in packets if packet.position is not None]
    checksums = [packet.checksum for packet in packets if packet.checksum is not None]
    if len(positions) < len(packets) or len(checksums) < len(packets):
        return None
    # Some are read to see that their bytes are simply there; each is checked again whenever it is read.
    for number in range(0, len(packets), max(1, len(packets) // _NUM_TRIED)):
        if crc32(file.read_at(positions[number], packets[number].size)) != checksums[number]:
            return None
    return DirectAccess(
        context.name,
        context.extradata,
        {name: int(getattr(context, name)) for name in (*_COLORS, "reorder_depth") if hasattr(context, name)},
        np.array(positions, np.int64),
        np.array(checksums, np.int64),
    )


def _has_one_description(file: EncodedFile) -> bool:
    """Tell whether each track of an MP4 or QuickTime file has one set of headers, which holds for all packets."""
    position = 0
    while position + 8 <= file.size_bytes:
        head = file.read_at(position, 16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # too large for four bytes: it stands behind the kind
            size = int.from_bytes(head[8:16], "big")
        if head[4:8] == b"moov":
            parts = file.read_at(position, size or file.size_bytes - position).split(b"stsd")[1:]
            return bool(parts) and all(part[4:8] == b"\0\0\0\1" for part in parts)  # behind version and flags
        if size < 8:
            return False
        position += size
    return False


class DirectDecoder:
    """Decodes the packets of a file that wanted frames need, and no others."""

    def __init__(self, file: EncodedFile, index: FrameIndex, access: DirectAccess, *, threads: int = 1) -> None:
        """Prepare to read; opens nothing.

        Args:
            file: The file; closed by its owner.
            index: An index that the packets have made.
            access: Where they are.
            threads: In which as many frames are decoded side by side, each of them as one thread would: for reading
                on and on, since the first frame comes out when so many packets are in.
        """
        assert index.packet_of is not None
        assert index.pts is not None
        self._file = file
        self._index = index
        self._access = access
        self._packet_of, self._pts = index.packet_of, index.pts
        self._context: VideoCodecContext | None = None
        self._budget = TimeBudget(file.name, file.size_bytes, is_threaded=threads > 1)
        self._threads = threads
        self._next: int | None = None  # the packet that the decoder gets next; None: it is nowhere
        self._begin_packet = 0  # where decoding has begun
        self._first_time = 0  # when the first frame is shown that decodes right from there
        self._is_first = True  # no frame has come out since then
        self._is_drained = False
        self._times: list[int] = []  # heap: times of the packets that the decoder has and shows
        self._hidden: set[int] = set()  # times of those that it has and that are not to be shown
        self._coming: set[int] = set()  # frames of the packets that the decoder was given, until they are passed
        self._decoded: deque[tuple[int, VideoFrame]] = deque()  # frames that have come out, by number

    def frames(self, wanted: NDArray[np.int64]) -> Iterator[VideoFrame]:
        """Iterate over frames.

        Args:
            wanted: Frame indices in `[0, N)`, ascending, no repeats.

        Raises:
            IndexBrokenError: If a packet or a frame is not what the index says.
            VideoReadError: If the file system fails, or decoding takes too long.
        """
        packets = self._packet_of[wanted]
        needed = np.zeros(len(self._index.packets), np.bool_)  # [P]; of an hour of video 100 KB
        needed[packets] = True
        for number, packet in zip(map(int, wanted), map(int, packets), strict=True):
            yield self._frame(number, packet, needed)

    def _frame(self, number: int, packet: int, needed: NDArray[np.bool_]) -> VideoFrame:
        if number not in self._coming:
            point = self._index.seek_point(number)
            if self._next is None or packet < self._next or self._next < point.packet:
                self._begin(point.frame, point.packet)
        while True:
            while self._decoded:
                found, picture = self._decoded.popleft()
                self._coming.discard(found)
                if found == number:
                    return picture
            self._feed(needed)

    def _begin(self, frame: int, packet: int) -> None:
        """Empty the decoder and go to a seek point."""
        if self._context is None:
            self._context = self._new_context()
        else:
            self._context.flush_buffers()
            self._set_up(self._context)  # emptied, it forgets how many frames it has to hold back
        self._begin_packet, self._first_time = packet, int(self._pts[frame])
        self._next, self._is_first, self._is_drained = packet, True, False
        self._times, self._hidden, self._coming, self._decoded = [], set(), set(), deque()

    def _new_context(self) -> VideoCodecContext:
        access = self._access
        try:
            context = cast(VideoCodecContext, CodecContext.create(access.decoder, "r"))
            context.extradata = access.extradata
            context.thread_count = self._threads
            if self._threads > 1:
                context.thread_type = "FRAME"  # slices of a frame are few, and often one
            self._set_up(context)
        except LIBRARY_ERRORS as error:
            raise IndexBrokenError(f"its decoder cannot be made: {error}") from error
        return context

    def _set_up(self, context: VideoCodecContext) -> None:
        for name, value in self._access.settings.items():
            with contextlib.suppress(AttributeError):  # kept by another PyAV
                setattr(context, name, value)

    def _feed(self, needed: NDArray[np.bool_]) -> None:
        """Give the decoder its next packet and take what comes out."""
        table, number = self._index.packets, self._next
        assert number is not None
        assert self._context is not None
        packet: Packet[VideoStream] | None = None  # None: what the decoder still holds
        if number < len(table):
            self._next = number + 1
            if table.is_disposable[number] and not needed[number] and number != self._begin_packet:
                return
            packet = self._packet(number)
            time = int(table.pts[number])
            if not table.num_shown[number]:
                self._hidden.add(time)
            elif time >= self._first_time:
                heappush(self._times, time)
                self._coming.add(int(self._index.frame_of[number]))
        elif self._is_drained:
            raise IndexBrokenError("the decoder has kept a frame back")
        else:
            self._is_drained = True
        try:
            with self._budget:
                pictures = self._context.decode(packet)
        except LIBRARY_ERRORS as error:
            raise IndexBrokenError(f"packet {number} does not decode: {error}") from error
        self._budget.earn(len(pictures))
        for picture in pictures:
            self._take(picture)

    def _packet(self, number: int) -> Packet[VideoStream]:
        table, access = self._index.packets, self._access
        size = int(table.sizes[number])
        data = self._file.read_at(int(access.positions[number]), size)
        if len(data) != size or crc32(data) != access.checksums[number]:
            raise IndexBrokenError(f"packet {number} has changed")
        # A buffer of its own, longer than the bytes, because decoders read beyond their end.
        packet = cast("Packet[VideoStream]", Packet(size))
        packet.update(data)
        packet.pts = int(table.pts[number])
        packet.dts = None if table.dts[number] == NO_TIME else int(table.dts[number])
        packet.is_keyframe = bool(table.is_key[number])
        return packet

    def _take(self, picture: VideoFrame) -> None:
        """Check that a frame that came out is the one that must come next."""
        time = picture.pts
        if time is None or picture.is_corrupt:
            raise IndexBrokenError("a frame is damaged")
        if time in self._hidden:
            self._hidden.discard(time)
            return
        # Frames that lie behind the keyframe in the file but are shown before it refer to what the decoder has not
        # seen: they do not come out, and so are not among the times.
        is_whole = picture.key_frame or not self._is_first or self._begin_packet == 0
        if not self._times or self._times[0] != time or not is_whole:
            raise IndexBrokenError("a frame is not where it was")
        heappop(self._times)
        self._is_first = False
        self._decoded.append((int(np.searchsorted(self._pts, time)), picture))
