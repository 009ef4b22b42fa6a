"""What a video file says of itself: size, rate, codec, rotation, and which stream holds the video.

Decodes a single frame, because only that tells whether a stream can be decoded and how it is turned.
"""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, cast

from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame

from videomae.errors import NoVideoError, TruncatedVideoError, VideoReadError
from videomae.video.addresses import shown_path
from videomae.video.encoded import EncodedFile, EncodedVideo
from videomae.video.packets import PacketFacts, packet_facts
from videomae.video.rgb import Orientation, frame_orientation
from videomae.video.stream import VideoSource

VIDEO_SUFFIXES: frozenset[str] = frozenset(
    ".3g2 .3gp .asf .avi .f4v .flv .gif .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts".split()
    + ".mxf .ogv .ts .vob .webm .wmv".split()
)
"""Endings, in lower case with their dot, by which a folder's videos are told from its other files."""

# Numbers of transfer characteristics in ITU-T H.273, which FFmpeg uses too.
_HDR_CURVES: dict[int, Literal["pq", "hlg"]] = {16: "pq", 18: "hlg"}


@dataclass(frozen=True)
class VideoInfo:
    """Facts of one video, as the container and the first frame tell them."""

    path: Path
    """The file; of a video that is none, what messages call it."""
    width: int
    """Columns of a frame as it is shown, rotation applied, pixels."""
    height: int
    """Rows of a frame as it is shown, pixels."""
    num_frames_claimed: int | None
    """Frames that the container says it holds; None where it does not say. Not always true: see VideoReader."""
    frame_rate: float | None
    """Frames per second, as the container states or its first packets suggest."""
    duration_seconds: float | None
    """Length of the video stream, else of the file; None where neither is known."""
    codec: str
    """Name of the compression, such as h264, hevc, vp9, av1."""
    rotation_degrees: int
    """Clockwise turn already applied to every frame read: 0, 90, 180 or 270."""
    is_mirrored: bool
    """True where frames are also reflected left to right after the turn."""
    stream_index: int
    """Index of the stream in the container."""
    has_audio: bool
    """True where the file also holds sound."""
    hdr: Literal["pq", "hlg"] | None = None
    """Transfer curve of high dynamic range: SMPTE ST 2084 or ARIB STD-B67 (ITU-R BT.2100). Frames are given with that
    curve, not mapped to standard range, and so look flat. None: standard dynamic range, or not said."""


class OpenedVideo(NamedTuple):
    """A usable video stream, just after its first frame."""

    file: EncodedFile
    source: VideoSource
    info: VideoInfo
    orientation: Orientation
    first_frame: VideoFrame
    packets: list[PacketFacts]
    """Packets read so far; the source stands behind the last."""


def probe(video: EncodedVideo) -> VideoInfo:
    """Return the facts of a video without reading it whole.

    Args:
        video: A video file of any kind that FFmpeg reads: path, address, content or open file, see `EncodedFile`.

    Returns:
        The facts of the first usable video stream.

    Raises:
        VideoReadError: If the file cannot be read or holds no video that decodes.
    """
    file = EncodedFile(video)
    try:
        opened = open_video(file)
        opened.source.close()
        return opened.info
    finally:
        file.close()


def open_video(file: EncodedFile) -> OpenedVideo:
    """Open the first video stream of a file that is neither a cover image nor undecodable.

    Args:
        file: A video file.

    Returns:
        The open stream and its facts; the caller closes it.

    Raises:
        VideoReadError: If there is none.
    """
    name = file.name
    with ExitStack() as to_close:  # whatever fails, no container stays open
        container = to_close.enter_context(file.open_container())
        streams = [stream for stream in container.streams.video if not _is_cover(stream)]
        content = _content(container)
        # None where FFmpeg has no decoder; PyAV's stubs do not say so.
        usable = [stream.index for stream in streams if cast(object, stream.codec_context) is not None]
        for stream_index in usable:
            opened = _first_frame(file, VideoSource(name, container, stream_index))
            if opened is not None:
                to_close.pop_all()
                return opened
            container.close()
            container = to_close.enter_context(file.open_container())  # the next stream starts at the beginning again
    if not streams:
        raise NoVideoError(f"{name} has no video stream, only {content}")
    raise VideoReadError(
        f"{name} has a video stream, but no frame of it can be decoded: it is damaged, empty, or in an unknown codec"
    )


def _first_frame(file: EncodedFile, source: VideoSource) -> OpenedVideo | None:
    """Decode until the first frame; None if there is none."""
    packets: list[PacketFacts] = []
    frames: list[VideoFrame] = []
    for packet in source.packets():
        packets.append(packet_facts(packet))
        frames = source.decode(packet)
        if frames:
            break
    else:
        frames = source.decode(None)  # a stream so short that the decoder held all of it back
    if not frames:
        return None
    orientation = frame_orientation(frames[0])
    return OpenedVideo(file, source, _info(source, frames[0], orientation), orientation, frames[0], packets)


def _info(source: VideoSource, frame: VideoFrame, orientation: Orientation) -> VideoInfo:
    stream, container = source.stream, source.container
    width, height = frame.width, frame.height
    rate = stream.average_rate or stream.guessed_rate
    return VideoInfo(
        path=shown_path(source.path),
        width=height if orientation.transpose else width,
        height=width if orientation.transpose else height,
        num_frames_claimed=stream.frames or None,
        frame_rate=float(rate) if rate else None,
        duration_seconds=_duration_seconds(stream, container),
        codec=stream.codec_context.codec.canonical_name,
        rotation_degrees=orientation.rotation_degrees,
        is_mirrored=orientation.is_mirrored,
        stream_index=stream.index,
        has_audio=bool(container.streams.audio),
        hdr=_HDR_CURVES.get(int(frame.color_trc)),
    )


def _duration_seconds(stream: Stream, container: InputContainer) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None  # microseconds


def _is_cover(stream: Stream) -> bool:
    """Tell an image that illustrates the file, such as an album cover, from a video."""
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _content(container: InputContainer) -> str:
    """Say what a file without video holds, such as "audio" or "audio and a cover image"."""
    kinds = sorted({stream.type for stream in container.streams if stream.type != "video"})
    covers = ["a cover image"] if container.streams.video else []
    return " and ".join([*kinds, *covers]) or "nothing"


def check_complete(opened: OpenedVideo, packets: list[PacketFacts]) -> None:
    """Refuse a file that ends well before what its container promises.

    What counts: frames that the container's own index places beyond the end of the file, frames that an AVI header
    claims beside the time of the last one, unless the file is as long as its chunks, and seconds that a Matroska or
    Flash header claims beside those found. A claim that is off by little (3 frames, one second, or a twentieth) is no
    truncation; the container was written carelessly.

    Args:
        opened: The video.
        packets: All packets of its stream.

    Raises:
        TruncatedVideoError: If the file is truncated.
    """
    path, entries = opened.file.name, opened.source.stream.index_entries
    formats = opened.source.container.format.name.split(",")
    promised, missing = len(entries), 0
    if len(packets) < promised:
        missing = sum(entry.pos + entry.size > opened.file.size_bytes for entry in entries)
    if "avi" in formats and opened.info.num_frames_claimed:
        promised = opened.info.num_frames_claimed
        # Frames that were dropped are claimed too, and have no packet: a capture program keeps their time free.
        times = [time for packet in packets if (time := packet.pts if packet.dts is None else packet.dts) is not None]
        missing = promised - max(len(packets), len(entries), max(times, default=-1) + 1)
        if missing > 0 and _has_all_chunks(opened.file):
            missing = 0  # the last frames were dropped
    if missing > max(3, promised // 20):
        raise TruncatedVideoError(
            f"{path} is truncated: it promises {promised} frames, but only {promised - missing} are in the file; "
            "copy or download it again"
        )
    seconds = _promised_seconds(opened) if {"matroska", "flv"}.intersection(formats) else None
    times = sorted(packet.pts for packet in packets if packet.pts is not None)
    if seconds is None or len(times) < 2:
        return
    unit = float(opened.source.stream.time_base or 0)
    longest = unit * max(later - earlier for earlier, later in pairwise(times))  # the last frame may last as long
    if seconds - unit * times[-1] > max(1.0, seconds / 20, 2 * longest):
        found = f"{unit * times[-1]:.1f}"
        raise TruncatedVideoError(
            f"{path} is truncated: it promises {seconds:.1f} seconds of video, but only {found} are in the file; "
            "copy or download it again"
        )


def _has_all_chunks(file: EncodedFile) -> bool:
    """Tell whether an AVI file holds its outermost chunks to their ends; each begins with RIFF and its size."""
    end_of_file, position = file.size_bytes, 0
    while position < end_of_file:
        head = file.read_at(position, 8)
        size = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or size == 0:  # 0: the writer never came to fill it in
            return position > 0 and head[:4] != b"RIFF"  # something else behind whole chunks
        position += 8 + size + size % 2
    return position - end_of_file <= 1  # the byte that makes a chunk even may be left out


def _promised_seconds(opened: OpenedVideo) -> float | None:
    """Return how long the header says that the video is; None where it only speaks of the file as a whole."""
    hours, colon, rest = opened.source.stream.metadata.get("DURATION", "").partition(":")
    if colon:
        minutes, _, seconds = rest.partition(":")
        with contextlib.suppress(ValueError):
            return 3600 * float(hours) + 60 * float(minutes) + float(seconds)
    is_alone = len(opened.source.container.streams) == 1  # else the sound may be what lasts so long
    return opened.info.duration_seconds if is_alone else None
