"""Videos with one fault each, for the tests of `collection/`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from odd_videos import cut, encode_video, turn
from videomae.data.synthetic import MOTION_CLASSES, motion_frames
from videomae.video.decode import VideoReader
from videomae.video.write import write_video

QUARTER_TURN = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)


def good_video(path: Path, seed: int, *, num_frames: int = 24, size: int = 64) -> Path:
    """Write a generated video; another seed, another video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = MOTION_CLASSES[seed % len(MOTION_CLASSES)]
    write_video(path, motion_frames(name, size=size, num_frames=num_frames, rng=np.random.default_rng(seed)))
    return path


def changed_copy(
    path: Path, target: Path, *, size: tuple[int, int] | None = None, bars: int = 0, sides: int = 0, quality: int = 30
) -> Path:
    """Encode a video again: of another size, with black bars above and below or at the sides, or just worse."""
    from PIL import Image

    frames = []
    with VideoReader(path) as reader:
        for frame in reader.all_frames():
            image = Image.fromarray(frame)
            image = image.resize(size, Image.Resampling.BILINEAR) if size else image
            frames.append(np.pad(np.asarray(image), ((bars, bars), (sides, sides), (0, 0))))
    write_video(target, frames, quality=quality)
    return target


def textured(path: Path, seed: int, *, times: Sequence[int] | None = None, **settings: object) -> Path:
    """Encode noise of a seed that drifts; see `odd_videos.encode_video`."""
    return encode_video(path, times=times, **{"num_frames": 24, "seed": seed, **settings})  # type: ignore[arg-type]


def audio_only(path: Path) -> Path:
    """Write a file with a second of a tone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        tone: NDArray[np.float32] = np.sin(np.arange(16000) / 10).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def plant_faults(root: Path) -> dict[str, str]:
    """Write one video with each fault into a folder; returns the kind of finding by file name."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "text.mp4").write_bytes(b"not a video" * 100)
    cut(textured(root / "whole.tmp.mp4", 1, layout={"movflags": "+faststart"}), root / "cut.mp4", 0.6)
    cut(root / "whole.tmp.mp4", root / "cut_index.mp4", 0.02)
    (root / "whole.tmp.mp4").unlink()
    cut(textured(root / "late.tmp.mp4", 9), root / "cut_late.mp4", 0.6)
    (root / "late.tmp.mp4").unlink()
    audio_only(root / "sound.mp4")
    good_video(root / "short.mp4", 102, num_frames=8)
    times = [40 * number + (23 if number % 3 else 0) for number in range(24)]
    textured(root / "variable.mkv", 3, times=times)
    textured(root / "odd.mp4", 4, size=(47, 63), pix_fmt="yuv444p")
    turn(textured(root / "turned.mp4", 5), QUARTER_TURN)
    header = textured(root / "header.avi", 6, codec="mpeg4")
    data = bytearray(header.read_bytes())
    place = data.index(b"strh") + 40  # dwLength of the first stream
    data[place : place + 4] = (20).to_bytes(4, "little")
    header.write_bytes(data)
    shutil.copy(good_video(root / "a.mp4", 103), root / "b.mp4")
    changed_copy(good_video(root / "c.mp4", 104), root / "d.mp4", size=(96, 48), bars=12)
    return {
        "text.mp4": "unreadable",
        "cut.mp4": "truncated",
        "cut_index.mp4": "truncated",
        "cut_late.mp4": "truncated",
        "sound.mp4": "audio_only",
        "short.mp4": "too_short",
        "variable.mkv": "variable_rate",
        "odd.mp4": "odd_size",
        "turned.mp4": "rotated",
        "header.avi": "frame_count",
        "a.mp4": "exact_duplicate",
        "c.mp4": "near_duplicate",
    }
