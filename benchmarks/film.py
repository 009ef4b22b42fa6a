"""Generated H.264 clips of the size, rate and settings of Kinetics, and an hour of one of them.

A textured background that pans, textured objects that move before it, and the noise of a camera; encoded with x264's
defaults, about 200 kbit/s; those of Kinetics have more, and take longer to decode.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 340, 256  # of the widely used copies of Kinetics
FRAME_RATE = 30
CAMERA_NOISE = 4.5  # standard deviation, of 255


def texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return noise of all scales, colored, `[height, width, 3]` around 0."""
    total = np.zeros((height, width, 3), np.float32)
    for cells in (3, 8, 20, 60, 180):
        small = rng.normal(size=(cells, cells, 3)) * 90 / cells**0.5
        for channel in range(3):
            image = Image.fromarray(small[..., channel].astype(np.float32))
            total[..., channel] += np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    gray: NDArray[np.float32] = total.mean(axis=-1, keepdims=True)
    return gray + np.float32(0.4) * (total - gray)


def write_clip(path: Path, *, seed: int, num_frames: int) -> None:
    """Write one clip.

    Args:
        path: An .mp4 file.
        seed: Another seed, another clip.
        num_frames: Frames.
    """
    rng = np.random.default_rng(seed)
    scene = texture(rng, 2 * HEIGHT, 2 * WIDTH)
    sprites = [texture(rng, side, side) + rng.normal(0, 40, 3) for side in rng.integers(40, 110, 4).tolist()]
    starts, speeds = rng.uniform(0, 1, (4, 2)), rng.uniform(-0.012, 0.012, (4, 2))
    pan = rng.uniform(-1.2, 1.2, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for time in range(num_frames):
            turn = np.sin(pan * time / 60)
            top, left = int(HEIGHT * (0.5 + turn[0] / 3)), int(WIDTH * (0.5 + turn[1] / 3))
            frame = scene[top : top + HEIGHT, left : left + WIDTH] + 120
            for sprite, start, speed in zip(sprites, starts, speeds, strict=True):
                side = len(sprite)
                y, x = np.abs((start + speed * time) % 2 - 1) * (HEIGHT - side, WIDTH - side)
                frame[int(y) : int(y) + side, int(x) : int(x) + side] = sprite + 120
            frame = frame + rng.normal(0, CAMERA_NOISE, frame.shape).astype(np.float32)
            picture = av.VideoFrame.from_ndarray(frame.clip(0, 255).astype(np.uint8), format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, FRAME_RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def write_repeated(source: Path, path: Path, *, times: int) -> None:
    """Write a clip several times behind itself, without encoding it again."""
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = container.streams.video[0]
        target = output.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        period = round(sum(packet.duration or 0 for packet in packets))
        for turn in range(times):
            for packet in packets:
                copy = cast("Packet[VideoStream]", Packet(bytes(packet)))
                copy.pts, copy.dts = (packet.pts or 0) + turn * period, (packet.dts or 0) + turn * period
                copy.duration, copy.time_base = packet.duration, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, target
                output.mux(copy)
