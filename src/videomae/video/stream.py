"""One video stream of one container: its packets and frames in order, damage tolerated, time limited.

Turns every failure of the codec library into a VideoReadError or a count; decodes forward from wherever it stands.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from videomae.errors import VideoReadError
from videomae.video.closing import Closing

LIBRARY_ERRORS = (av.FFmpegError, OSError, LookupError, ValueError, RuntimeError, MemoryError, ArithmeticError)
"""What the codec library raises of damaged files: its own errors, and those of Python that it meets on the way, such
as IndexError where a stream appears in the middle of a file."""

LIMIT_SECONDS = 60.0
SECONDS_PER_BYTE = 1e-6
SECONDS_PER_FRAME = 1.0
"""Processor time that reading a video may take: so much in any case, so much for its size, so much for each frame
that comes out: several times what decoders need at 8K, so that no sound video comes near it."""


LONGEST_WAIT_SECONDS = 10.0
"""What one call counts at most where it is waited for."""

_MAX_BATCH = 32  # packets that are read ahead; at first as many as were asked for


class TimeBudget:
    """How long the codec library may still work on a video, in processor time of this thread.

    Processor time, so that neither a busy machine nor a slow disk makes a sound video a bad one. Where the library
    works in threads of its own, it is the time that this thread waits for them, up to some seconds a call: a process
    that was stopped for an hour has not decoded for an hour.
    """

    def __init__(self, name: str, size_bytes: int, *, is_threaded: bool = False) -> None:
        """Start with what a file of this size may take.

        Args:
            name: The video, for messages.
            size_bytes: Its size.
            is_threaded: Whether other threads do the work.
        """
        self._clock = time.monotonic if is_threaded else time.thread_time
        self._most = LONGEST_WAIT_SECONDS if is_threaded else float("inf")
        self._name = name
        self._left = LIMIT_SECONDS + SECONDS_PER_BYTE * max(size_bytes, 0)
        self._allowed = self._left
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = self._clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left -= min(self._clock() - self._start, self._most)
        if self._left < 0 and (error is None or isinstance(error, LIBRARY_ERRORS)):
            raise VideoReadError(
                f"{self._name} keeps the decoder busy for more than {self._allowed:.0f} seconds: it is damaged or "
                "made to be slow; leave it out, or encode it again with another program first"
            ) from error

    def earn(self, num_frames: int) -> None:
        """Allow more time, for frames that came out."""
        self._left += SECONDS_PER_FRAME * num_frames
        self._allowed += SECONDS_PER_FRAME * num_frames


class VideoSource(Closing):
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
        self._budget = TimeBudget(path, container.size)
        self._ahead: deque[Packet[VideoStream]] = deque()  # read and not yet given out

    def close(self) -> None:
        """Close the file; may be called twice."""
        self.container.close()

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """Iterate over the packets from here to the end of the file, or to where its structure breaks.

        Raises:
            VideoReadError: If the file system fails.
        """
        packets, batch, is_over = self.container.demux(self.stream), 1, False
        while self._ahead or not is_over:
            while self._ahead:
                yield self._ahead.popleft()
            found: list[Packet[VideoStream]] = []
            try:
                with (
                    self._budget
                ):  # around several packets, because looking at the clock takes as long as reading one
                    found.extend(islice(packets, batch))
                is_over = len(found) < batch
            except IndexError:
                is_over = True  # where a stream has appeared on the way; all packets are read by then
            except LIBRARY_ERRORS as error:
                if isinstance(error, OSError):
                    raise VideoReadError(f"{self.path} cannot be read: {reason(error)}") from error
                self.num_errors += 1
                is_over = True
            # An empty packet tells the decoder that the stream has ended. The library appends one, and a container
            # may hold one anywhere; `frames` ends the stream itself.
            self._ahead.extend(packet for packet in found if packet.size)
            batch = min(2 * batch, _MAX_BATCH)

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Decode one packet, or with None what the decoder still holds; a damaged packet gives nothing."""
        try:
            with self._budget:
                frames = self.stream.codec_context.decode(packet)
        except LIBRARY_ERRORS:
            self.num_errors += 1
            return []
        self._budget.earn(len(frames))
        return frames

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
        self._ahead.clear()
        try:
            with self._budget:
                self.container.seek(timestamp, stream=self.stream)
        except LIBRARY_ERRORS:
            return False
        return True


def reason(error: Exception) -> str:
    """Return what an error says, without its number and file name, in lower case."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]
