"""Long videos in seconds of work: a few seconds are encoded, and their packets repeated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from videomae.data.synthetic import FRAME_RATE, MOTION_CLASSES, motion_frames
from videomae.engine.seeding import numpy_generator
from videomae.video.write import write_video

BASE_SECONDS = 4  # of what a camera sees, until it is repeated


def repeated_video(path: Path, *, seconds: float, size: int = 240) -> Path:
    """Write a video of any length: 15 seconds of moving shapes, repeated."""
    base = path.with_name("base.mp4")
    rng = numpy_generator(0, "benchmark")
    clips = [motion_frames(name, size=size, num_frames=75, rng=rng) for name in MOTION_CLASSES[:5]]
    write_video(base, np.concatenate(clips), frame_rate=FRAME_RATE, keyframe_interval=50)
    return repeated(base, path, seconds=seconds)


def camera_video(path: Path, *, seconds: float, height: int) -> Path:
    """Write a video as cameras and editors do: 16 to 9, x264's own settings, B-frames, a moving view with noise."""
    base, width = path.with_name("base.mp4"), height * 16 // 9 // 2 * 2
    with av.open(str(base), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in _camera_frames(height, width, round(BASE_SECONDS * 25)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return repeated(base, path, seconds=seconds)


def repeated(base: Path, path: Path, *, seconds: float) -> Path:
    """Write the packets of a video again and again, and delete it; returns the path."""
    with av.open(str(base)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(source.streams.video[0]) if packet.dts is not None]
        content = [(bytes(packet), packet.pts, packet.dts, packet.duration, packet.is_keyframe) for packet in packets]
        time_base, length = packets[0].time_base, sum(packet.duration or 0 for packet in packets)
        for number in range(max(1, round(seconds / float(length * time_base)))):
            for data, pts, dts, duration, is_key in content:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, time_base, is_key
                shift = number * length
                packet.pts, packet.dts, packet.duration = (pts or 0) + shift, (dts or 0) + shift, duration
                target.mux(packet)
    base.unlink()
    return path


def _camera_frames(height: int, width: int, num_frames: int) -> Iterator[np.ndarray]:
    """Yield frames of a view that pans over a smooth picture, with things that move in it and a sensor's noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0 : height + num_frames, 0 : width + 2 * num_frames]
    waves = [np.sin(rows / a + columns / b + c) for a, b, c in ((17, 31, 0.0), (43, 29, 1.0), (97, 71, 2.0))]
    picture = np.stack([118 + 40 * one + 30 * other for one, other in zip(waves, waves[1:] + waves[:1], strict=True)])
    picture = picture.transpose(1, 2, 0).astype(np.float32)  # [H, W, 3]
    noise = rng.normal(0, 2.5, (4, height, width, 1)).astype(np.float32)
    side = height // 6
    for number in range(num_frames):
        frame = picture[number : number + height, 2 * number : 2 * number + width] + noise[number % 4]
        for thing in range(5):
            top = (height // 7 * thing + 3 * number) % (height - side)
            left = (width // 5 * thing + (7 - 3 * thing) * number) % (width - side)
            frame[top : top + side, left : left + side] *= 0.4 + 0.2 * thing
        yield frame.clip(0, 255).astype(np.uint8)
