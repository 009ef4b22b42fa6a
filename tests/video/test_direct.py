"""Frames of MP4 files are decoded from the packets that they need, and are those of a full decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from odd_videos import assert_reads_like_the_truth, digest, encode_video, sequential_decode
from videomae.video.decode import VideoReader
from videomae.video.direct import DirectDecoder
from videomae.video.encoded import EncodedFile

PYRAMID = {"x264-params": "keyint=48:bframes=3:b-adapt=0:b-pyramid=normal:scenecut=0"}


def packets_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the packets that are decoded from here on."""
    found: list[int] = []
    original = DirectDecoder._packet

    def noted(self: DirectDecoder, number: int) -> Any:
        found.append(number)
        return original(self, number)

    monkeypatch.setattr(DirectDecoder, "_packet", noted)
    return found


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("intra.mp4", {"options": {"g": "1"}}),
        ("pyramid.mp4", {"options": PYRAMID}),
        ("pyramid.mov", {"options": PYRAMID}),
        ("open_groups.mp4", {"options": {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0"}}),
        ("fragments.mp4", {"options": PYRAMID, "layout": {"movflags": "frag_keyframe+empty_moov"}}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=8:bframes=3:log-level=none"}}),
    ],
)
def test_frames_are_those_of_a_full_decode(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    if settings.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this PyAV's FFmpeg has no encoder {settings['codec']}")
    path = encode_video(tmp_path / name, num_frames=60, **settings)
    expected = [digest(frame) for frame in sequential_decode(path)]
    rng = np.random.default_rng(0)
    with VideoReader(path) as reader:
        for _ in range(30):
            wanted = rng.integers(0, 60, rng.integers(1, 9))
            assert [digest(frame) for frame in reader.frames(wanted)] == [expected[number] for number in wanted]
        assert reader._direct is not None, "it was read through the container"
    assert_reads_like_the_truth(path, expected=expected)


def test_of_frames_that_stand_alone_only_those_asked_for_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode_video(tmp_path / "intra.mp4", num_frames=60, options={"g": "1"})
    with VideoReader(path) as reader:
        found = packets_read(monkeypatch)
        reader.frames(range(3, 60, 4))
    assert found == list(range(3, 60, 4))


def test_frames_that_no_other_refers_to_are_read_only_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode_video(tmp_path / "pyramid.mp4", num_frames=48, options=PYRAMID)
    with VideoReader(path) as reader:
        assert reader._video.index is not None
        disposable = set(np.flatnonzero(reader._video.index.packets.is_disposable).tolist())
        assert len(disposable) >= 12
        found = packets_read(monkeypatch)
        reader.frames([40])
        assert len(disposable.intersection(found)) <= 1
        found.clear()
        reader.frames(range(48))  # all: none is left out
        assert disposable <= set(found)


def test_clips_one_after_the_other_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode_video(tmp_path / "long.mp4", num_frames=100, options={"g": "100", "bf": "2"})
    with VideoReader(path) as reader:
        found = packets_read(monkeypatch)
        for start in range(0, 96, 4):
            reader.frames(range(start, start + 4))
    assert len(found) == len(set(found))


def test_colors_that_only_the_container_declares_are_honored(tmp_path: Path) -> None:
    """The colr box of MP4 and QuickTime; the stream itself says nothing."""
    path = tmp_path / "colr.mp4"
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, :32], frame[:, 32:] = (250, 20, 20), (20, 200, 40)
    with av.open(str(path), "w", options={"movflags": "write_colr"}) as container:
        stream = container.add_stream("mpeg4" if "libx264" not in av.codecs_available else "libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    if b"colr" not in data:
        pytest.skip("this FFmpeg writes no colr box")
    place = data.index(b"colr") + 8  # behind its kind, nclx: primaries, transfer and matrix
    first_frames = set()
    for matrix in (1, 6, 9):
        path.write_bytes(data[:place] + bytes([0, 1, 0, 1, 0, matrix]) + data[place + 6 :])
        expected = [digest(frame) for frame in sequential_decode(path)]
        assert_reads_like_the_truth(path, expected=expected)
        first_frames.add(expected[0])
    assert len(first_frames) == 3


def test_a_packet_that_has_changed_since_is_noticed(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mp4", options={"g": "6", "bf": "0"})
    with VideoReader(path) as reader:
        assert reader._direct is not None
        table, access = reader._video.index, reader._video.access
        assert table is not None
        assert access is not None
        with path.open("r+b") as file:
            file.seek(int(access.positions[13]) + 20)
            file.write(bytes(30))
        frames = reader.frames(range(30))
        assert reader._direct is None
    assert [digest(frame) for frame in frames] == [digest(frame) for frame in sequential_decode(path, num_threads=1)]


def test_a_track_with_several_sets_of_headers_is_read_through_its_container(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mp4")
    data = path.read_bytes()
    place = data.index(b"stsd") + 8
    path.write_bytes(data[:place] + bytes([0, 0, 0, 2]) + data[place + 4 :])
    with VideoReader(path) as reader:
        assert reader._direct is None
    with VideoReader(data) as reader:
        assert reader._direct is not None
        assert isinstance(reader._file, EncodedFile)
