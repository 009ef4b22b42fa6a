"""Frames of a video by index, exactly, in any order.

Frame i is the i-th frame that a full sequential decode of the first usable video stream gives, whatever the
container says of frame counts and times.

Reading is fast where the file is sound: one pass over the packets, without decoding, predicts all frames; a frame
is then reached by seeking to a keyframe and decoding forward. The prediction is checked against every frame that
passes. The first that differs ends it: the video is decoded once from end to end to index its frames, and if that
index does not hold after a seek either, frames are reached by counting from the beginning.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from types import TracebackType
from typing import Any, Self

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videomae.errors import VideoReadError
from videomae.video.index import (
    FrameFacts,
    FrameIndex,
    PacketFacts,
    SeekPoint,
    index_from_frames,
    index_from_packets,
    packet_facts,
    without_seeking,
)
from videomae.video.probe import VideoInfo, check_complete, open_video
from videomae.video.stream import ByteArray, VideoSource, open_container

_SEEK_COST = 2  # frames that could be decoded while a decoder is emptied and filled again: measured on H.264


class _IndexBrokenError(Exception):
    """A packet or frame is not the one that the index predicts. Never leaves this file."""


class VideoReader:
    """A video, read by frame index.

    The number of frames and every frame are those of a full sequential decode. For speed, a damaged file may differ
    in two ways: where damage inside a packet of intact structure costs a frame, the frames behind it keep the
    indices that the container gives them until a read passes the damage; and frames that damage has garbled may be
    garbled in another way when they are read again.

    Keeps no frames; the memory used is that of the frames asked for. Not safe for use by several threads at once.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a video and read its packets.

        Args:
            path: A video file of any kind that FFmpeg reads.

        Raises:
            VideoReadError: If the file is missing, empty, no video, truncated, or no frame of it decodes.
        """
        opened = open_video(path)
        self._path = opened.source.path
        self._info = opened.info
        self._orientation = opened.orientation
        self._stored_size = opened.first_frame.width, opened.first_frame.height
        self._source = opened.source
        self._seconds_per_unit = float(opened.source.stream.time_base or 0)
        try:
            packets = opened.packets + [packet_facts(packet) for packet in opened.source.packets()]
            check_complete(opened, packets)
        except BaseException:
            opened.source.close()
            raise
        self._index: FrameIndex | None = None  # None: not known without decoding
        # The two fields of interlaced video may lie in packets of their own: left to the decoder.
        if not opened.first_frame.interlaced_frame:
            self._index = index_from_packets(packets, codec=self._info.codec, seconds_per_unit=self._seconds_per_unit)
        self._is_closed = False
        self._decoded: Iterator[VideoFrame] = iter(())
        self._next: int | None = None  # index of the frame that self._decoded gives next; None: it gives none

    @property
    def info(self) -> VideoInfo:
        """Facts of the video."""
        return self._info

    def __len__(self) -> int:
        return self._known_index().num_frames

    @property
    def timestamps_seconds(self) -> NDArray[np.float64]:
        """`[len]`, time at which each frame is shown; 0 for the first.

        Where the file gives no usable times, frames are spaced evenly by its frame rate.
        """
        return self._known_index().time_seconds.copy()

    def frames(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> ByteArray:
        """Read frames by index.

        Args:
            indices: T frame indices in `[0, len)`, in any order, repeats allowed.

        Returns:
            `[T, H, W, 3]` uint8 RGB, rotation applied, in the order asked.

        Raises:
            VideoReadError: If there is no such frame or the file cannot be read.
        """
        if self._is_closed:
            raise VideoReadError(f"{self._path} was closed: read frames before leaving the reader's with block")
        wanted = np.asarray(indices, np.int64).reshape(-1)
        while True:
            index = self._known_index()
            try:
                return self._read(wanted, index)
            except _IndexBrokenError as error:
                if index.is_decoded and index.pts is None:
                    raise VideoReadError(f"{self._path} decodes differently each time: {error}") from error
                self._forget_position()
                self._index = without_seeking(index) if index.is_decoded else self._decode_index()

    def all_frames(self) -> Iterator[ByteArray]:
        """Iterate over all frames, one in memory at a time; independent of what is read by index.

        Yields:
            `[H, W, 3]` uint8 RGB, rotation applied.
        """
        with self._open_again() as source:
            for frame in source.frames(source.packets()):
                yield self._to_rgb(source, frame).copy()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._is_closed = True
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, wanted: NDArray[np.int64], index: FrameIndex) -> ByteArray:
        frames = np.empty((len(wanted), self._info.height, self._info.width, 3), np.uint8)
        done: tuple[int, int] | None = None  # the frame read last, and its row in the result
        for row in np.argsort(wanted, kind="stable").tolist():  # ascending: no frame is decoded twice
            number = int(wanted[row])
            if not 0 <= number < index.num_frames:
                raise VideoReadError(
                    f"frame {number} was asked of {self._path}, which has frames 0 to {index.num_frames - 1}"
                )
            if done is not None and done[0] == number:
                frames[row] = frames[done[1]]
            else:
                frame = self._frame(number, index)  # may open the file again: before self._source is read
                frames[row] = self._to_rgb(self._source, frame)
            done = number, row
        return frames

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
        raise _IndexBrokenError(f"it ended before frame {number} of {index.num_frames}")

    def _frames_from(self, point: SeekPoint, index: FrameIndex) -> Iterator[VideoFrame]:
        """Decode from a seek point on, checking every frame against the index."""
        if index.pts is None:
            source = self._reopen()
            yield from source.frames(source.packets())
            return
        packets = self._packets_from(point, index)
        source = self._source  # only now: landing may have opened the file again
        source.num_errors = 0
        number = point.frame
        for frame in source.frames(packets):
            is_known = number < index.num_frames and frame.pts == index.pts[number]
            is_whole = frame.key_frame or number > point.frame or not point.packet
            if not (is_known and is_whole) or frame.is_corrupt or source.num_errors:
                raise _IndexBrokenError(f"frame {number} is not where it was")
            number += 1
            yield frame

    def _packets_from(self, point: SeekPoint, index: FrameIndex) -> Iterator[Packet[VideoStream]]:
        """Move to the packet of a seek point; iterates over it and those behind it."""
        facts = index.packets[point.packet]
        # Containers differ in which of its two times finds a packet. To land before it is good too, since packets
        # are cheap to skip; the beginning of the file is always before it.
        for time in (facts.pts, facts.dts, None):
            if time is None:
                self._reopen()
            elif not self._source.seek(time):
                continue
            packets = self._source.packets()
            for packet in packets:
                number = index.packet_numbers.get((packet.pts, packet.size), -1)  # -1: cut off by the seek
                if number == point.packet:
                    return chain((packet,), packets)
                if number > point.packet:
                    break
        raise _IndexBrokenError(f"packet {point.packet} is not where it was")

    def _known_index(self) -> FrameIndex:
        if self._index is None:
            self._index = self._decode_index()
        return self._index

    def _decode_index(self) -> FrameIndex:
        """Decode the whole video once, keeping only times, and index its frames."""
        packets: list[PacketFacts] = []
        frames: list[FrameFacts] = []

        def noted(source: VideoSource) -> Iterator[Packet[VideoStream]]:
            for packet in source.packets():
                packets.append(packet_facts(packet))
                yield packet

        with self._open_again() as source:
            for frame in source.frames(noted(source)):
                if not frames:
                    source.num_errors = 0  # a recording may begin between two keyframes; that is no damage
                frames.append(FrameFacts(frame.pts, frame.key_frame))
        if not frames or source.num_errors > max(3, len(packets) // 20):
            raise VideoReadError(
                f"{self._path} is damaged: {len(packets)} packets give only {len(frames)} frames; "
                "copy or download it again"
            )
        return index_from_frames(
            packets,
            frames,
            codec=self._info.codec,
            seconds_per_unit=self._seconds_per_unit,
            frame_rate=self._info.frame_rate,
        )

    def _forget_position(self) -> None:
        self._decoded, self._next = iter(()), None

    def _reopen(self) -> VideoSource:
        self._source.close()
        self._source = self._open_again()
        return self._source

    def _open_again(self) -> VideoSource:
        return VideoSource(self._path, open_container(self._path), self._info.stream_index)

    def _to_rgb(self, source: VideoSource, frame: VideoFrame) -> ByteArray:
        width, height = self._stored_size
        return self._orientation.apply(source.to_rgb(frame, width=width, height=height))


def read_clip(path: str | os.PathLike[str], indices: Sequence[int] | NDArray[np.integer[Any]]) -> ByteArray:
    """Read frames of a video by index and close it; see `VideoReader.frames`."""
    with VideoReader(path) as reader:
        return reader.frames(indices)
