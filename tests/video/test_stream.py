"""Opening files: odd names, files that are no video, and a codec library that keeps silent."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from odd_videos import damaged, encode_video
from videomae.errors import VideoReadError
from videomae.video.decode import VideoReader


def test_names_that_look_like_protocols_or_patterns_are_only_names(tmp_path, monkeypatch, tiny_video):
    monkeypatch.chdir(tmp_path)
    for name in ("pipe:0", "a:b %03d *.mp4", "café 日本.mp4", "-i"):
        Path(name).write_bytes(tiny_video.read_bytes())
        with VideoReader(name) as reader:
            assert len(reader) == 40


def test_a_device_is_refused_before_it_is_opened():
    with pytest.raises(
        VideoReadError, match=f"^{os.devnull} is not a regular file: copy the stream to a file first$"
    ):
        VideoReader(os.devnull)


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
