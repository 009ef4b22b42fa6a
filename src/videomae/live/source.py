"""What a stream can be: a camera, an address, a pipe, a file; opened as a container of the codec library."""

from __future__ import annotations

import os
import re
import select
import sys
import threading
import time
from pathlib import Path
from typing import Literal, NamedTuple

import av
from av.container import InputContainer

from videomae.errors import ConfigError, VideoReadError
from videomae.video.stream import LIBRARY_ERRORS, reason

Kind = Literal["camera", "address", "pipe", "file"]

_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")
_SCHEMES = frozenset("rtsp rtsps rtmp http https tcp udp srt rtp".split())
# So much of a stream is looked at before its first frame comes; FFmpeg would take five seconds. It has to end before
# the time limit does, else what was opened is broken.
PROBED_BYTES, PROBED_SECONDS = 2_000_000, 2.0
PROBED_OF_TIMEOUT = 1 / 3
POLL_SECONDS = 0.2  # between two looks at whether to stop


class Source(NamedTuple):
    """Where a stream comes from."""

    kind: Kind
    """What it is."""
    name: str
    """As it was given."""

    @property
    def shown(self) -> str:
        """The name for messages: without the user and password that an address may hold."""
        return "standard input" if self.kind == "pipe" else _PASSWORD.sub("", self.name)

    @property
    def can_return(self) -> bool:
        """Whether it may be there again once it has ended."""
        return self.kind in ("camera", "address")


def parse_source(text: str) -> Source:
    """Tell what a source is.

    Raises:
        ConfigError: If it is none, such as an address of an unknown kind.
        VideoReadError: If there is no such file or camera.
    """
    if text == "-":
        return Source("pipe", text)
    if text.isdecimal():
        device = f"/dev/video{text}"
        if not os.path.exists(device):
            raise VideoReadError(f"there is no camera {text} ({device}): connect it, or give another number")
        return Source("camera", device)
    scheme, colon, _ = text.partition("://")
    if colon and not os.path.exists(text):
        if scheme.lower() not in _SCHEMES:
            raise ConfigError(f"source {text!r} is of the kind {scheme}://; use one of {', '.join(sorted(_SCHEMES))}")
        return Source("address", text)
    path = Path(text)
    if not path.exists():
        raise VideoReadError(f"source {text!r} is no file, no camera number, no address and not -: give one of these")
    if path.is_dir():
        raise VideoReadError(f"source {text} is a folder: give a file in it, or use videomae timeline for all")
    return Source("file", text)


class PipeFile:
    """Standard input for the codec library: waits for bytes, and can be told to stop waiting."""

    name = "pipe"

    def __init__(self, stop: threading.Event, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._stop = stop
        self.is_over = False
        """Whether its end was read."""

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; empty at the end."""
        descriptor = sys.stdin.fileno() if self._descriptor is None else self._descriptor
        while not self._stop.is_set():
            if select.select([descriptor], [], [], POLL_SECONDS)[0]:
                data = os.read(descriptor, size)
                self.is_over = not data
                return data
        return b""


def open_source(source: Source, *, timeout: float, pipe: PipeFile | None = None) -> InputContainer:
    """Open a source.

    Args:
        source: From `parse_source`.
        timeout: Seconds that opening, and each read, may take.
        pipe: Standard input, for a source that is the pipe.

    Returns:
        The container; the caller closes it.

    Raises:
        VideoReadError: If it cannot be opened, or has no video.
    """
    probed = min(PROBED_SECONDS, PROBED_OF_TIMEOUT * timeout)
    options = {"analyzeduration": str(round(1e6 * probed)), "probesize": str(PROBED_BYTES)}
    container_format = None
    if source.kind == "camera":
        container_format, options = ("v4l2" if sys.platform == "linux" else None), {}
    if source.name.lower().startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # over UDP a full buffer loses parts of frames
    target = pipe if source.kind == "pipe" else source.name
    limit = None if source.kind in ("pipe", "file") else (timeout, timeout)
    started = time.monotonic()
    try:
        container: InputContainer = av.open(target, "r", format=container_format, options=options, timeout=limit)
    except LIBRARY_ERRORS as error:
        late = time.monotonic() - started >= timeout
        why = f"nothing came in {timeout:g} seconds" if late and limit else reason(error)
        raise VideoReadError(f"{source.shown} cannot be opened: {why}") from None
    if not container.streams.video:
        container.close()
        raise VideoReadError(f"{source.shown} has no video")
    return container
