"""A thread that reads a stream: decodes, keeps the newest clip, drops what comes too late, and connects again.

Times are those of the stream, put behind each other where a connection was lost: seconds since its first frame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videomae.errors import VideoReadError
from videomae.inference.clips import resized_frames
from videomae.live.configs import StreamConfig
from videomae.live.ring import ClipRing
from videomae.live.source import PipeFile, Source, open_source
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.rgb import RgbConverter, frame_orientation
from videomae.video.sampling import ClipConfig
from videomae.video.stream import LIBRARY_ERRORS, reason

ByteArray = NDArray[np.uint8]
USUAL_RATE = 25.0  # frames a second, of a stream that does not say
MAX_RATE = 240.0  # what some streams say in its place is the unit of their times
FIRST_BACKOFF = 0.5
MAX_SILENT = 50  # packets without a frame after which a connection is given up: more than any decoder holds back
END_SECONDS = 1.0  # a recording that is over may lack so much of what it says


@dataclass(frozen=True)
class StreamStats:
    """What has come of a stream so far."""

    frames: int = 0
    """Frames that were decoded."""
    dropped: int = 0
    """Frames that came too late and were left out to catch up."""
    reconnects: int = 0
    """Connections after the first."""
    changes: int = 0
    """Changes of the picture's size, its pixel format or its codec."""
    lag_seconds: float = 0.0
    """How far reading is behind where it was at its best in this connection."""
    width: int = 0
    """Of the last frame, pixels."""
    height: int = 0
    """Likewise."""
    codec: str = ""
    """Of the last connection."""


class LiveReader:
    """Reads a source in a thread until it ends or is stopped; a context manager."""

    def __init__(
        self,
        source: Source,
        clip: ClipConfig,
        processor: VideoMAEImageProcessor,
        config: StreamConfig,
        *,
        say: Callable[[str], None],
        on_frame: Callable[[ByteArray, float], None] | None = None,
    ) -> None:
        """Prepare; the thread starts with the with block.

        Args:
            source: From `parse_source`.
            clip: Number and distance of the model's frames.
            processor: Resizes and crops them.
            config: Time limits.
            say: Told in a line when a connection is made or lost.
            on_frame: Called in the thread with each frame, `[H, W, 3]` uint8 RGB, and its time, such as a recorder.
        """
        self.source = source
        self.ring = ClipRing(clip.num_frames, clip.stride / (clip.fps or USUAL_RATE))
        self.error: VideoReadError | None = None
        """Why it never started or was given up."""
        self._clip, self._processor, self._config = clip, processor, config
        self._say, self._on_frame = say, on_frame
        self._stop = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._stats = StreamStats()
        self._pipe = PipeFile(self._stop) if source.kind == "pipe" else None
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._origin: float | None = None  # when the first frame of all arrived
        self._last_seconds = 0.0
        self._converter: RgbConverter | None = None
        self._shape: tuple[int, int, str, str] | None = None  # width, height, pixel format, codec
        self._size = (0, 0)
        self._is_finished = False  # a recording behind an address has come to its end

    def __enter__(self) -> LiveReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_over(self) -> bool:
        """Whether no frame will come any more."""
        return self._over.is_set()

    @property
    def stats(self) -> StreamStats:
        """What has come so far."""
        with self._lock:
            return self._stats

    def wait(self, seconds: float) -> bool:
        """Wait for the end for at most some seconds; returns whether it has ended."""
        return self._over.wait(seconds)

    def stop(self) -> None:
        """End reading; waits as long as a read may take."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self._config.timeout + 1.0)

    # ---- connections -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._connections()
        except VideoReadError as error:
            self.error = error
        except Exception as error:  # a thread that dies silently would look like a stall
            self.error = VideoReadError(f"{self.source.shown} cannot be read: {type(error).__name__}: {error}")
        finally:
            self._over.set()

    def _connections(self) -> None:
        lost_since, backoff = time.monotonic(), FIRST_BACKOFF
        while not self._stop.is_set():
            before = self.stats.frames
            try:
                limit = self._config.timeout if self._origin else self._config.connect_timeout
                container = open_source(self.source, timeout=limit, pipe=self._pipe)
                why = self._read(container)
            except VideoReadError as error:
                why = str(error)
            if self._stop.is_set():
                return
            if self.stats.frames > before:
                lost_since, backoff = time.monotonic(), FIRST_BACKOFF
            if self._has_ended():
                if self._origin is None:
                    raise VideoReadError(why or f"{self.source.shown} ended without a frame")
                return
            self._check_patience(why, time.monotonic() - lost_since)
            self.ring.clear()
            if self._origin is not None and self.source.can_return:
                self._say(f"{self.source.shown}: {why or 'it ended'}; connecting again in {backoff:g} s")
            if self.source.can_return:
                self._stop.wait(backoff)
                backoff = min(2 * backoff, self._config.max_backoff)

    def _has_ended(self) -> bool:
        """Tell whether there is no more to come of a source that cannot return."""
        if self.source.kind == "pipe":
            assert self._pipe is not None
            return self._pipe.is_over  # else the stream in it has changed: what follows is opened anew
        return self._is_finished or not self.source.can_return

    def _check_patience(self, why: str, seconds: float) -> None:
        if self._origin is None and seconds >= self._config.connect_timeout:
            raise VideoReadError(f"{why}; no frame came in {self._config.connect_timeout:g} seconds")
        if self._origin is not None and self._config.give_up is not None and seconds >= self._config.give_up:
            raise VideoReadError(f"{why}; given up after {self._config.give_up:g} seconds without a connection")

    def _read(self, container: InputContainer) -> str:
        """Read a container to its end; returns why it ended."""
        with container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            fps = float(rate) if rate and 1 <= rate <= MAX_RATE else USUAL_RATE
            self.ring.clear()
            self.ring.spacing, self.ring.early = self._clip.stride / (self._clip.fps or fps), 0.5 / fps
            pace = _Pace(is_file=self.source.kind == "file", speed=self._config.playback_speed)
            try:
                if not self._decode(container, stream, pace):
                    return "its packets do not decode any more: its codec may be another one"
            except LIBRARY_ERRORS as error:
                silent = f"no data in {self._config.timeout:g} seconds"
                return silent if "exit" in str(error).lower() else reason(error)
            # A recording says how long it is, and what is live does not; a server that died ends before.
            whole = (container.duration or 0) / av.time_base
            self._is_finished = whole > 0 and pace.last >= whole - END_SECONDS
        return ""

    def _decode(self, container: InputContainer, stream: VideoStream, pace: _Pace) -> bool:
        """Decode to the end; returns False where packets come and none of them decodes."""
        num_silent = 0  # packets since the last frame
        for packet in container.demux(stream):
            is_last = packet.size == 0
            try:
                frames = stream.codec_context.decode(None if is_last else packet)
            except EOFError:
                return True
            except LIBRARY_ERRORS:  # a damaged packet, or one that refers to what came before we did
                frames = []
            is_skipping = stream.codec_context.skip_frame == "NONKEY"
            if not frames and not is_last and is_skipping:
                self._count_dropped()
            num_silent = 0 if frames or is_skipping else num_silent + 1
            for frame in frames:
                if pace.offset is None:
                    self._begin_connection(stream)
                self._take(frame, stream, pace)
            if is_last or self._stop.is_set():
                return True
            if num_silent >= MAX_SILENT and pace.offset is not None:
                return False
        return True

    def _begin_connection(self, stream: VideoStream) -> None:
        now = time.monotonic()
        with self._lock:
            count = 0 if self._origin is None else self._stats.reconnects + 1
            self._stats = replace(self._stats, reconnects=count, codec=stream.codec_context.name)
        if self._origin is None:
            self._origin = now
        self._say(f"{self.source.shown}: {stream.codec_context.name}, connected")

    # ---- frames ------------------------------------------------------------------------------------------------

    def _take(self, frame: VideoFrame, stream: VideoStream, pace: _Pace) -> None:
        assert self._origin is not None
        if pace.offset is None:
            # The first frame of a connection comes as long after the first of all as it arrived after it.
            pace.offset = max(time.monotonic() - self._origin, self._last_seconds) if self._last_seconds else 0.0
        media = float(frame.pts * (stream.time_base or 0)) if frame.pts is not None else None
        seconds, lag = pace.place(media, self._stop)
        self._last_seconds = max(self._last_seconds, seconds)
        is_late = lag > self._config.max_latency and self.source.kind != "file"
        with self._lock:
            dropped = self._stats.dropped + is_late
            self._stats = replace(self._stats, frames=self._stats.frames + 1, dropped=dropped, lag_seconds=lag)
        # Behind the source: only keyframes are decoded until it is caught up with.
        stream.codec_context.skip_frame = "NONKEY" if is_late else "DEFAULT"
        if is_late or not (self._on_frame is not None or self.ring.wants(seconds)):
            return
        pixels = self._rgb(frame, stream)
        if self.ring.wants(seconds):
            prepared = resized_frames(lambda _: pixels[None], np.zeros(1, np.int64), self._processor)[0]
            self.ring.push(seconds, time.monotonic(), prepared)
        if self._on_frame is not None:
            self._on_frame(pixels, seconds)

    def _count_dropped(self) -> None:
        """Count a frame that the decoder has skipped."""
        with self._lock:
            self._stats = replace(self._stats, dropped=self._stats.dropped + 1)

    def _rgb(self, frame: VideoFrame, stream: VideoStream) -> ByteArray:
        """Convert a frame, whatever size and format it has now."""
        shape = (frame.width, frame.height, frame.format.name, stream.codec_context.name)
        if self._converter is None or shape != self._shape:
            orientation = frame_orientation(frame)
            self._size = (frame.height, frame.width) if orientation.transpose else (frame.width, frame.height)
            self._converter = RgbConverter(self.source.shown, orientation, width=self._size[0], height=self._size[1])
            with self._lock:
                changes = self._stats.changes + (self._shape is not None)
                self._stats = replace(self._stats, changes=changes, width=self._size[0], height=self._size[1])
            self._shape = shape
        return self._converter.convert(frame, width=self._size[0], height=self._size[1])


class _Pace:
    """Where the frames of one connection lie in time, and how far reading lags behind them."""

    def __init__(self, *, is_file: bool, speed: float) -> None:
        self.offset: float | None = None  # of the first frame in the time of the whole stream
        self._is_file, self._speed = is_file, speed
        self._start = time.monotonic()
        self._first: float | None = None
        self.last = 0.0  # position of the newest frame in this connection
        self._best = 0.0  # smallest lag of arrival behind media time

    def place(self, media: float | None, stop: threading.Event) -> tuple[float, float]:
        """Return the time of a frame in the whole stream and the lag; a file waits until its frame is due."""
        assert self.offset is not None
        now = time.monotonic()
        if self._first is None:
            self._start, self._first = now, media or 0.0
        elapsed = now - self._start
        position = elapsed if media is None else media - self._first
        # A clock that jumps, as cameras' do when they are set, is no time: count on from here.
        if not -1.0 <= position - self.last <= 60.0:
            self._first += position - self.last
            position, self._best = self.last, elapsed - self.last
        self.last = max(self.last, position)
        if self._is_file:
            due = position / self._speed
            if due > elapsed:
                stop.wait(due - elapsed)
            return self.offset + position, max(time.monotonic() - self._start - due, 0.0)
        self._best = min(self._best, elapsed - position)
        return self.offset + position, elapsed - position - self._best
