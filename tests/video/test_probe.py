"""What a file says of itself, and which of its streams is the video."""

import io
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from odd_videos import (
    assert_reads_like_the_truth,
    cut,
    digest,
    encode_video,
    sequential_decode,
    textured_frames,
    turn,
)
from videomae.errors import VideoReadError
from videomae.video.decode import VideoReader
from videomae.video.probe import VIDEO_SUFFIXES, probe
from videomae.video.stream import VideoSource

ONE = 1 << 16  # 1.0 in a display matrix


def test_facts_of_a_video(tiny_video):
    info = probe(str(tiny_video))
    assert info.path == tiny_video
    assert (info.width, info.height, info.num_frames_claimed) == (64, 48, 40)
    assert info.frame_rate == pytest.approx(25)
    assert info.duration_seconds == pytest.approx(1.6)
    assert info.codec in ("h264", "mpeg4")
    assert (info.rotation_degrees, info.is_mirrored, info.stream_index, info.has_audio) == (0, False, 0, False)


@pytest.mark.parametrize(
    ("name", "settings", "codec", "claimed"),
    [
        ("x.mkv", {}, "h264", None),
        ("x.avi", {"codec": "mpeg4"}, "mpeg4", 30),
        ("x.mp4", {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}}, "av1", 30),
        ("x.webm", {"codec": "libvpx-vp9"}, "vp9", None),
        ("x.gif", {"codec": "gif", "pix_fmt": "rgb8"}, "gif", 30),
    ],
)
def test_codecs_are_called_by_their_own_name_and_claims_are_the_container_s(tmp_path, name, settings, codec, claimed):
    if settings.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this PyAV's FFmpeg has no encoder {settings['codec']}")
    info = probe(encode_video(tmp_path / name, **settings))
    assert (info.codec, info.num_frames_claimed) == (codec, claimed)


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "degrees", "is_mirrored"),
    [
        (1, 0, 0, 1, 0, False),
        (0, 1, -1, 0, 90, False),
        (-1, 0, 0, -1, 180, False),
        (0, -1, 1, 0, 270, False),
        (-1, 0, 0, 1, 0, True),
        (1, 0, 0, -1, 180, True),
        (0, 1, 1, 0, 90, True),
        (0, -1, -1, 0, 270, True),
    ],
)
def test_every_quarter_turn_and_reflection_is_applied(tmp_path, a, b, c, d, degrees, is_mirrored):
    """A pixel at (x, y) is shown at (a x + c y, b x + d y), moved into the picture: the definition of the matrix."""
    matrix = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]
    path = turn(encode_video(tmp_path / "turned.mp4", num_frames=8, options={"g": "4"}), matrix)
    stored = list(sequential_decode(path))
    y, x = np.mgrid[0:48, 0:64]
    new_x, new_y = a * x + c * y, b * x + d * y
    new_x, new_y = new_x - new_x.min(), new_y - new_y.min()
    with VideoReader(path) as reader:
        info, frames = reader.info, reader.frames([6, 1])
        in_sequence = list(reader.all_frames())
    assert (info.rotation_degrees, info.is_mirrored) == (degrees, is_mirrored)
    assert (info.width, info.height) == (new_x.max() + 1, new_y.max() + 1)
    shown = np.zeros_like(frames[0])
    for frame, number in zip(frames, [6, 1], strict=True):
        shown[new_y, new_x] = stored[number][y, x]
        assert (frame == shown).all()
        assert (in_sequence[number] == shown).all()


def test_a_clockwise_rotation_agrees_with_the_library_s_angle(tmp_path):
    whole = encode_video(tmp_path / "turned.mp4", num_frames=2)
    path = turn(whole, [0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30])
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation == -90  # it counts the other way round
    assert probe(path).rotation_degrees == 90


def test_a_matrix_that_slants_the_frame_is_not_followed(tmp_path):
    slant = [int(0.8 * ONE), int(0.6 * ONE), 0, int(-0.6 * ONE), int(0.8 * ONE), 0, 0, 0, 1 << 30]
    info = probe(turn(encode_video(tmp_path / "slanted.mp4", num_frames=2), slant))
    assert (info.rotation_degrees, info.width, info.height) == (0, 64, 48)


def two_streams(path, *, cover_first=False):
    """An MP4 of two video streams, of 64x48 and 96x80 pixels, with sound; or of a cover image and the second."""
    with av.open(str(path), "w") as container:
        first = container.add_stream("mjpeg" if cover_first else "libx264", rate=25)
        first.height, first.width, first.pix_fmt = 48, 64, "yuvj420p" if cover_first else "yuv420p"
        if cover_first:
            first.disposition = Disposition.attached_pic.value
        second = container.add_stream("libx264", rate=25)
        second.height, second.width, second.pix_fmt = 80, 96, "yuv420p"
        sound = container.add_stream("aac", rate=44100, layout="mono")
        for stream in (first, second):
            for number, frame in enumerate(textured_frames(10, stream.height, stream.width)):
                if number and cover_first and stream is first:
                    break
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    return path


def test_the_first_of_several_video_streams_is_read(tmp_path):
    info = probe(two_streams(tmp_path / "two.mp4"))
    assert (info.stream_index, info.width, info.has_audio) == (0, 64, True)


def test_a_cover_image_is_not_the_video(tmp_path):
    path = two_streams(tmp_path / "cover.mp4", cover_first=True)
    with av.open(str(path)) as container:
        covers = [bool(stream.disposition & Disposition.attached_pic) for stream in container.streams.video]
    assert sorted(covers) == [False, True]
    with VideoReader(path) as reader:
        assert (reader.info.width, reader.info.codec, len(reader)) == (96, "h264", 10)


def test_a_file_with_sound_and_a_cover_says_so(tmp_path):
    picture = io.BytesIO()
    Image.fromarray(next(textured_frames(1, 48, 64))).save(picture, "PNG")
    # The ID3 tag of an MP3 file: a frame APIC, that is encoding, type, kind (3: front cover), description, data.
    body = b"\x00image/png\x00\x03\x00" + picture.getvalue()
    frame = b"APIC" + len(body).to_bytes(4, "big") + b"\x00\x00" + body
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    sound = tmp_path / "plain.mp3"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("libmp3lame", rate=44100, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    path = tmp_path / "song.mp3"
    path.write_bytes(b"ID3\x03\x00\x00" + size + frame + sound.read_bytes())
    with pytest.raises(VideoReadError, match=r"song\.mp3 has no video stream, only audio and a cover image"):
        probe(path)


def test_a_stream_that_nothing_can_decode_is_passed_over(tmp_path):
    path = two_streams(tmp_path / "unknown.mp4")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzz1", 2).replace(b"zzz1", b"avc1", 1))  # the first is the file's brand
    with av.open(str(path)) as container:
        assert [stream.codec_context is None for stream in container.streams.video] == [True, False]
    with VideoReader(path) as reader:
        assert (reader.info.stream_index, reader.info.width, len(reader)) == (1, 96, 10)


def test_a_stream_without_a_frame_is_passed_over(tmp_path):
    path = two_streams(tmp_path / "empty.mp4")
    with av.open(str(path)) as container:
        places = [(item.pos, item.size) for item in container.demux(container.streams.video[0]) if item.size]
    data = bytearray(path.read_bytes())
    for position, size in places:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    assert probe(path).stream_index == 1


def test_tags_in_an_old_alphabet_do_not_hinder_reading(tmp_path, tiny_video):
    with av.open(str(tmp_path / "x.mp4"), "w") as container, av.open(str(tiny_video)) as source:
        container.metadata["title"] = "CAFE"
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    path = tmp_path / "latin.mp4"
    path.write_bytes((tmp_path / "x.mp4").read_bytes().replace(b"CAFE", b"CAF\xe9"))
    assert probe(path).num_frames_claimed == 40


def test_a_missing_file_is_named():
    with pytest.raises(VideoReadError, match=r"^nowhere\.mp4 cannot be opened: no such file or directory$"):
        probe("nowhere.mp4")


def test_suffixes_are_lower_case_with_their_dot():
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in VIDEO_SUFFIXES)
    assert {".mp4", ".webm", ".avi", ".mkv", ".gif"} <= VIDEO_SUFFIXES
    assert not {".txt", ".csv", ".jpg", ".mp3"} & VIDEO_SUFFIXES


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
        (
            "clip.flv",
            0.6,
            r"is truncated: it promises 4\.[01] seconds of video, but only [12]\.[0-9] are in the file",
        ),
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


def test_a_length_that_is_no_time_is_passed_over(tmp_path):
    whole = encode_video(tmp_path / "whole.mkv", num_frames=100, options={"g": "10"})
    data = whole.read_bytes()
    assert b"00:00:04.000000000" in data
    whole.write_bytes(data.replace(b"00:00:04.000000000", b"ab:cd:about 4 secs"))
    with VideoReader(whole) as reader:
        assert len(reader) == 100
    with pytest.raises(VideoReadError, match=r"is truncated: it promises 4\.0 seconds of video"):
        VideoReader(cut(whole, tmp_path / "cut.mkv", 0.6))


def open_files(path):
    """Return how many descriptors of this process are of a file."""
    return sum(Path(one).exists() and os.path.realpath(one) == str(path) for one in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads Linux's list of open files")
def test_no_failure_leaves_the_file_open(tmp_path, monkeypatch):
    path = encode_video(tmp_path / "video.mp4", num_frames=4).resolve()

    def broken(self):
        raise VideoReadError("the file system fails")
        yield

    with VideoReader(path), monkeypatch.context() as change:
        assert open_files(path) == 1, "this test sees open files"
        change.setattr(VideoSource, "packets", broken)
        for use in (probe, VideoReader):
            with pytest.raises(VideoReadError, match="the file system fails") as kept:
                use(path)
            assert (open_files(path), kept.value) == (1, kept.value)  # the error, alive, keeps its frames alive
    monkeypatch.setattr("videomae.video.indexed.check_complete", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as kept_too:
        VideoReader(path)
    assert (open_files(path), kept_too.value) == (0, kept_too.value)
    assert probe(path).width == 64
    assert open_files(path) == 0
