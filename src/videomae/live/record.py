"""The stream written to disk while it comes, with what is on drawn into it: a ring of the newest minutes.

`.m3u8` is an HLS playlist whose oldest segments are deleted, which players and browsers show live. `.mp4` is a ring
of files, `name-000.mp4`, `name-001.mp4`, ..., of which the oldest is written over.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from videomae.errors import ConfigError
from videomae.inference.files import check_output
from videomae.timeline.annotate import drawn
from videomae.video.stream import LIBRARY_ERRORS, reason

ByteArray = NDArray[np.uint8]
SUFFIXES = (".m3u8", ".mp4")
SEGMENT_SECONDS = 4.0
QUEUE_FRAMES = 32
TIME_BASE = Fraction(1, 1000)


class StreamRecorder:
    """Encodes frames in a thread; frames that it has no time for are counted and left out. A context manager."""

    def __init__(
        self,
        path: Path,
        *,
        ring_seconds: float,
        scores: Callable[[], Mapping[str, float]],
        say: Callable[[str], None],
    ) -> None:
        """Prepare; the file is made with the first frame.

        Args:
            path: The playlist, `.m3u8`, or the name of the ring of files, `.mp4`.
            ring_seconds: How much of the newest is kept.
            scores: Returns what is on now, with its scores.
            say: Told in a line if writing fails.

        Raises:
            ConfigError: If the name ends otherwise, its folder is missing, or the ring is too short.
        """
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"record is {str(path)!r}; its name must end with {' or '.join(SUFFIXES)}")
        if ring_seconds < 2 * SEGMENT_SECONDS:
            raise ConfigError(f"record_seconds is {ring_seconds:g}; it must be at least {2 * SEGMENT_SECONDS:g}")
        check_output(path)
        self.dropped = 0
        """Frames that came faster than they could be encoded."""
        self._path, self._scores, self._say = path, scores, say
        self._num_segments = math.ceil(ring_seconds / SEGMENT_SECONDS)
        self._queue: queue.Queue[tuple[ByteArray, float] | None] = queue.Queue(QUEUE_FRAMES)
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._failed = False

    def __enter__(self) -> StreamRecorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join(30.0)

    def offer(self, frame: ByteArray, seconds: float) -> None:
        """Take a frame, `[H, W, 3]`, unless the queue is full."""
        if self._failed:
            return
        try:
            self._queue.put_nowait((frame, seconds))
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        container: OutputContainer | None = None
        next_key = 0.0
        try:
            while (item := self._queue.get()) is not None:
                frame, seconds = item
                if container is None:
                    container, stream, size = *self._open(frame.shape[1], frame.shape[0]), frame.shape[:2]
                    last = -1
                if frame.shape[:2] != size:  # the stream has changed; the file keeps its size
                    frame = np.asarray(Image.fromarray(frame).resize((size[1], size[0])))
                picture = VideoFrame.from_ndarray(drawn(frame, self._scores(), seconds=seconds), format="rgb24")
                last = max(last + 1, round(seconds / TIME_BASE))
                picture.pts, picture.time_base = last, TIME_BASE
                if seconds >= next_key:
                    picture.pict_type, next_key = PictureType.I, seconds + SEGMENT_SECONDS
                container.mux(stream.encode(picture))
            if container is not None:
                container.mux(stream.encode(None))
                container.close()
        except LIBRARY_ERRORS as error:
            self._failed = True
            self._say(f"{self._path} cannot be written, recording ends: {reason(error)}")
            while self._queue.get() is not None:  # whoever waits to put the end into it must not wait for ever
                pass

    def _open(self, width: int, height: int) -> tuple[OutputContainer, VideoStream]:
        seconds = f"{SEGMENT_SECONDS:g}"
        if self._path.suffix.lower() == ".m3u8":
            name, kind = str(self._path), "hls"
            options = {
                "hls_time": seconds,
                "hls_list_size": str(self._num_segments),
                "hls_flags": "delete_segments+temp_file",
                "hls_delete_threshold": "1",
            }
        else:
            name, kind = str(self._path.with_name(f"{self._path.stem}-%03d.mp4")), "segment"
            options = {
                "segment_time": seconds,
                "segment_wrap": str(self._num_segments),
                "segment_format": "mp4",
                "reset_timestamps": "1",
            }
        container = av.open(name, "w", format=kind, options=options)
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        stream.options = {"preset": "veryfast", "tune": "zerolatency", "forced-idr": "1"}
        stream.codec_context.gop_size = 10_000  # keyframes are where segments begin
        return container, stream
