"""Frames read in one pass: those of a full decode, each packet once, in one thread or several."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from odd_videos import damaged, digest, encode_video, sequential_decode
from videomae.errors import VideoReadError
from videomae.video import decode, stream
from videomae.video.decode import VideoReader
from videomae.video.direct import DirectDecoder
from videomae.video.opening import open_reader, part_name
from videomae.video.stream import TimeBudget

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


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pyramid.mp4", {"options": PYRAMID}),
        ("open_groups.mp4", {"options": {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0"}}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=8:bframes=3:log-level=none"}}),
        ("pyramid.mkv", {"options": PYRAMID}),
    ],
)
def test_frames_in_order_are_those_of_a_full_decode_in_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any], threads: int
) -> None:
    if settings.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this PyAV's FFmpeg has no encoder {settings['codec']}")
    monkeypatch.setattr(decode, "_THREADED_PIXELS", 0)
    path = encode_video(tmp_path / name, num_frames=60, **settings)
    expected = [digest(frame) for frame in sequential_decode(path)]
    rng = np.random.default_rng(0)
    with VideoReader(path) as reader:
        for _ in range(6):
            wanted = np.flatnonzero(rng.random(60) < rng.random())
            found = [digest(frame) for frame in reader.frames_in_order(wanted, threads=threads)]
            assert found == [expected[number] for number in wanted]


def test_every_fourth_frame_is_read_without_going_back_and_without_what_none_of_them_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode_video(tmp_path / "pyramid.mp4", num_frames=96, options=PYRAMID)
    wanted = np.arange(1, 96, 4)  # frames that no other refers to
    with VideoReader(path) as reader:
        assert reader._video.index is not None
        disposable = set(np.flatnonzero(reader._video.index.packets.is_disposable).tolist())
        packets = reader._video.index.packet_of
        assert packets is not None
        assert len(disposable.intersection(packets[wanted].tolist())) > 15
        found = packets_read(monkeypatch)
        assert len(list(reader.frames_in_order(wanted))) == len(wanted)
    assert len(found) == len(set(found))
    assert disposable.intersection(found) == disposable.intersection(packets[wanted].tolist())


def test_parts_frame_rates_and_pictures_are_read_in_order_too(tmp_path: Path) -> None:
    from PIL import Image

    path = encode_video(tmp_path / "a.mp4", num_frames=30)
    (tmp_path / "pictures").mkdir()
    for number, frame in enumerate(sequential_decode(path)):
        Image.fromarray(frame).save(tmp_path / "pictures" / f"{number:03}.png")
    for name, fps in ((path, None), (path, 60.0), (part_name(path, 0.2, 0.9), 7.0), (tmp_path / "pictures", None)):
        with open_reader(name, fps=fps) as reader:
            wanted = np.arange(1, len(reader), 3)
            found = list(reader.frames_in_order(wanted))
            assert np.array_equal(found, reader.frames(wanted))
            beyond = reader.frames_in_order([0, len(reader)])
            assert np.array_equal(next(beyond), reader.frames([0])[0])
            with pytest.raises(VideoReadError, match=rf"frame {len(reader)} was asked of "):
                next(beyond)


def test_a_damaged_file_gives_the_frames_of_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_THREADED_PIXELS", 0)
    path = encode_video(tmp_path / "whole.mp4", num_frames=48, options={"g": "12"})
    damaged(path, path, packet=20)
    found = []
    for threads in (1, 4):
        with VideoReader(path) as reader:
            found.append([digest(frame) for frame in reader.frames_in_order(range(40), threads=threads)])
            assert reader._direct is None, "the damage was not noticed"
    assert found[0] == found[1]


def test_a_read_that_goes_on_after_the_reader_is_closed_is_refused(tiny_video: Path) -> None:
    with VideoReader(tiny_video) as reader:
        frames = reader.frames_in_order([0, 1])
    with pytest.raises(VideoReadError, match="was closed: read frames before leaving the reader's with block"):
        next(frames)


def test_waiting_for_a_decoder_of_several_threads_is_counted_up_to_some_seconds_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = TimeBudget("the video", 0, is_threaded=True)
    now = [0.0]
    monkeypatch.setattr(budget, "_clock", lambda: now[0])
    with budget:  # an hour in which the process was stopped
        now[0] += 3600.0
    assert budget._left == stream.LIMIT_SECONDS - stream.LONGEST_WAIT_SECONDS
    for _ in range(5):
        with budget:
            now[0] += 9.0
    with pytest.raises(VideoReadError, match="the video keeps the decoder busy for more than 60 seconds"), budget:
        now[0] += 9.0
    begin = time.thread_time()
    alone = TimeBudget("the video", 0)
    with alone:  # waiting is not work where nobody else does it
        time.sleep(0.05)
    assert stream.LIMIT_SECONDS - alone._left <= time.thread_time() - begin + 1e-9
