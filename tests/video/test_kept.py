"""What is kept of a video says as much as reading its packets does, for every kind of index."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odd_videos import encode_video, turn
from videomae.video.decode import VideoReader
from videomae.video.encoded import EncodedFile
from videomae.video.index import without_seeking
from videomae.video.indexed import IndexedVideo
from videomae.video.kept import from_bytes, to_bytes

INTERLACED = {"g": "6", "x264-params": "interlaced=1"}


def assert_same(one: Any, other: Any) -> None:
    if dataclasses.is_dataclass(one):
        assert type(one) is type(other)
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


def indexed(path: Path) -> IndexedVideo:
    with VideoReader(path) as reader:
        assert len(reader) > 0  # decodes where packets do not tell
        return reader._video


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("predicted_direct.mp4", {"options": {"g": "6", "bf": "2"}}),
        ("predicted.mkv", {"options": {"g": "6", "bf": "2"}}),
        ("decoded.mp4", {"options": INTERLACED}),
        ("no_times.h264", {}),
        ("counted.wmv", {"codec": "wmv2", "options": {"g": "6"}}),
        ("variable_rate.mp4", {"times": [0, 10, 40, 41, 300, *range(1000, 3500, 100)]}),
        ("one_frame.mp4", {"num_frames": 1}),
    ],
)
def test_what_is_kept_is_what_was_read(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    path = encode_video(tmp_path / name, **settings)
    video = indexed(path)
    assert_same(from_bytes(to_bytes(video), EncodedFile(path)), video)


def test_times_are_kept_where_frames_are_found_by_counting(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mp4", times=[0, 10, 40, 41, 300, *range(1000, 3500, 100)])
    video = indexed(path)
    assert video.index is not None
    counted = dataclasses.replace(
        video, access=None, index=without_seeking(dataclasses.replace(video.index, packet_of=None))
    )
    assert_same(from_bytes(to_bytes(counted), EncodedFile(path)), counted)


def test_the_turn_of_a_video_is_kept(tmp_path: Path) -> None:
    one = 1 << 16
    path = turn(encode_video(tmp_path / "a.mp4"), [0, one, 0, -one, 0, 0, 0, 0, 1 << 30])
    kept = from_bytes(to_bytes(indexed(path)), EncodedFile(path))
    assert (kept.info.rotation_degrees, kept.orientation.transpose) == (90, True)


def test_ten_seconds_take_few_bytes(tmp_path: Path) -> None:
    video = indexed(encode_video(tmp_path / "a.mp4", num_frames=300, options={"g": "50", "bf": "2"}))
    assert len(to_bytes(video)) < 4500


def test_other_content_is_an_error_that_a_store_expects(tmp_path: Path, tiny_video: Path) -> None:
    content = to_bytes(indexed(tiny_video))
    for broken in (b"", b"\0" * 100, content[:50], content[:-200], b"\xff\xff" + content):
        with pytest.raises((ValueError, LookupError, TypeError)):
            from_bytes(broken, EncodedFile(tiny_video))
