"""Written videos read back as they were, and a failed write leaves nothing."""

import os
import subprocess
import sys

import av
import numpy as np
import pytest

from videomae.errors import ConfigError
from videomae.video.decode import VideoReader
from videomae.video.write import CONTAINER_FORMATS, write_video


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", None])
@pytest.mark.parametrize("suffix", sorted(CONTAINER_FORMATS))
def test_written_frames_read_back_in_order_and_nearly_as_they_were(tmp_path, tiny_frames, codec, suffix):
    path = tmp_path / f"clip{suffix}"
    write_video(path, tiny_frames, codec=codec, frame_rate=30000 / 1001)
    with VideoReader(path) as reader:
        frames = reader.frames(range(40))
        assert len(reader) == 40
        assert reader.info.frame_rate == pytest.approx(30000 / 1001, rel=1e-3)
        assert reader.timestamps_seconds[-1] == pytest.approx(39 * 1001 / 30000, abs=2e-3)
        assert reader.info.codec == ("mpeg4" if codec == "mpeg4" else "h264")
    assert np.abs(frames.astype(int) - tiny_frames).mean() < 4
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_plain_colors_survive(tmp_path, codec):
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 100, 50)], np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (6, 32, 48, 3))
    write_video(tmp_path / "colours.mp4", frames, codec=codec, quality=5)
    with VideoReader(tmp_path / "colours.mp4") as reader:
        assert np.abs(reader.frames(range(6)).astype(int) - frames).max() <= 3


def test_frames_may_come_one_by_one(tmp_path, tiny_frames):
    write_video(tmp_path / "array.mp4", tiny_frames)
    write_video(tmp_path / "iterator.mp4", (frame for frame in tiny_frames))
    assert (tmp_path / "array.mp4").read_bytes() == (tmp_path / "iterator.mp4").read_bytes()


def test_keyframes_come_as_often_as_asked(tmp_path, tiny_frames):
    for interval in (1, 5, 12):
        write_video(tmp_path / "clip.mp4", tiny_frames, keyframe_interval=interval)
        with av.open(str(tmp_path / "clip.mp4")) as container:
            keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
        assert np.diff([*keys, 40]).max() <= interval


def test_worse_quality_makes_smaller_files(tmp_path, tiny_frames):
    for codec in ("libx264", "mpeg4"):
        sizes = []
        for quality in (1, 18, 35):
            write_video(tmp_path / "clip.mp4", tiny_frames, codec=codec, quality=quality)
            sizes.append((tmp_path / "clip.mp4").stat().st_size)
        assert sizes[0] > sizes[1] > sizes[2]


def test_the_index_stands_in_front(tmp_path, tiny_frames):
    write_video(tmp_path / "clip.mp4", tiny_frames)
    data = (tmp_path / "clip.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_same_frames_give_the_same_bytes_every_time(tmp_path, tiny_frames, codec, suffix):
    written = set()
    for _ in range(8):
        write_video(tmp_path / f"clip{suffix}", tiny_frames, codec=codec)
        written.add((tmp_path / f"clip{suffix}").read_bytes())
    assert len(written) == 1


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="needs a system that can tie a process to a processor"
)
def test_the_same_frames_give_the_same_bytes_on_one_processor(tmp_path, tiny_frames):
    write_video(tmp_path / "here.mp4", tiny_frames)
    np.save(tmp_path / "frames.npy", tiny_frames)
    program = """
import os, sys, numpy
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from videomae.video.write import write_video
write_video(sys.argv[1], numpy.load(sys.argv[2]))
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "there.mp4"), str(tmp_path / "frames.npy")]
    subprocess.run(arguments, check=True, timeout=120)
    assert (tmp_path / "there.mp4").read_bytes() == (tmp_path / "here.mp4").read_bytes()


def failing_frames(frames):
    yield from frames[:20]
    raise RuntimeError("the camera fell over")


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path, tiny_frames):
    path = tmp_path / "clip.mp4"
    with pytest.raises(RuntimeError, match="the camera fell over"):
        write_video(path, failing_frames(tiny_frames))
    assert os.listdir(tmp_path) == []
    path.write_bytes(b"the old file")
    with pytest.raises(RuntimeError, match="the camera fell over"):
        write_video(path, failing_frames(tiny_frames))
    assert os.listdir(tmp_path) == ["clip.mp4"]
    assert path.read_bytes() == b"the old file"


def test_a_file_is_replaced_whole_and_never_written_over(tmp_path, tiny_frames):
    path, other_name = tmp_path / "clip.mp4", tmp_path / "other.mp4"
    path.write_bytes(b"the old file")
    other_name.hardlink_to(path)
    write_video(path, tiny_frames)
    assert other_name.read_bytes() == b"the old file"  # what a reader that has the file open still sees
    with VideoReader(path) as reader:
        assert len(reader) == 40


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    program = """
import resource, signal, sys, numpy
from videomae.video.write import write_video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = numpy.random.default_rng(0).integers(0, 256, (40, 128, 128, 3), dtype=numpy.uint8)
try:
    write_video(sys.argv[1], noise)
except OSError as error:
    print("refused")
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "clip.mp4")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "refused\n"
    assert done.stderr == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "frames", "settings", "message"),
    [
        (
            "x.mp4",
            np.zeros((2, 49, 64, 3), np.uint8),
            {},
            "are 64x49; video needs even sizes: crop or pad by one pixel",
        ),
        ("x.mp4", np.zeros((0, 48, 64, 3), np.uint8), {}, "cannot be written: there are no frames"),
        (
            "x.mp4",
            np.zeros((2, 48, 64, 3), np.float32),
            {},
            r"frame 0 of .* is float32 \[48, 64, 3\]; frames are uint8",
        ),
        (
            "x.mp4",
            np.zeros((2, 3, 48, 64), np.uint8),
            {},
            r"is uint8 \[3, 48, 64\]; frames are uint8 arrays \[H, W, 3\]",
        ),
        ("x.mp4", [[1, 2]], {}, r"frame 0 of .* is list; frames are uint8 arrays \[H, W, 3\]"),
        (
            "x.mp4",
            [np.zeros((48, 64, 3), np.uint8), np.zeros((48, 66, 3), np.uint8)],
            {},
            "frame 1 of .* is 66x48, the first is 64x48: all frames of a video have one size",
        ),
        ("x.xyz", np.zeros((2, 48, 64, 3), np.uint8), {}, r"its name must end with \.mp4, \.m4v, \.mov, \.mkv"),
        ("no/x.mp4", np.zeros((2, 48, 64, 3), np.uint8), {}, "its folder does not exist; create .*no first"),
        (
            "x.mp4",
            np.zeros((2, 48, 64, 3), np.uint8),
            {"frame_rate": 0.0},
            "frame_rate is 0; it is in frames per sec",
        ),
        ("x.mp4", np.zeros((2, 48, 64, 3), np.uint8), {"quality": 60}, r"quality is 60; it goes from 1 \(nearly"),
        ("x.mp4", np.zeros((2, 48, 64, 3), np.uint8), {"keyframe_interval": 0}, "keyframe_interval is 0; it is a"),
    ],
)
def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path, name, frames, settings, message):
    with pytest.raises(ConfigError, match=message):
        write_video(tmp_path / name, frames, **settings)
    assert os.listdir(tmp_path) == []
