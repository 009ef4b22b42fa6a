"""Reading by number equals a full sequential decode, whatever the file."""

import os
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from odd_videos import assert_reads_like_the_truth, digest, encode_video, sequential_decode, textured_frames
from videomae.errors import VideoReadError
from videomae.video.decode import VideoReader, read_clip
from videomae.video.stream import VideoSource

X264_SHORT_GROUPS = {"g": "6", "bf": "2"}
OPEN_GROUPS = "open-gop=1:keyint={0}:min-keyint={0}:bframes=3:b-adapt=0:scenecut=0"


def count_calls(monkeypatch, owner, name):
    calls = []
    original = getattr(owner, name)

    def counted(*arguments):
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(owner, name, counted)
    return calls


# ---- files made here: codecs and containers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("b_frames.mp4", {"options": X264_SHORT_GROUPS}),
        ("deep_b_frames.mp4", {"options": {"g": "16", "bf": "7", "b-pyramid": "normal", "refs": "5"}}),
        ("open_groups.mp4", {"options": {"x264-params": OPEN_GROUPS.format(8)}}),
        ("open_groups.ts", {"options": {"x264-params": OPEN_GROUPS.format(8)}}),
        ("intra_refresh.mp4", {"options": {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}}),
        ("ten_bit.mp4", {"options": X264_SHORT_GROUPS, "pix_fmt": "yuv420p10le"}),
        ("interlaced.mp4", {"options": X264_SHORT_GROUPS | {"x264-params": "interlaced=1"}}),
        ("odd_size.mp4", {"options": X264_SHORT_GROUPS, "pix_fmt": "yuv444p", "size": (49, 65)}),
        ("full_range.mp4", {"options": X264_SHORT_GROUPS, "pix_fmt": "yuvj420p"}),
        ("fragments.mp4", {"options": X264_SHORT_GROUPS, "layout": {"movflags": "frag_keyframe+empty_moov"}}),
        ("quicktime.mov", {"options": X264_SHORT_GROUPS}),
        ("matroska.mkv", {"options": X264_SHORT_GROUPS}),
        ("transport.ts", {"options": X264_SHORT_GROUPS}),
        ("flash.flv", {"options": X264_SHORT_GROUPS}),
        ("no_true_times.avi", {"options": X264_SHORT_GROUPS}),
        ("no_times.h264", {"options": X264_SHORT_GROUPS}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=8:bframes=3:log-level=none"}}),
        ("hevc_open.mkv", {"codec": "libx265", "options": {"x265-params": "keyint=8:open-gop=1:log-level=none"}}),
        ("vp8.webm", {"codec": "libvpx", "options": {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "16"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "16"}}),
        ("av1.mp4", {"codec": "libsvtav1", "options": {"g": "10", "preset": "12", "svtav1-params": "lp=1"}}),
        ("mpeg4.mp4", {"codec": "mpeg4", "options": {"g": "6", "bf": "2"}}),
        ("mpeg4.avi", {"codec": "mpeg4", "options": {"g": "6", "bf": "2"}}),
        ("mpeg2.ts", {"codec": "mpeg2video", "options": {"g": "6", "bf": "2"}}),
        ("mpeg1.mpg", {"codec": "mpeg1video", "options": {"g": "6", "bf": "2"}}),
        ("motion_jpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("ffv1.mkv", {"codec": "ffv1", "options": {"g": "5"}}),
        ("prores.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
        ("sorenson.flv", {"codec": "flv", "options": {"g": "6"}}),
        ("windows_media.wmv", {"codec": "wmv2", "options": {"g": "6"}}),
        ("h263.3gp", {"codec": "h263", "size": (96, 128)}),
        ("palette.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
        ("one_frame.mp4", {"num_frames": 1}),
        ("two_frames.mp4", {"num_frames": 2, "options": {"bf": "2"}}),
        ("variable_rate.mp4", {"times": [0, 10, 40, 41, 300, *range(1000, 3500, 100)]}),
        ("variable_rate.mkv", {"times": [7, 10, 40, 41, 300, *range(1000, 3500, 100)]}),
        ("late_start.mp4", {"times": range(10_000, 11_200, 40)}),
        ("late_start.mkv", {"times": range(10_000, 11_200, 40)}),
        ("late_start.ts", {"times": range(10_000, 11_200, 40)}),
        ("slide_show.mkv", {"times": range(0, 150_000, 5000)}),
        ("slide_show.flv", {"times": range(0, 150_000, 5000)}),
    ],
)
def test_random_access_equals_sequential_decode_for_every_codec_and_container(tmp_path, name, settings):
    codec = settings.get("codec", "libx264")
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV's FFmpeg has no encoder {codec}")
    path = encode_video(tmp_path / name, **settings)
    expected = [digest(frame) for frame in sequential_decode(path)]
    assert len(set(expected)) == len(expected) == settings.get("num_frames", 30)
    assert_reads_like_the_truth(path, expected=expected)


@pytest.mark.parametrize(("suffix", "picture_format"), [("gif", "GIF"), ("apng", "PNG")])
def test_animated_images_equal_those_of_another_decoder(tmp_path, suffix, picture_format):
    """A frame of these holds only what changes, yet may be called a keyframe."""
    path = tmp_path / f"animation.{suffix}"
    background = next(textured_frames(1, 48, 64)) // 64 * 64
    images = []
    for time in range(9):
        frame = background.copy()
        frame[10:20, 5 * time : 5 * time + 10] = (192, 64, 0)
        images.append(Image.fromarray(frame))
    durations = [50, 120, 40, 50, 50, 300, 50, 50, 50]
    images[0].save(path, picture_format, save_all=True, append_images=images[1:], duration=durations)
    with Image.open(path) as image:
        expected = []
        for number in range(image.n_frames):
            image.seek(number)
            expected.append(digest(np.asarray(image.convert("RGB"))))
    assert len(set(expected)) == 9
    assert_reads_like_the_truth(path, expected=expected)
    with VideoReader(path) as reader:
        assert reader.timestamps_seconds[:3].tolist() == pytest.approx([0, 0.05, 0.17])


def test_timestamps_are_the_presentation_times_of_the_frames_from_the_first_on(tmp_path):
    times = [500, 510, 540, 541, 800, *range(1000, 1500, 100)]
    path = encode_video(tmp_path / "variable.mp4", num_frames=10, times=times, options={"bf": "2"})
    with VideoReader(path) as reader:
        assert reader.timestamps_seconds.tolist() == pytest.approx([(time - 500) / 1000 for time in times])


def test_timestamps_are_spaced_by_the_frame_rate_where_the_file_has_none(tmp_path):
    path = encode_video(tmp_path / "no_times.h264", num_frames=10)
    with VideoReader(path) as reader:
        assert reader.timestamps_seconds.tolist() == pytest.approx([number / 25 for number in range(10)])


# ---- the shared files -----------------------------------------------------------------------------------------

WITHOUT_FRAMES = {
    "sample_ac3.ts": "has no video stream, only audio",
    "sample_malformed_free_box.mp4": "cannot be read as video: invalid data.* damaged, cut off, or not a video",
    "invalid-bitstream.webm": "has a video stream, but no frame of it can be decoded",
}


def shared_videos(shared_folder):
    videos = [path for path in sorted((shared_folder / "videos").rglob("*")) if path.is_file()]
    # Commands that were tried there have left frame indices, in `.videomae`.
    return [path for path in videos if path.suffix != ".md" and ".videomae" not in path.parts]


def test_every_shared_video_reads_like_the_truth_or_says_why_not(shared_folder):
    met = {"read": 0, "refused": 0}
    for path in shared_videos(shared_folder):
        if path.name in WITHOUT_FRAMES:
            with pytest.raises(VideoReadError, match=f"^.*{path.name} {WITHOUT_FRAMES[path.name]}") as caught:
                VideoReader(path)
            assert "\n" not in str(caught.value)
            met["refused"] += 1
            continue
        with VideoReader(path) as reader:
            stored = sequential_decode(path, reader.info.stream_index)
            num_pixels = reader.info.width * reader.info.height
        if path.name == "sample_rotate_and_reflect.mp4":
            stored = (frame.swapaxes(0, 1) for frame in stored)
        expected = [digest(frame) for frame in stored]
        assert_reads_like_the_truth(path, expected=expected, single_reads=max(2, min(40, 1_500_000 // num_pixels)))
        met["read"] += 1
    assert met == {"read": 21, "refused": 3}


def test_a_video_of_each_class_of_each_data_set_reads_like_the_truth(shared_folder):
    classes = [folder for folder in sorted((shared_folder / "datasets").glob("*/[!.]*")) if folder.is_dir()]
    assert len(classes) == 6
    for folder in classes:
        assert_reads_like_the_truth(sorted(folder.glob("*.mp4"))[0], single_reads=5)


# ---- speed and memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("h264.mp4", {"options": {"g": "10", "bf": "2"}}),
        ("h264.mkv", {"options": {"g": "10", "bf": "2"}}),
        ("h264.ts", {"options": {"g": "10", "bf": "2"}}),
        ("open_groups.mp4", {"options": {"x264-params": OPEN_GROUPS.format(10)}}),
        ("mpeg2.ts", {"codec": "mpeg2video", "options": {"g": "10", "bf": "2"}}),
        ("vp8.webm", {"codec": "libvpx", "options": {"g": "10"}}),
        ("av1.mp4", {"codec": "libsvtav1", "options": {"g": "10", "preset": "12", "svtav1-params": "lp=1"}}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=10:bframes=2:log-level=none"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"g": "10", "lag-in-frames": "16", "auto-alt-ref": "1"}}),
        ("mpeg4.mp4", {"codec": "mpeg4", "options": {"g": "10", "bf": "2"}}),
    ],
)
def test_a_late_frame_costs_one_group_of_pictures(tmp_path, monkeypatch, name, settings):
    if settings.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this PyAV's FFmpeg has no encoder {settings['codec']}")
    path = encode_video(tmp_path / name, num_frames=200, **settings)
    decoded = count_calls(monkeypatch, VideoSource, "decode")
    opened = count_calls(monkeypatch, VideoSource, "__init__")
    with VideoReader(path) as reader:
        reader.frames([187])
        assert len(decoded) <= 45  # the first picture, one group, and what the decoder holds back; not 187
        reader.frames([3])
        reader.frames([5, 151])
        assert len(decoded) <= 110
    assert len(opened) == 1


def test_frames_of_one_clip_are_decoded_once(tmp_path, monkeypatch):
    path = encode_video(tmp_path / "long.mp4", num_frames=100, options={"g": "100", "bf": "0"})
    decoded = count_calls(monkeypatch, VideoSource, "decode")
    with VideoReader(path) as reader:
        reader.frames([80, 3, 40, 3, 80, 60])
        assert len(decoded) <= 90
        reader.frames([82, 85])  # goes on where it stands
        assert len(decoded) <= 95


@pytest.mark.slow
def test_memory_is_that_of_the_frames_asked_for(tmp_path):
    program = """
import resource, sys, tracemalloc
from videomae.video.decode import VideoReader
with VideoReader(sys.argv[1]) as reader:
    reader.frames([0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader.frames([299, 7])
    assert sum(1 for _ in reader.all_frames()) == 300
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    path = encode_video(tmp_path / "long.mp4", num_frames=300, size=(240, 320), options={"g": "300"})
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    all_frames_kib = 300 * 240 * 320 * 3 / 1024
    assert int(done.stdout) < 0.3 * all_frames_kib


# ---- the reader as an object ----------------------------------------------------------------------------------


def test_frames_come_in_the_order_asked_with_repeats(tiny_video, tiny_frames):
    with VideoReader(tiny_video) as reader:
        frames = reader.frames([39, 0, 39, 12])
    assert frames.shape == (4, 48, 64, 3)
    assert frames.dtype == np.uint8
    assert (frames[0] == frames[2]).all()
    wanted = tiny_frames[[39, 0, 39, 12]].astype(int)
    nearest = [int(np.abs(tiny_frames.astype(int) - frame).mean(axis=(1, 2, 3)).argmin()) for frame in frames]
    assert nearest == [39, 0, 39, 12]
    assert np.abs(frames - wanted).mean() < 4


def test_no_frames_asked_gives_an_empty_clip(tiny_video):
    assert read_clip(tiny_video, []).shape == (0, 48, 64, 3)


def test_read_clip_reads_and_closes(tiny_video):
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with VideoReader(tiny_video) as reader:
        expected = reader.frames([1, 30])
    assert (read_clip(str(tiny_video), np.array([1, 30])) == expected).all()
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


def test_iterating_does_not_disturb_reading_by_number(tiny_video):
    with VideoReader(tiny_video) as reader:
        expected = list(reader.all_frames())
        for number, frame in enumerate(reader.all_frames()):
            assert (frame == expected[number]).all()
            assert (reader.frames([39 - number])[0] == expected[39 - number]).all()


@pytest.mark.parametrize("number", [40, -1])
def test_a_frame_that_is_not_there_is_named(tiny_video, number):
    with (
        VideoReader(tiny_video) as reader,
        pytest.raises(VideoReadError, match=rf"frame {number} was asked of .*tiny\.mp4, which has frames 0 to 39"),
    ):
        reader.frames([3, number])


def test_a_closed_reader_says_so(tiny_video):
    with VideoReader(tiny_video) as reader:
        pass
    with pytest.raises(VideoReadError, match=r"tiny\.mp4 was closed: read frames before"):
        reader.frames([0])
