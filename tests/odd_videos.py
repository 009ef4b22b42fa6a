"""What the tests of `video/` and `collection/` have in common: odd files, and the reference for reading.

Files are made, and the truth is decoded, with the codec library directly and nothing of the package.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoReadError
from videomae.video.decode import VideoReader


def textured_frames(num_frames: int, height: int, width: int, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Frames that no codec can make alike: noise that drifts, brighter from frame to frame."""
    noise = np.random.default_rng(seed).integers(0, 120, (height, 2 * width, 3), dtype=np.uint8)
    for time in range(num_frames):
        start = 3 * time % width
        yield noise[:, start : start + width] + np.uint8(time % 120)


def encode_video(
    path: Path,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    num_frames: int = 30,
    size: tuple[int, int] = (48, 64),
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    layout: dict[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Encode textured frames at 25 frames per second, or at `times` in thousandths of a second."""
    with av.open(str(path), "w", options=layout or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1  # libvpx's threads wait by spinning: minutes on a busy machine
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame in enumerate(textured_frames(num_frames, *size, seed)):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts = number if times is None else times[number]
            picture.time_base = Fraction(1, 25) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def turn(path: Path, matrix: Sequence[int]) -> Path:
    """Write a display matrix, in units of 1/65536, into the track header of an MP4 file."""
    data = path.read_bytes()
    identity = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    place = data.index(identity, data.index(b"tkhd"))
    path.write_bytes(data[:place] + np.array(matrix, ">i4").tobytes() + data[place + len(identity) :])
    return path


def sequential_decode(path: Path, stream_index: int = 0, *, num_threads: int = 2) -> Iterator[NDArray[np.uint8]]:
    """The truth: every frame that a plain decode from the beginning gives, as stored, damaged packets skipped.

    Several threads show that the number of threads changes nothing; for damaged files use one, because the library
    loses pictures when several threads meet damage at the end.
    """
    with av.open(str(path)) as container:
        stream = container.streams[stream_index]
        stream.thread_type, stream.codec_context.thread_count = "FRAME", num_threads
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                packet = None
            with contextlib.suppress(av.FFmpegError):
                for picture in stream.codec_context.decode(packet if packet and packet.size else None):
                    yield picture.to_ndarray(format="rgb24")
            if packet is None or not packet.size:
                return


def digest(frame: NDArray[np.uint8]) -> int:
    """A frame's checksum, so that a test need not hold a whole video."""
    return zlib.crc32(np.ascontiguousarray(frame))


def cut(path, target, keep):
    data = path.read_bytes()
    target.write_bytes(data[: int(len(data) * keep)])
    return target


def damaged(path, target, *, packet, keep=5):
    """Copy a video with all but the first bytes of one packet overwritten: its structure stays intact."""
    with av.open(str(path)) as container:
        found = [(item.pos, item.size) for item in container.demux(video=0) if item.size][packet]
    data = bytearray(path.read_bytes())
    data[found[0] + keep : found[0] + found[1]] = bytes(found[1] - keep)
    target.write_bytes(data)
    return target


def assert_reads_like_the_truth(path, *, expected=None, single_reads=None):
    """Frames asked one by one in shuffled order, shuffled with repeats, and in sequence: all equal the truth."""
    if expected is None:
        expected = [digest(frame) for frame in sequential_decode(path)]
    assert expected
    order = np.random.default_rng(1).permutation(len(expected))
    with VideoReader(path) as reader:
        for number in order[:single_reads].tolist():
            frame = reader.frames([number])[0]
            assert digest(frame) == expected[number], f"frame {number} of {path.name}"
        assert len(reader) == len(expected)
        assert [digest(frame) for frame in reader.all_frames()] == expected
        chosen = np.concatenate([order, order[:3]])[: 24 if single_reads else None]
        frames = reader.frames(chosen)
        assert [digest(frame) for frame in frames] == [expected[number] for number in chosen]
        assert frames.shape[1:] == (reader.info.height, reader.info.width, 3)
        times = reader.timestamps_seconds
        assert len(times) == len(expected)
        assert times[0] == 0
        assert (np.diff(times) > 0).all()


def read_through(reader):
    """All frames, asked for again where the first read meets damage that costs some of them."""
    num_frames, frames = -1, None
    while num_frames != len(reader):
        num_frames = len(reader)
        try:
            frames = reader.frames(range(num_frames))
        except VideoReadError:
            if len(reader) == num_frames:
                raise
    return frames
