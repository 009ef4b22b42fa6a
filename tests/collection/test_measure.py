"""What one file is found to hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from odd_videos import cut, damaged, encode_video
from videomae.collection.measure import FileJob, content_digest, ends_inside_a_box, is_variable_rate, measure_file


@pytest.mark.parametrize(
    ("name", "ticks", "is_variable"),
    [
        ("constant", np.arange(50) * 512, False),
        ("29.97 in milliseconds", np.round(np.arange(300) * 1001 / 30), False),
        ("25 in milliseconds, jitter of two", np.arange(50) * 40 + np.arange(50) % 2 * 2, False),
        ("one frame dropped", np.delete(np.arange(50) * 512, 20), False),
        ("one frame dropped, coarse time base", np.delete(np.arange(50), 20), False),
        ("every third late", np.arange(50) * 40 + (np.arange(50) % 3 == 0) * 15, True),
        ("24 in a time base of 30", np.ceil(np.arange(48) * 30 / 24), True),
        ("two frames", np.array([0, 7]), False),
    ],
)
def test_a_variable_rate_is_told_from_rounding(name: str, ticks: np.ndarray, is_variable: bool) -> None:
    assert is_variable_rate(ticks.astype(np.int64)) == is_variable, name


def test_a_whole_file_is_described(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mp4", num_frames=20)
    facts = measure_file(FileJob(path, ((0.0, 0.2), (0.7, None))))
    assert (facts.num_frames, facts.num_damaged, facts.fault, facts.is_variable) == (20, 0, None, False)
    assert facts.seconds == pytest.approx(0.8)
    assert facts.part_frames == {(0.0, 0.2): 5, (0.7, None): 2}
    assert facts.size_bytes == path.stat().st_size
    assert facts.digest == content_digest(path)
    assert facts.fingerprint is not None


def test_damaged_packets_are_counted(tmp_path: Path) -> None:
    whole = encode_video(tmp_path / "a.mp4")
    facts = measure_file(FileJob(damaged(whole, tmp_path / "b.mp4", packet=20)))
    assert facts.fault is None
    assert facts.num_damaged >= 1


def test_a_file_whose_last_box_is_cut_is_known_by_it(tmp_path: Path) -> None:
    whole = encode_video(tmp_path / "a.mp4")
    assert not ends_inside_a_box(whole)
    assert ends_inside_a_box(cut(whole, tmp_path / "b.mp4", 0.9))
    other = tmp_path / "c.mkv"
    other.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(100))
    assert not ends_inside_a_box(other)


def test_a_missing_file_is_described_and_not_raised(tmp_path: Path) -> None:
    facts = measure_file(FileJob(tmp_path / "none.mp4"))
    assert facts.fault == "unreadable"
    assert "no such file" in facts.reason.lower()
