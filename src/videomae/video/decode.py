"""Frames of a video by index, exactly, in any order.

Frame i is the i-th frame that a full sequential decode of the first usable video stream gives, whatever the
container says of frame counts and times.

Reading is fast where the file is sound: one pass over the packets, without decoding, predicts all frames; a frame
is then reached by seeking to a keyframe and decoding forward, in MP4 files with only the packets that it needs. The
prediction is checked against every frame that passes. The first that differs ends it: the video is decoded once from
end to end to index its frames, and if that index does not hold after a seek either, frames are reached by counting
from the beginning.

An `IndexStore` keeps what is known of a video, so that it is opened later without reading its packets again. What it
keeps is checked in the same way, and dropped at the first difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videomae.errors import VideoReadError
from videomae.video.closing import Closing
from videomae.video.direct import DirectDecoder
from videomae.video.encoded import EncodedFile, EncodedVideo
from videomae.video.index import (
    FrameFacts,
    FrameIndex,
    IndexBrokenError,
    SeekPoint,
    index_from_frames,
    without_seeking,
)
from videomae.video.index_store import IndexStore
from videomae.video.indexed import IndexedVideo, container_facts, index_video
from videomae.video.packets import NO_TIME, PacketFacts, packet_facts
from videomae.video.probe import VideoInfo
from videomae.video.rgb import ByteArray, RgbConverter, checked_size
from videomae.video.stream import VideoSource

_THREADED_PIXELS = 500_000  # of a frame, from which on several threads decode faster than one
_SEEK_COST = 2  # frames that could be decoded while a decoder is emptied and filled again: measured on H.264


class VideoReader(Closing):
    """A video, read by frame index.

    The number of frames and every frame are those of a full sequential decode. For speed, a damaged file may differ
    in two ways: where damage inside a packet of intact structure costs a frame, the frames behind it keep the
    indices that the container gives them until a read passes the damage; and frames that damage has garbled may be
    garbled in another way when they are read again.

    Keeps no frames; the memory used is that of the frames asked for. Not safe for use by several threads at once.
    """

    def __init__(
        self, video: EncodedVideo, *, store: IndexStore | None = None, allow_truncated: bool = False
    ) -> None:
        """Open a video and read its packets, or what a store knows of them.

        Args:
            video: A video of any kind that FFmpeg reads: the path of a file; an address, `http://`, `https://` or
                `file://`; the content; or an open binary file, which stays open and is left where it stood.
            store: Keeps what is known of the files of a collection; it changes nothing but speed.
            allow_truncated: Read a file that ends before what it promises as far as it goes; nothing is stored.

        Raises:
            VideoReadError: If the file is missing, empty, no video, truncated, or no frame of it decodes, or the
                address cannot be downloaded.
            ConfigError: If a file is open as text.
        """
        self._file = EncodedFile(video)
        self._store = None if allow_truncated else store  # what it keeps would pass for a whole file
        self._allow_truncated = allow_truncated
        self._source: VideoSource | None = None
        self._is_closed = False
        kept = None if self._store is None else self._store.get(self._file)
        self._is_kept = kept is not None
        """True while nothing but the store says what is known."""
        try:
            self._video = kept or self._index_packets()
        except BaseException:
            self._file.close()
            raise
        self._prepare()

    @property
    def info(self) -> VideoInfo:
        """Facts of the video."""
        return self._video.info

    def __len__(self) -> int:
        return self._known_index().num_frames

    @property
    def timestamps_seconds(self) -> NDArray[np.float64]:
        """`[len]`, time at which each frame is shown; 0 for the first.

        Where the file gives no usable times, frames are spaced evenly by its frame rate.
        """
        return self._known_index().time_seconds.copy()

    def frames(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, size: tuple[int, int] | None = None
    ) -> ByteArray:
        """Read frames by index.

        Args:
            indices: T frame indices in `[0, len)`, in any order, repeats allowed.
            size: Height and width to scale to, pixels, while colors are converted, so that no array of the video's
                own size is made; bilinear with antialiasing, and not bit for bit what resizing full frames gives.
                None: the video's own size.

        Returns:
            `[T, H, W, 3]` uint8 RGB, rotation applied, in the order asked.

        Raises:
            VideoReadError: If there is no such frame, the file cannot be read, or reading takes unreasonably long.
            ConfigError: If the size is not positive.
        """
        self._check_open()
        wanted = np.asarray(indices, np.int64).reshape(-1)
        checked_size(size)
        while True:
            try:
                return self._read(wanted, self._known_index(), size or (self.info.height, self.info.width))
            except IndexBrokenError as error:
                self._recover(error)

    def frames_in_order(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, threads: int = 1
    ) -> Iterator[ByteArray]:
        """Iterate over some frames in one pass, one in memory at a time.

        Which are to come is known from the beginning, so that nothing is decoded that none of them needs, and nothing
        twice; `frames`, called for a few at a time, does not know it.

        Args:
            indices: T frame indices in `[0, len)`, ascending, without repeats.
            threads: Of the decoder, for large frames of H.264 and HEVC in MP4 files; other frames are decoded in one.

        Yields:
            `[H, W, 3]` uint8 RGB, rotation applied; a view of the codec library's memory that stays valid.

        Raises:
            VideoReadError: As `frames` does, in place of the frame that is not there.
        """
        wanted = np.asarray(indices, np.int64).reshape(-1)
        num_given = 0
        while num_given < len(wanted):
            self._check_open()
            index = self._known_index()
            left = wanted[num_given:]
            there = left[(left >= 0) & (left < index.num_frames)]
            try:
                for frame in self._decoded_frames(there, index, threads):
                    yield self._converter.convert(frame, width=self.info.width, height=self.info.height)
                    num_given += 1
            except IndexBrokenError as error:
                self._recover(error)
            else:
                self._check_numbers(left, index)

    def all_frames(self) -> Iterator[ByteArray]:
        """Iterate over all frames, one in memory at a time; independent of what is read by index.

        Yields:
            `[H, W, 3]` uint8 RGB, rotation applied.
        """
        try:
            opened = self._open_source()
        except IndexBrokenError as error:
            self._recover(error)
            opened = self._open_source()
        converter = self._new_converter()
        with opened as source:
            for frame in source.frames(source.packets()):
                yield converter.convert(frame, width=self.info.width, height=self.info.height).copy()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._is_closed = True
        self._close_source()
        self._file.close()

    def _read(self, wanted: NDArray[np.int64], index: FrameIndex, size: tuple[int, int]) -> ByteArray:
        self._check_numbers(wanted, index)
        frames = np.empty((len(wanted), *size, 3), np.uint8)
        numbers, firsts, rows = np.unique(wanted, return_index=True, return_inverse=True)  # ascending: decoded once
        for first, frame in zip(firsts.tolist(), self._decoded_frames(numbers, index), strict=True):
            frames[first] = self._converter.convert(frame, height=size[0], width=size[1])
        for row in np.flatnonzero(firsts[rows] != np.arange(len(wanted))).tolist():
            frames[row] = frames[firsts[rows[row]]]
        return frames

    def _decoded_frames(
        self, numbers: NDArray[np.int64], index: FrameIndex, threads: int = 1
    ) -> Iterator[VideoFrame]:
        access = self._video.access
        if self._direct is None or access is None:
            return (self._frame(number, index) for number in map(int, numbers))
        if threads > 1 and self.info.width * self.info.height >= _THREADED_PIXELS:
            return DirectDecoder(self._file, index, access, threads=threads).frames(numbers)
        return self._direct.frames(numbers)

    def _check_open(self) -> None:
        if self._is_closed:
            raise VideoReadError(f"{self._file.name} was closed: read frames before leaving the reader's with block")

    def _check_numbers(self, wanted: NDArray[np.int64], index: FrameIndex) -> None:
        for number in wanted[(wanted < 0) | (wanted >= index.num_frames)][:1]:
            raise VideoReadError(
                f"frame {number} was asked of {self._file.name}, which has frames 0 to {index.num_frames - 1}"
            )

    # ---- what is known of the video, and what becomes of it where it is wrong ---------------------------------

    def _index_packets(self) -> IndexedVideo:
        video, self._source = index_video(self._file, allow_truncated=self._allow_truncated)
        if video.access is not None:
            self._close_source()
        if self._store is not None and video.index is not None:
            self._store.put(self._file, video)
        return video

    def _prepare(self) -> None:
        """Begin to read anew with what is known now."""
        self._converter = self._new_converter()
        self._direct: DirectDecoder | None = None
        self._decoded: Iterator[VideoFrame] = iter(())
        self._next: int | None = None  # index of the frame that self._decoded gives next; None: it gives none
        if self._video.index is not None and self._video.access is not None:
            self._direct = DirectDecoder(self._file, self._video.index, self._video.access)

    def _new_converter(self) -> RgbConverter:
        info = self.info
        return RgbConverter(self._file.name, self._video.orientation, width=info.width, height=info.height)

    def _recover(self, error: IndexBrokenError) -> None:
        """Find out more of the video after a frame or packet that was not as predicted."""
        if self._is_kept:  # the file may be another one
            self._is_kept = False
            self._close_source()
            self._video = self._index_packets()
            self._prepare()
            return
        index = self._known_index()
        if self._direct is not None:
            self._learn(replace(self._video, access=None))
        elif not index.is_decoded:
            self._learn(replace(self._video, index=self._decode_index()))
        elif index.pts is not None:
            self._learn(replace(self._video, index=without_seeking(index)))
        else:
            raise VideoReadError(f"{self._file.name} decodes differently each time: {error}") from error
        self._prepare()

    def _learn(self, video: IndexedVideo) -> None:
        self._video = video
        if self._store is not None:
            self._store.put(self._file, video)

    def _known_index(self) -> FrameIndex:
        if self._video.index is None:
            self._learn(replace(self._video, index=self._decode_index()))
        assert self._video.index is not None
        return self._video.index

    def _decode_index(self) -> FrameIndex:
        """Decode the whole video once, keeping only times, and index its frames."""
        packets: list[PacketFacts] = []
        frames: list[FrameFacts] = []

        def noted(source: VideoSource) -> Iterator[Packet[VideoStream]]:
            for packet in source.packets():
                packets.append(packet_facts(packet))
                yield packet

        with self._open_source() as source:
            for frame in source.frames(noted(source)):
                if not frames:
                    source.num_errors = 0  # a recording may begin between two keyframes; that is no damage
                frames.append(FrameFacts(frame.pts, frame.key_frame))
        if not frames or source.num_errors > max(3, len(packets) // 20):
            raise VideoReadError(
                f"{self._file.name} is damaged: {len(packets)} packets give only {len(frames)} frames; "
                "copy or download it again"
            )
        return index_from_frames(
            packets,
            frames,
            codec=self.info.codec,
            seconds_per_unit=self._video.seconds_per_unit,
            frame_rate=self.info.frame_rate,
        )

    # ---- reading through the container -------------------------------------------------------------------------

    def _frame(self, number: int, index: FrameIndex) -> VideoFrame:
        """Decode forward to a frame, from where the decoder stands or from a keyframe, whichever is nearer."""
        point = index.seek_point(number)
        start = self._next
        if start is None or start > number or start + _SEEK_COST < point.frame:
            start, self._decoded = point.frame, self._frames_from(point, index)
        for position, frame in enumerate(self._decoded, start):
            self._next = position + 1
            if position == number:
                return frame
        raise IndexBrokenError(f"it ended before frame {number} of {index.num_frames}")

    def _frames_from(self, point: SeekPoint, index: FrameIndex) -> Iterator[VideoFrame]:
        """Decode from a seek point on, checking every frame against the index."""
        if index.pts is None:
            source = self._reopen()
            yield from source.frames(source.packets())
            return
        source, packets = self._packets_from(point, index)
        source.num_errors = 0
        number = point.frame
        for frame in source.frames(packets):
            is_known = number < index.num_frames and frame.pts == index.pts[number]
            is_whole = frame.key_frame or number > point.frame or not point.packet
            if not (is_known and is_whole) or frame.is_corrupt or source.num_errors:
                raise IndexBrokenError(f"frame {number} is not where it was")
            number += 1
            yield frame

    def _packets_from(self, point: SeekPoint, index: FrameIndex) -> tuple[VideoSource, Iterator[Packet[VideoStream]]]:
        """Move to the packet of a seek point; returns the source, and an iterator over it and those behind it."""
        # Containers differ in which of its two times finds a packet. To land before it is good too, since packets
        # are cheap to skip; the beginning of the file is always before it.
        times = [int(times[point.packet]) for times in (index.packets.pts, index.packets.dts)]
        source = self._source or self._reopen()
        for time in (*(time for time in times if time != NO_TIME), None):
            if time is None:
                source = self._reopen()
            elif not source.seek(time):
                continue
            packets = source.packets()
            for packet in packets:
                number = index.packets.number(packet.pts, packet.size)  # -1: cut off by the seek
                if number == point.packet:
                    return source, chain((packet,), packets)
                if number > point.packet:
                    break
        raise IndexBrokenError(f"packet {point.packet} is not where it was")

    def _reopen(self) -> VideoSource:
        self._close_source()
        source = self._open_source()
        self._source = source
        return source

    def _open_source(self) -> VideoSource:
        container = self._file.open_container()
        if self._is_kept and container_facts(container, self.info.stream_index) != self._video.container:
            container.close()
            raise IndexBrokenError("its container is another one")
        return VideoSource(self._file.name, container, self.info.stream_index)

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None


def read_clip(
    video: EncodedVideo,
    indices: Sequence[int] | NDArray[np.integer[Any]],
    *,
    size: tuple[int, int] | None = None,
) -> ByteArray:
    """Read frames of a video by index and close it; see `VideoReader.frames`."""
    with VideoReader(video) as reader:
        return reader.frames(indices, size=size)
