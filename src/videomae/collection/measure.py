"""One video file, decoded from end to end: what the check of a collection needs to know of it.

Runs in processes of its own and imports no torch. What the facts mean is told in `findings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from videomae.collection.fingerprints import NUM_SAMPLES, Fingerprint, fingerprint
from videomae.errors import NoVideoError, TruncatedVideoError, VideoReadError
from videomae.video.decode import VideoReader
from videomae.video.encoded import EncodedFile, open_container
from videomae.video.index_store import IndexStore
from videomae.video.opening import open_reader, size_of
from videomae.video.probe import VideoInfo
from videomae.video.rgb import ByteArray, frame_orientation
from videomae.video.stream import VideoSource

LONG_SIDE = 160  # pixels of a sampled frame: enough to find borders to a hundredth of it
CHUNK_BYTES = 1 << 20

Fault = Literal["unreadable", "truncated", "audio_only"]
Part = tuple[float | None, float | None]


class FileJob(NamedTuple):
    """What to measure."""

    path: Path
    """A video."""
    parts: tuple[Part, ...] = ()
    """Start and end in seconds of the parts of it that the collection names; empty: the whole."""
    store: IndexStore | None = None
    """Keeps what is known of the files of the collection."""


@dataclass(frozen=True)
class FileFacts:
    """What one file holds."""

    path: Path
    """The file."""
    size_bytes: int
    """Size of the file; 0 where it is gone."""
    digest: str | None = None
    """SHA-256 of the content; None where it cannot be read."""
    fault: Fault | None = None
    """Why no clip can be taken from it."""
    reason: str = ""
    """The fault as one line."""
    info: VideoInfo | None = None
    """What the container and the first frame say."""
    num_frames: int = 0
    """Frames that decode."""
    num_damaged: int = 0
    """Packets and frames behind the first frame that are damaged."""
    is_variable: bool = False
    """True where the time from frame to frame changes."""
    seconds: float = 0.0
    """How long the frames are shown in all, the last as long as the others on average."""
    part_frames: Mapping[Part, int] = field(default_factory=dict)
    """Frames of each part that was asked for."""
    fingerprint: Fingerprint | None = None
    """What it looks like."""


def measure_file(job: FileJob) -> FileFacts:
    """Decode a file from end to end; a file that cannot be read is described, not raised."""
    path = job.path
    facts = FileFacts(path, 0)
    try:
        facts = replace(facts, size_bytes=max(size_of(path, ask=True), 0), digest=content_digest(path))
        return _decoded(job, facts)
    except VideoReadError as error:
        if facts.digest is not None and not path.is_dir() and ends_inside_a_box(path):
            reason = f"{path} is truncated: its last part is longer than the rest of the file; copy it again"
            return replace(facts, fault="truncated", reason=reason)
        return replace(facts, fault=_fault(error), reason=_line(error))
    except OSError as error:
        return replace(facts, fault="unreadable", reason=f"{path} cannot be read: {error.strerror or error}")


def _fault(error: VideoReadError) -> Fault:
    match error:
        case NoVideoError():
            return "audio_only"
        case TruncatedVideoError():
            return "truncated"
    return "unreadable"


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names.

    Raises:
        VideoReadError: If it cannot be read.
    """
    digest = sha256()
    for part in sorted(path.iterdir()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(part.name.encode("utf-8", "surrogatepass") + b"\0")
        with closing(EncodedFile(part)) as file:
            for position in range(0, file.size_bytes, CHUNK_BYTES):
                digest.update(file.read_at(position, CHUNK_BYTES))
    return digest.hexdigest()


def ends_inside_a_box(path: Path) -> bool:
    """Tell whether an MP4 or MOV file ends before its last outermost box does: what is behind it is missing."""
    position = 0
    with closing(EncodedFile(path)) as file:
        end_of_file = file.size_bytes
        while position + 8 <= end_of_file:
            head = file.read_at(position, 16)
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if position == 0 and kind not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                return False
            if size == 1:  # the size is too large for four bytes and stands behind the kind
                size = int.from_bytes(head[8:16], "big")
            if size < 8:  # 0: to the end of the file
                return False
            position += size
    return position > end_of_file


def is_variable_rate(ticks: NDArray[np.int64]) -> bool:
    """Tell whether frames come at a variable rate.

    The time from one frame to the next may be off by what rounding to the stream's time base explains, one tick where
    a frame lasts at least four, or by a tenth of the usual time; a frame in a hundred may be off by more, such as one
    that the camera has dropped.

    Args:
        ticks: `[N]`, ascending presentation times in units of the time base.
    """
    intervals = np.diff(ticks)
    if len(intervals) < 2:
        return False
    usual = float(np.median(intervals))
    allowed = max(1.0, usual / 10) if usual >= 4 else 0.5
    return int((np.abs(intervals - usual) > allowed).sum()) > max(1, len(intervals) // 100)


def _decoded(job: FileJob, facts: FileFacts) -> FileFacts:
    with open_reader(job.path, store=job.store) as reader:
        info, expected, times = reader.info, len(reader), reader.timestamps_seconds
        counts = {part: _num_inside(times, *part) for part in job.parts}
        usual = times[-1] / (len(times) - 1) if len(times) > 1 else 1 / (info.frame_rate or 25.0)
        facts = replace(facts, info=info, part_frames=counts, seconds=float(times[-1] + usual))
        is_file = isinstance(reader, VideoReader)
        wanted = sample_positions(expected)
        pictures = [] if is_file else [_shrunk(frame) for frame in reader.frames(wanted)]
    if not is_file:  # a folder of pictures: what it says is what it holds
        return replace(facts, num_frames=expected, fingerprint=fingerprint(np.stack(pictures)))
    samples: list[ByteArray] = []
    ticks: list[int | None] = []
    num_damaged = 0
    reformatter = VideoReformatter()
    with VideoSource(str(job.path), open_container(str(job.path)), info.stream_index) as source:
        for number, frame in enumerate(_noted(source, ticks)):
            if number == 0:
                source.num_errors = 0  # a recording may begin between two keyframes; that is no damage
            num_damaged += frame.is_corrupt and number > 0
            while len(samples) < len(wanted) and wanted[len(samples)] == number:
                samples.append(_gray(reformatter, frame, like=samples))
        num_damaged += source.num_errors
    known = np.array([tick for tick in ticks if tick is not None], np.int64)
    is_timed = len(known) == len(ticks) and bool((np.diff(known) > 0).all())
    return replace(
        facts,
        num_frames=len(ticks),
        num_damaged=num_damaged,
        is_variable=is_timed and is_variable_rate(known),
        fingerprint=fingerprint(np.stack(samples)) if samples else None,
    )


def sample_positions(num_frames: int) -> list[int]:
    """Return the frames of a video that its fingerprint is made of: the middles of equal parts."""
    return [int((number + 0.5) * num_frames / NUM_SAMPLES) for number in range(NUM_SAMPLES)]


def _noted(source: VideoSource, ticks: list[int | None]) -> Iterator[VideoFrame]:
    for frame in source.frames(source.packets()):
        ticks.append(frame.pts)
        yield frame


def _gray(reformatter: VideoReformatter, frame: VideoFrame, *, like: list[ByteArray]) -> ByteArray:
    """Return a frame in gray, turned and small; of the size of the first one, where the stream changes its size."""
    scale = min(LONG_SIDE / max(frame.width, frame.height), 1.0)
    width, height = (max(round(side * scale), 1) for side in (frame.width, frame.height))
    orientation = frame_orientation(frame)
    if like:
        height, width = like[0].shape[::-1] if orientation.transpose else like[0].shape
    small = reformatter.reformat(frame, width=width, height=height, format="gray", interpolation="AREA", threads=1)
    return np.ascontiguousarray(orientation.apply(small.to_ndarray().astype(np.uint8, copy=False)))


def _shrunk(frame: ByteArray) -> ByteArray:
    return _gray(VideoReformatter(), VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"), like=[])


def _num_inside(times: NDArray[np.float64], start: float | None, end: float | None) -> int:
    inside = np.ones(len(times), np.bool_)
    if start is not None:
        inside &= times >= start - 1e-6
    if end is not None:
        inside &= times < end - 1e-6
    return int(inside.sum())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
