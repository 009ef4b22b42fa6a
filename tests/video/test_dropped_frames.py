"""AVI files in which frames were dropped are whole; those that are cut off are not."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from videomae.errors import VideoReadError
from videomae.video.decode import VideoReader

CODECS = (("mpeg4", "yuv420p"), ("mjpeg", "yuvj420p"), ("h264", "yuv420p"))
SLOTS = {
    "none": range(120),
    "every tenth": [number for number in range(120) if number % 10 != 9],
    "every second": range(0, 120, 2),
    "a second in the middle": [number for number in range(120) if not 50 <= number < 80],
}


def record(
    path: Path, slots: Iterable[int], *, codec: str = "mpeg4", pix_fmt: str = "yuv420p", rate: int = 30
) -> Path:
    """Write an AVI with a picture in some of its slots of time; a bar grows from picture to picture."""
    with av.open(str(path), "w", format="avi") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        for number, slot in enumerate(slots):
            picture = np.full((48, 64, 3), 40, np.uint8)
            picture[:, : 2 + number % 60] = 200
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = slot, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def num_decoded(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("dropped", SLOTS)
@pytest.mark.parametrize(("codec", "pix_fmt"), CODECS)
def test_an_avi_with_dropped_frames_is_whole(tmp_path: Path, codec: str, pix_fmt: str, dropped: str) -> None:
    slots = list(SLOTS[dropped])
    path = record(tmp_path / "a.avi", slots, codec=codec, pix_fmt=pix_fmt)
    assert num_decoded(path) == len(slots)
    with VideoReader(path) as reader:
        assert len(reader) == len(slots)
        frames = reader.frames(range(len(slots)))
        for number, frame in enumerate(reader.all_frames()):
            np.testing.assert_array_equal(frames[number], frame)
        if codec != "h264":  # of frames that are stored in another order an AVI has no true times
            np.testing.assert_allclose(reader.timestamps_seconds, (np.array(slots) - slots[0]) / 30, atol=1e-6)


def test_pictures_in_a_fine_time_base_are_whole(tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", range(0, 5000, 50), rate=1000)
    with VideoReader(path) as reader:
        assert len(reader) == num_decoded(path) == 100


@pytest.mark.parametrize("dropped", ["none", "every tenth", "every second"])
def test_an_avi_that_is_cut_off_is_refused_whatever_was_dropped(tmp_path: Path, dropped: str) -> None:
    path = record(tmp_path / "a.avi", SLOTS[dropped])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(VideoReadError, match=r"is truncated: it promises 1[12][0-9] frames, but only [0-9]+ are"):
        VideoReader(path)


def test_an_avi_whose_last_frames_were_dropped_is_told_by_its_chunks(tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", range(60))
    content = bytearray(path.read_bytes())
    for name in (b"avih", b"strh"):  # headers that count 60 slots more, as for dropped frames at the end
        start = content.index(name) + 8 + (16 if name == b"avih" else 32)
        assert int.from_bytes(content[start : start + 4], "little") == 60
        content[start : start + 4] = (120).to_bytes(4, "little")
    path.write_bytes(content)
    with VideoReader(path) as reader:
        assert len(reader) == 60
    path.write_bytes(content[:-3000])
    with pytest.raises(VideoReadError, match="is truncated: it promises 120 frames"):
        VideoReader(path)
