"""Colors as the file declares them, frames scaled while they are converted, and what is not converted said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from odd_videos import encode_video, textured_frames, turn
from videomae.errors import ConfigError
from videomae.video.decode import VideoReader, read_clip
from videomae.video.probe import probe

ONE = 1 << 16  # 1.0 in a display matrix
# Luma weights of red and blue: ITU-R BT.601, BT.709, BT.2020.
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
MATRIX = {"bt601": 6, "bt709": 1, "bt2020": 9}  # their numbers in ITU-T H.273
COLORS = ((180, 70, 60), (60, 150, 80), (70, 60, 170), (200, 190, 60), (120, 120, 120), (30, 30, 30), (240, 240, 240))


def ycbcr(color: tuple[int, int, int], matrix: str, *, is_full: bool) -> tuple[int, int, int]:
    """A color in 8-bit components, by the definition of the recommendations."""
    red_weight, blue_weight = WEIGHTS[matrix]
    red, green, blue = (value / 255 for value in color)
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    differences = (blue - luma) / (2 - 2 * blue_weight), (red - luma) / (2 - 2 * red_weight)
    scales = (255, 0, 255) if is_full else (219, 16, 224)
    values = scales[0] * luma + scales[1], *(scales[2] * difference + 128 for difference in differences)
    return tuple(round(value) for value in values)  # type: ignore[return-value]


def write_color(path: Path, color: tuple[int, int, int], matrix: str, *, is_full: bool, trc: int = 1) -> Path:
    """Write one plain color, lossless, declared in the stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = MATRIX[matrix], 2 if is_full else 1
        context.color_primaries, context.color_trc = 9 if matrix == "bt2020" else 1, trc
        picture = av.VideoFrame(64, 48, "yuv420p")
        for plane, value in zip(picture.planes, ycbcr(color, matrix, is_full=is_full), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        picture.colorspace, picture.color_range = context.colorspace, context.color_range
        for _ in range(3):
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", WEIGHTS)
def test_the_matrix_and_range_that_a_file_declares_are_used(tmp_path: Path, matrix: str, is_full: bool) -> None:
    for number, color in enumerate(COLORS):
        path = write_color(tmp_path / f"{number}.mp4", color, matrix, is_full=is_full)
        for size in (None, (20, 30)):
            frame = read_clip(path, [1], size=size)[0]
            assert np.abs(frame.astype(int) - color).max() <= 3, (color, frame[5, 5])


def test_high_dynamic_range_is_said(tmp_path: Path) -> None:
    for trc, said in ((16, "pq"), (18, "hlg"), (1, None), (14, None)):
        path = write_color(tmp_path / f"{trc}.mp4", COLORS[0], "bt2020", is_full=False, trc=trc)
        assert probe(path).hdr == said
        with VideoReader(path) as reader:
            assert reader.info.hdr == said


def pillow_resized(frames: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    resized = [Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR) for frame in frames]
    return np.stack([np.asarray(image) for image in resized])


def smooth_video(path: Path, *, size: tuple[int, int] = (192, 256), pix_fmt: str = "yuv420p") -> Path:
    """Frames with structure of all sizes but the smallest, and of little color, as those of cameras."""
    height, width = size
    small = np.stack(list(textured_frames(6, height // 8, width // 8)))
    small = (small.mean(axis=-1, keepdims=True) * (1.0, 0.9, 0.7)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        for frame in small:
            large = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("size", [(96, 128), (37, 51), (224, 224)])
def test_frames_scaled_while_decoding_are_those_resized_afterwards_but_for_rounding(
    tmp_path: Path, size: tuple[int, int], pix_fmt: str
) -> None:
    path = smooth_video(tmp_path / "a.mp4", pix_fmt=pix_fmt)
    frames = read_clip(path, [4, 0, 4], size=size)
    assert (frames.shape, frames.dtype) == ((3, *size, 3), np.uint8)
    assert (frames[0] == frames[2]).all()
    difference = np.abs(frames.astype(int) - pillow_resized(read_clip(path, [4, 0, 4]), *size))
    assert difference.mean() < 2.0


def test_the_size_is_that_after_the_turn(tmp_path: Path) -> None:
    path = turn(smooth_video(tmp_path / "a.mp4"), [0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30])
    with VideoReader(path) as reader:
        assert (reader.info.width, reader.info.height) == (192, 256)
        frames, whole = reader.frames([2], size=(128, 60)), reader.frames([2])
        assert np.abs(frames.astype(int) - pillow_resized(whole, 128, 60)).mean() < 2.0
        with pytest.raises(ConfigError, match=r"size is \(0, 60\); it is a height and a width in pixels, at least 1"):
            reader.frames([2], size=(0, 60))


def test_scaling_while_decoding_makes_no_array_of_the_video_s_own_size(tmp_path: Path) -> None:
    program = """
import resource, sys
from videomae.video.decode import VideoReader
with VideoReader(sys.argv[1]) as reader:
    reader.frames([0], size=(64, 64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader.frames(range(8), size=(224, 224))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    path = encode_video(tmp_path / "large.mp4", num_frames=8, size=(1440, 2560), options={"preset": "ultrafast"})
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    one_frame_kib = 1440 * 2560 * 3 / 1024  # 11 MB; eight of them would be 88
    assert int(done.stdout) < 2.5 * one_frame_kib  # the decoder has a few of its own
