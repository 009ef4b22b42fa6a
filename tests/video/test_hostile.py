"""Damaged and hostile files end in an error or in frames: never in another exception, a hang or a leak."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from odd_videos import cut, digest, encode_video, read_through, sequential_decode
from videomae.errors import VideoReadError
from videomae.video import stream as module
from videomae.video.decode import VideoReader, read_clip
from videomae.video.index_store import IndexStore
from videomae.video.stream import TimeBudget, VideoSource

SHORT_GROUPS = {"g": "6", "bf": "2"}


class Failing:
    """A container that fails as the library does on damaged files."""

    def __init__(self, container: Any, error: Exception, after: int) -> None:
        self._container, self._error, self._after = container, error, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def demux(self, stream: Any) -> Iterator[Any]:
        for number, packet in enumerate(self._container.demux(stream)):
            if number == self._after or not packet.size:
                raise self._error
            yield packet


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception, *, after: int) -> None:
    original = VideoSource.__init__

    def prepared(self: VideoSource, path: str, container: Any, stream_index: int) -> None:
        original(self, path, container, stream_index)
        self.container = Failing(container, error, after)  # type: ignore[assignment]

    monkeypatch.setattr(VideoSource, "__init__", prepared)


def test_a_stream_that_appears_on_the_way_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library then looks for a stream that it does not have, after the last packet."""
    path = encode_video(tmp_path / "a.flv", codec="flv", options={"g": "6"})
    expected = [digest(frame) for frame in sequential_decode(path)]
    fail_with(monkeypatch, IndexError("list index out of range"), after=10**6)
    with VideoReader(path) as reader:
        assert [digest(frame) for frame in reader.frames(range(30))] == expected
        assert [digest(frame) for frame in reader.all_frames()] == expected


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ValueError("stream index 3 out of range"), RuntimeError("x"), MemoryError(), OverflowError()],
)
def test_what_the_library_raises_ends_the_packets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = encode_video(tmp_path / "a.flv", codec="flv", options={"g": "6"})
    fail_with(monkeypatch, error, after=28)
    with VideoReader(path) as reader:
        assert 20 < len(read_through(reader)) < 30


@pytest.mark.slow
def test_a_decoder_that_never_comes_to_an_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_PER_BYTE", 0.0)
    monkeypatch.setattr(module, "SECONDS_PER_FRAME", 0.0)
    for name, options in (
        ("a.mp4", SHORT_GROUPS),
        ("a.mkv", SHORT_GROUPS),
        ("b.mp4", {"x264-params": "interlaced=1"}),
    ):
        path = encode_video(tmp_path / name, num_frames=60, size=(240, 320), options=options)
        monkeypatch.setattr(module, "LIMIT_SECONDS", 60.0)
        VideoReader(path).close()
        monkeypatch.setattr(module, "LIMIT_SECONDS", 0.0)
        with pytest.raises(
            VideoReadError, match=rf"{name} keeps the decoder busy for more than 0 seconds: it is dama"
        ):
            VideoReader(path)
        monkeypatch.setattr(module, "LIMIT_SECONDS", 0.02)
        with pytest.raises(VideoReadError, match="keeps the decoder busy"):
            read_clip(path, range(60))


def test_time_is_counted_that_is_spent_on_packets_which_fail() -> None:
    budget = TimeBudget("the video", 0)
    budget._left = 0.0
    with pytest.raises(VideoReadError, match="the video keeps the decoder busy"), budget:
        raise av.InvalidDataError(1, "damaged")
    budget.earn(5)
    with budget:  # 5 frames have come out: time goes on
        pass
    budget._left = -1.0
    with pytest.raises(KeyboardInterrupt), budget:
        raise KeyboardInterrupt


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A copy with bytes changed, removed, doubled or cut off; headers more often than their length says."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        limit = len(data) if rng.random() < 0.5 else min(len(data), 1500)
        start, size = int(rng.integers(limit)), int(rng.integers(1, 40))
        match int(rng.integers(4)):
            case 0:
                data[start : start + size] = rng.bytes(len(data[start : start + size]))
            case 1:
                del data[start : start + size]
            case 2:
                data[start:start] = data[start : start + size]
            case 3:
                data[start : start + 4] = bytes([255] * len(data[start : start + 4]))
    return bytes(data[: int(rng.integers(len(data)))] if rng.random() < 0.2 else data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.mp4", {"options": SHORT_GROUPS}),
        ("intra.mp4", {"options": {"g": "1"}}),
        ("a.flv", {"codec": "flv", "options": {"g": "6"}}),
        ("h264.flv", {"options": SHORT_GROUPS}),
        ("a.mkv", {"options": SHORT_GROUPS}),
        ("a.avi", {"codec": "mpeg4", "options": SHORT_GROUPS}),
        ("a.ts", {"options": SHORT_GROUPS}),
        ("a.webm", {"codec": "libvpx", "options": {"g": "6"}}),
    ],
)
def test_mutated_files_give_frames_or_an_error_of_reading(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    if settings.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this PyAV's FFmpeg has no encoder {settings['codec']}")
    content = encode_video(tmp_path / name, num_frames=24, **settings).read_bytes()
    rng = np.random.default_rng(5)
    store = IndexStore(tmp_path, (tmp_path / "store",))
    met = {"read": 0, "refused": 0}
    for number in range(150):
        path = tmp_path / f"{number}_{name}"
        path.write_bytes(mutated(content, rng))
        for given in (path, path, path.read_bytes()):  # anew, as kept, from memory
            try:
                with VideoReader(given, store=store) as reader:
                    reader.frames(rng.integers(len(reader), size=5))
                met["read"] += 1
            except VideoReadError:
                met["refused"] += 1
        path.unlink()
    assert sum(met.values()) == 450
    assert min(met.values()) > 10, met


@pytest.mark.slow
def test_opening_many_videos_leaks_neither_memory_nor_files(tmp_path: Path) -> None:
    whole = encode_video(tmp_path / "a.mp4", num_frames=24, size=(120, 160), options=SHORT_GROUPS)
    videos = [
        whole,
        encode_video(tmp_path / "a.mkv", num_frames=24, size=(120, 160), options=SHORT_GROUPS),
        cut(whole, tmp_path / "cut.mp4", 0.5),
        encode_video(tmp_path / "b.mp4", num_frames=24, options={"x264-params": "interlaced=1"}),
    ]
    store = IndexStore(tmp_path, (tmp_path / "store",))
    process = psutil.Process()

    def open_all(rounds: int) -> None:
        for number in range(rounds):
            for video in videos:
                for given in (video, video.read_bytes()):
                    try:
                        with VideoReader(given, store=store if number % 2 else None) as reader:
                            reader.frames([3, 17], size=(56, 56))
                    except VideoReadError:
                        assert "cut" in video.name
        gc.collect()

    open_all(20)
    num_files, before = process.num_fds() if os.name == "posix" else 0, process.memory_info().rss
    open_all(190)  # 1,520 openings
    assert (process.num_fds() if os.name == "posix" else 0) == num_files
    assert process.memory_info().rss - before < 1520 * 4096  # a leak of one page for each would show
