"""What is known of a video once its packets have been read: all that it takes to read frames of it later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast
from zlib import crc32

from av.container import InputContainer

from videomae.video.direct import DirectAccess, direct_access
from videomae.video.encoded import EncodedFile
from videomae.video.index import FrameIndex, index_from_packets
from videomae.video.packets import packet_facts, packet_table
from videomae.video.probe import VideoInfo, check_complete, open_video
from videomae.video.rgb import Orientation
from videomae.video.stream import VideoSource


class ContainerFacts(NamedTuple):
    """What a container says as soon as it is open, by which another file of the same size and time is noticed."""

    format: str
    """FFmpeg's name of its format."""
    codec: str
    """Name of the stream's compression."""
    time_base: str
    """Unit of its times, seconds."""
    headers: int
    """CRC-32 of its headers."""


@dataclass(frozen=True)
class IndexedVideo:
    """A video of which all packets have been read."""

    info: VideoInfo
    """Facts of the video."""
    orientation: Orientation
    """How its frames are turned."""
    seconds_per_unit: float
    """The stream's time base."""
    container: ContainerFacts
    """How its container is known again."""
    index: FrameIndex | None
    """None: not known without decoding."""
    access: DirectAccess | None
    """None: frames are read through the container."""


def container_facts(container: InputContainer, stream_index: int) -> ContainerFacts | None:
    """Return what a container says of a stream; None where it has no such video."""
    if stream_index >= len(container.streams):
        return None
    stream = container.streams[stream_index]
    context = stream.codec_context
    if stream.type != "video" or cast(object, context) is None:
        return None
    return ContainerFacts(
        container.format.name,
        context.codec.canonical_name,
        str(stream.time_base),
        crc32(context.extradata or b""),
    )


def index_video(file: EncodedFile, *, allow_truncated: bool = False) -> tuple[IndexedVideo, VideoSource]:
    """Open a video and read its packets.

    Args:
        file: A video file.
        allow_truncated: Take a file that ends before what it promises for what is in it.

    Returns:
        What it holds, and the stream at its end; the caller closes that.

    Raises:
        VideoReadError: If it is no video, truncated, or no frame of it decodes.
    """
    opened = open_video(file)
    source = opened.source
    try:
        container = container_facts(source.container, opened.info.stream_index)
        assert container is not None
        packets = opened.packets + [packet_facts(packet) for packet in source.packets()]
        if not allow_truncated:
            check_complete(opened, packets)
        seconds_per_unit = float(source.stream.time_base or 0)
        index = access = None
        # The two fields of interlaced video may lie in packets of their own: left to the decoder.
        if not opened.first_frame.interlaced_frame:
            table = packet_table(packets)
            index = index_from_packets(table, codec=opened.info.codec, seconds_per_unit=seconds_per_unit)
        if index is not None:
            access = direct_access(source, file, packets)
    except BaseException:
        source.close()
        raise
    return IndexedVideo(opened.info, opened.orientation, seconds_per_unit, container, index, access), source
