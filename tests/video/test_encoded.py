"""Videos in memory, in open files and behind addresses are read exactly as files are."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odd_videos import cut, encode_video
from videomae.errors import ConfigError, VideoReadError
from videomae.video.decode import VideoReader, read_clip
from videomae.video.encoded import EncodedFile
from videomae.video.opening import open_reader
from videomae.video.probe import probe

ORDER = [17, 3, 3, 29, 0, 18]
CONTAINERS = ("x.mp4", "x.mkv", "x.ts", "x.avi", "x.flv", "x.h264")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The http address of `tmp_path`, on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Pipe(io.RawIOBase):
    """A file that can only be read forward."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)


@pytest.mark.parametrize("name", CONTAINERS)
def test_memory_and_open_files_are_read_as_the_file_is(tmp_path: Path, name: str) -> None:
    path = encode_video(tmp_path / name, options={"g": "6", "bf": "2"})
    content = path.read_bytes()
    with VideoReader(path) as reader:
        wanted, times, info = reader.frames(ORDER), reader.timestamps_seconds, reader.info
        everything = np.stack(list(reader.all_frames()))
    with path.open("rb") as file:
        forms = [content, bytearray(content), memoryview(content), io.BytesIO(content), file, Pipe(content)]
        for form in forms:
            with VideoReader(form) as reader:  # type: ignore[arg-type]
                assert (reader.frames(ORDER) == wanted).all()
                assert (reader.timestamps_seconds == times).all()
                assert (np.stack(list(reader.all_frames())) == everything).all()
                assert (reader.info.codec, reader.info.width) == (info.codec, info.width)
        assert (read_clip(file, ORDER) == wanted).all()
        assert probe(file).num_frames_claimed == info.num_frames_claimed


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_addresses_are_read_as_the_file_is(tmp_path: Path, address: str, name: str) -> None:
    path = encode_video(tmp_path / name)
    wanted = read_clip(path, ORDER)
    for given in (f"{address}/{name}", path.as_uri(), f"file://localhost{path.as_posix()}"):
        assert (read_clip(given, ORDER) == wanted).all()
        with open_reader(given) as reader:
            assert (reader.frames(ORDER) == wanted).all()
    with open_reader(f"{path.as_uri()}#t=0.4,0.8") as reader:
        assert (reader.frames([0]) == read_clip(path, [10])).all()


def test_an_address_that_cannot_be_read_says_why(address: str) -> None:
    with pytest.raises(VideoReadError, match=r"missing\.mp4 does not exist: check the address"):
        VideoReader(f"{address}/missing.mp4")
    with pytest.raises(VideoReadError, match="addresses of the kind rtsp:// are not read; give an http"):
        VideoReader("rtsp://127.0.0.1/camera")


def test_an_open_file_stays_open_and_where_it_stood(tiny_video: Path) -> None:
    with tiny_video.open("rb") as file:
        file.seek(7)
        with VideoReader(file) as one, VideoReader(file) as other:  # both from the beginning, in turn
            frames = one.all_frames()
            for number in (5, 30, 6):
                next(frames)
                assert (one.frames([number]) == other.frames([number])).all()
        assert (file.closed, file.tell()) == (False, 7)


def test_nothing_is_left_of_a_copy(tiny_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("videomae.video.encoded.MEMORY_BYTES", 1000)  # the copy is a file
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with VideoReader(Pipe(tiny_video.read_bytes())) as reader:  # type: ignore[arg-type]
        assert (reader.frames([39]) == read_clip(tiny_video, [39])).all()
    with pytest.raises(VideoReadError, match="the open file cannot be read as video"):
        VideoReader(Pipe(b"no video" * 1000))  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_video_is_named(tiny_video: Path, tmp_path: Path) -> None:
    cases: list[tuple[Any, type[Exception], str]] = [
        (b"", VideoReadError, r"the 0 bytes is empty \(0 bytes\): copy or download it again"),
        (
            b"no video",
            VideoReadError,
            "the 8 bytes cannot be read as video: .*; it is damaged, cut off, or not a video",
        ),
        (io.StringIO("text"), ConfigError, 'the open file is open as text: open it with mode "rb"'),
        (io.BytesIO(b"text\n" * 100), VideoReadError, "the open file cannot be read as video"),
    ]
    for given, error, message in cases:
        with pytest.raises(error, match=message):
            VideoReader(given)
    part = cut(encode_video(tmp_path / "a.mkv", num_frames=100), tmp_path / "cut.mkv", 0.5).read_bytes()
    with pytest.raises(VideoReadError, match=rf"the {len(part)} bytes is truncated: it promises 4\.0 seconds"):
        VideoReader(part)


def test_a_file_that_its_owner_closes_is_an_error_of_reading(tiny_video: Path) -> None:
    with tiny_video.open("rb") as file:
        reader = VideoReader(file)
    with pytest.raises(VideoReadError, match=r"tiny\.mp4 cannot be read"):
        reader.frames([3])
    reader.close()


def test_bytes_are_read_at_any_position(tiny_video: Path) -> None:
    content = tiny_video.read_bytes()
    for video in (tiny_video, content, io.BytesIO(content)):
        file = EncodedFile(video)
        assert file.size_bytes == len(content)
        assert file.read_at(100, 50) == content[100:150]
        assert file.read_at(len(content) - 3, 50) == content[-3:]
        file.close()
        file.close()
