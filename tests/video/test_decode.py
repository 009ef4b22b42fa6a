"""Reading by number equals a full sequential decode, whatever the file."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from odd_videos import digest, encode_video, sequential_decode, textured_frames
from PIL import Image

from videomae.errors import VideoReadError
from videomae.video.decode import VideoReader, read_clip
from videomae.video.stream import VideoSource

X264_SHORT_GROUPS = {"g": "6", "bf": "2"}


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


def count_decoded_packets(monkeypatch):
    counted = []
    original = VideoSource.decode

    def decode(self, packet):
        counted.append(packet)
        return original(self, packet)

    monkeypatch.setattr(VideoSource, "decode", decode)
    return counted


# ---- files made here: codecs and containers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("b_frames.mp4", {"options": X264_SHORT_GROUPS}),
        ("deep_b_frames.mp4", {"options": {"g": "16", "bf": "7", "b-pyramid": "normal", "refs": "5"}}),
        ("open_groups.mp4", {"options": {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0"}}),
        ("open_groups.ts", {"options": {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0"}}),
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
        ("late_start.ts", {"times": range(10_000, 11_200, 40)}),
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


def test_gif_frames_equal_those_of_another_decoder(tmp_path):
    path = tmp_path / "pillow.gif"
    images = [Image.fromarray(frame // 64 * 64) for frame in textured_frames(9, 48, 64)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=[50, 120, 40, 50, 50, 300, 50, 50, 50])
    with Image.open(path) as image:
        expected = []
        for number in range(image.n_frames):
            image.seek(number)
            expected.append(digest(np.asarray(image.convert("RGB"))))
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


# ---- files made here: containers that lie ---------------------------------------------------------------------


def test_a_container_whose_seek_table_is_wrong_is_read_right(tmp_path):
    path = encode_video(tmp_path / "keys.mp4", options={"g": "10", "bf": "0", "sc_threshold": "0"})
    data = path.read_bytes()
    table = data.index(b"stss") + 8  # after name and flags: the count, then sample numbers from 1
    assert np.frombuffer(data[table : table + 16], ">u4").tolist() == [3, 1, 11, 21]
    path.write_bytes(data[: table + 8] + np.array([16, 24], ">u4").tobytes() + data[table + 16 :])
    assert_reads_like_the_truth(path)


def test_a_container_that_calls_every_packet_a_keyframe_is_read_right(tmp_path):
    path = encode_video(tmp_path / "keys.flv", codec="flv", options={"g": "10"})
    data, tag = bytearray(path.read_bytes()), 13
    while tag < len(data):
        if data[tag] == 9 and data[tag + 11] == 0x22:  # a video tag that holds an inter frame of Sorenson's codec
            data[tag + 11] = 0x12
        tag += 15 + int.from_bytes(data[tag + 1 : tag + 4], "big")
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    with av.open(str(path)) as container:
        assert 1 < sum(picture.key_frame for picture in container.decode(video=0)) < 30
    assert_reads_like_the_truth(path)


def test_a_recording_that_begins_between_two_keyframes_is_read_right(tmp_path):
    whole = encode_video(tmp_path / "whole.ts", options=X264_SHORT_GROUPS).read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(whole[len(whole) // 188 * 4 // 10 * 188 :])
    expected = [digest(frame) for frame in sequential_decode(path, num_threads=1)]
    assert 3 < len(expected) < 28
    assert_reads_like_the_truth(path, expected=expected)


def test_recordings_joined_end_to_end_are_read_in_the_order_of_the_file(tmp_path):
    """Times start again in the middle, so they cannot number the frames."""
    whole = encode_video(tmp_path / "whole.ts", options=X264_SHORT_GROUPS).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(whole + whole)
    expected = [digest(frame) for frame in sequential_decode(path)]
    assert len(expected) > 55
    assert_reads_like_the_truth(path, expected=expected)


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path):
    small = encode_video(tmp_path / "small.ts", options=X264_SHORT_GROUPS).read_bytes()
    large = encode_video(tmp_path / "large.ts", options=X264_SHORT_GROUPS, size=(96, 80)).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(small + large)
    sizes = {frame.shape for frame in sequential_decode(path)}
    assert sizes == {(48, 64, 3), (96, 80, 3)}
    with VideoReader(path) as reader:
        in_sequence = [digest(frame) for frame in reader.all_frames()]
        frames = reader.frames(range(len(reader)))
    assert frames.shape[1:] == (48, 64, 3)
    assert [digest(frame) for frame in frames] == in_sequence


def damaged(path, target, *, packet, keep=5):
    """Copy a video with all but the first bytes of one packet overwritten: its structure stays intact."""
    with av.open(str(path)) as container:
        found = [(item.pos, item.size) for item in container.demux(video=0) if item.size][packet]
    data = bytearray(path.read_bytes())
    data[found[0] + keep : found[0] + found[1]] = bytes(found[1] - keep)
    target.write_bytes(data)
    return target


def test_damage_that_costs_a_frame_is_noticed_when_passed_and_the_frames_are_numbered_anew(tmp_path):
    whole = encode_video(tmp_path / "whole.mp4", num_frames=96, options={"g": "12", "bf": "0", "sc_threshold": "0"})
    path = damaged(whole, tmp_path / "damaged.mp4", packet=30)
    expected = [digest(frame) for frame in sequential_decode(path, num_threads=1)]
    assert len(expected) == 95
    with VideoReader(path) as reader:
        assert digest(reader.frames([5])[0]) == expected[5]
        assert len(reader) == 96  # what the documentation of VideoReader leaves open
        assert digest(reader.frames([34])[0]) == expected[34]
        assert len(reader) == 95
        with pytest.raises(VideoReadError, match=r"frame 95 was asked of .* which has frames 0 to 94"):
            reader.frames([95])
        assert [digest(frame) for frame in reader.frames(range(95))] == expected


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


@pytest.mark.parametrize(("codec", "name"), [("libx264", "x.mp4"), ("libx265", "x.mp4"), ("mpeg4", "x.avi")])
def test_randomly_damaged_files_read_like_the_truth_once_read_through_or_are_refused(tmp_path, codec, name):
    options = {"g": "12", "bf": "2", "x265-params": "keyint=12:bframes=2:log-level=none"}
    whole = encode_video(tmp_path / f"whole_{name}", codec=codec, num_frames=48, options=options)
    with av.open(str(whole)) as container:
        places = [item.pos + byte for item in container.demux(video=0) for byte in range(item.size)]
    rng = np.random.default_rng(7)
    path, num_read, num_refused = tmp_path / name, 0, 0
    for _ in range(25):
        data = bytearray(whole.read_bytes())
        start = int(rng.choice(places))
        data[start : start + 20] = rng.bytes(len(data[start : start + 20]))
        path.write_bytes(data)
        try:
            with VideoReader(path) as reader:
                frames = read_through(reader)
        except VideoReadError:
            num_refused += 1
            continue
        assert [digest(frame) for frame in frames] == [
            digest(frame) for frame in sequential_decode(path, num_threads=1)
        ]
        num_read += 1
    assert num_read + num_refused == 25
    assert num_read > 10


# ---- the shared files -----------------------------------------------------------------------------------------

WITHOUT_FRAMES = {
    "sample_ac3.ts": "has no video stream, only audio",
    "sample_malformed_free_box.mp4": "cannot be read as video: invalid data.* damaged, cut off, or not a video",
    "invalid-bitstream.webm": "has a video stream, but no frame of it can be decoded",
}


def shared_videos(shared_folder):
    videos = [path for path in sorted((shared_folder / "videos").rglob("*")) if path.is_file()]
    return [path for path in videos if path.suffix != ".md"]


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
        assert_reads_like_the_truth(path, expected=expected, single_reads=max(3, min(40, 2_000_000 // num_pixels)))
        met["read"] += 1
    assert met == {"read": 21, "refused": 3}


def test_a_handful_of_each_data_set_reads_like_the_truth(shared_folder):
    classes = [folder for folder in sorted((shared_folder / "datasets").glob("*/*")) if folder.is_dir()]
    assert len(classes) == 6
    for folder in classes:
        for path in sorted(folder.glob("*.mp4"))[:2]:
            assert_reads_like_the_truth(path, single_reads=5)


# ---- speed and memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("h264.mp4", {"options": {"g": "10", "bf": "2"}}),
        ("h264.mkv", {"options": {"g": "10", "bf": "2"}}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=10:bframes=2:log-level=none"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"g": "10", "lag-in-frames": "16", "auto-alt-ref": "1"}}),
        ("mpeg4.mp4", {"codec": "mpeg4", "options": {"g": "10", "bf": "2"}}),
    ],
)
def test_a_late_frame_costs_one_group_of_pictures(tmp_path, monkeypatch, name, settings):
    if settings.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this PyAV's FFmpeg has no encoder {settings['codec']}")
    path = encode_video(tmp_path / name, num_frames=200, **settings)
    decoded = count_decoded_packets(monkeypatch)
    with VideoReader(path) as reader:
        reader.frames([187])
    assert len(decoded) <= 40  # the first picture, one group, and what the decoder holds back; not 187


def test_frames_of_one_clip_are_decoded_once(tmp_path, monkeypatch):
    path = encode_video(tmp_path / "long.mp4", num_frames=100, options={"g": "100", "bf": "0"})
    decoded = count_decoded_packets(monkeypatch)
    with VideoReader(path) as reader:
        reader.frames([80, 3, 40, 3, 80, 60])
        assert len(decoded) <= 90
        reader.frames([82, 85])  # goes on where it stands
        assert len(decoded) <= 95


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


def test_names_that_look_like_protocols_or_patterns_are_only_names(tmp_path, monkeypatch, tiny_video):
    monkeypatch.chdir(tmp_path)
    for name in ("pipe:0", "a:b %03d *.mp4", "café 日本.mp4", "-i"):
        Path(name).write_bytes(tiny_video.read_bytes())
        with VideoReader(name) as reader:
            assert len(reader) == 40


# ---- files that cannot be read --------------------------------------------------------------------------------


def cut(path, target, keep):
    data = path.read_bytes()
    target.write_bytes(data[: int(len(data) * keep)])
    return target


@pytest.mark.parametrize(
    ("name", "keep", "message"),
    [
        (
            "front_index.mp4",
            0.6,
            "is truncated: it promises 100 frames, but only [4-7][0-9] are in the file; copy or",
        ),
        ("front_index.mp4", 0.1, "is truncated: it promises 100 frames, but only [0-9] are in the file"),
        ("end_index.mp4", 0.6, "cannot be read as video: invalid data .*; it is damaged, cut off, or not a video"),
        ("clip.avi", 0.6, "is truncated: it promises 100 frames, but only [4-7][0-9] are in the file"),
        ("clip.mkv", 0.6, r"is truncated: it promises 4\.0 seconds of video, but only [12]\.[0-9] are in the file"),
    ],
)
def test_a_truncated_file_is_refused(tmp_path, name, keep, message):
    layout = {"movflags": "faststart"} if name == "front_index.mp4" else {}
    whole = encode_video(tmp_path / f"whole_{name}", num_frames=100, options={"g": "10"}, layout=layout)
    assert_reads_like_the_truth(whole, single_reads=5)
    with pytest.raises(VideoReadError, match=message) as caught:
        VideoReader(cut(whole, tmp_path / name, keep))
    assert "\n" not in str(caught.value)


def test_a_file_that_lost_only_its_last_frames_is_read(tmp_path):
    options = {"g": "10"}
    whole = encode_video(tmp_path / "w.mp4", num_frames=100, options=options, layout={"movflags": "faststart"})
    path = cut(whole, tmp_path / "cut.mp4", 0.985)
    expected = [digest(frame) for frame in sequential_decode(path, num_threads=1)]
    assert 94 < len(expected) < 100
    assert_reads_like_the_truth(path, expected=expected)


def test_a_truncated_recording_that_promises_nothing_gives_the_frames_it_has(tmp_path):
    whole = encode_video(tmp_path / "whole.ts", num_frames=100, options={"g": "10"})
    path = cut(whole, tmp_path / "cut.ts", 0.6)
    expected = [digest(frame) for frame in sequential_decode(path, num_threads=1)]
    assert 40 < len(expected) < 80
    assert_reads_like_the_truth(path, expected=expected)


def test_a_file_of_which_much_does_not_decode_is_refused(tmp_path):
    path = encode_video(tmp_path / "damaged.mp4", num_frames=60, options={"g": "1"})
    for packet in range(10, 40):
        damaged(path, path, packet=packet)
    with VideoReader(path) as reader, pytest.raises(VideoReadError, match="is damaged: 60 packets give only 30 fram"):
        reader.frames([5, 15, 50])


def sound_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_files_that_are_no_video_say_why_on_one_line(tmp_path, tiny_video):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 200)
    (tmp_path / "notes.txt").write_text("this is not a video\n" * 200)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "other.mp4").write_bytes(tiny_video.read_bytes())
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    sound_only(tmp_path / "sound.m4a")
    cases = {
        "missing.mp4": "missing.mp4 cannot be opened: no such file or directory",
        ".": " is a folder: name a video file in it",
        "empty.mp4": "empty.mp4 is empty (0 bytes): copy or download it again",
        "text.mp4": "text.mp4 cannot be read as video: invalid data found when processing input; it is damaged, cut "
        "off, or not a video",
        "notes.txt": "notes.txt is a text file, not a video",
        "noise.mp4": "it is damaged, cut off, or not a video",
        "list.mp4": "list.mp4 is a text file, not a video",
        "sound.m4a": "sound.m4a has no video stream, only audio",
    }
    for name, message in cases.items():
        with pytest.raises(VideoReadError) as caught:
            VideoReader(tmp_path / name)
        assert str(caught.value).endswith(message)
        assert "\n" not in str(caught.value)


def test_the_codec_library_prints_nothing(tmp_path):
    path = encode_video(tmp_path / "whole.mp4", num_frames=48, options={"g": "12"})
    damaged(path, path, packet=20)
    program = """
import sys
from videomae.errors import VideoReadError
from videomae.video.decode import VideoReader
with VideoReader(sys.argv[1]) as reader:
    print(len(list(reader.all_frames())))
try:
    VideoReader(sys.argv[2])
except VideoReadError:
    print("refused")
"""
    (tmp_path / "text.mp4").write_text("no video")
    arguments = [sys.executable, "-c", program, str(path), str(tmp_path / "text.mp4")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split()[-1] == "refused"
    assert done.stderr == ""
