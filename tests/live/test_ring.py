"""The newest clip: even distances, no clip over a gap."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from videomae.live.ring import ClipRing


def fed(times: list[float], *, ring: ClipRing | None = None) -> tuple[ClipRing, list[float]]:
    """Give a ring frames of these times; returns it and the times of those that it wanted."""
    ring = ring or ClipRing(4, 0.2, 1 / 60)
    wanted = [time for time in times if ring.wants(time) and (ring.push(time, time, torch.zeros(3, 2, 2)) or True)]
    return ring, wanted


def test_every_second_frame_of_a_stream_at_twice_the_rate_is_taken() -> None:
    times = (np.arange(20) / 10).tolist()
    ring, wanted = fed(times)
    assert wanted == times[::2]
    clip = ring.newest()
    assert clip is not None
    assert (clip.start_seconds, clip.end_seconds, clip.number) == (pytest.approx(1.2), pytest.approx(1.8), 10)
    assert clip.frames.shape == (1, 4, 3, 2, 2)


def test_times_that_are_rounded_or_shake_do_not_add_up() -> None:
    rng = np.random.default_rng(0)
    times = (np.arange(500) / 30 + rng.uniform(-0.004, 0.004, 500)).tolist()
    _, wanted = fed(times)
    assert len(wanted) == pytest.approx(500 / 30 / 0.2, abs=2)
    assert np.abs(np.diff(wanted) - 0.2).max() < 0.05


def test_there_is_no_clip_before_it_is_full_and_none_over_a_gap_or_after_clearing() -> None:
    ring, _ = fed([0.0, 0.2, 0.4])
    assert ring.newest() is None
    fed([0.6], ring=ring)
    assert ring.newest() is not None
    fed([5.0, 5.2, 5.4], ring=ring)
    assert ring.newest() is None
    fed([5.6], ring=ring)
    clip = ring.newest()
    assert clip is not None
    assert clip.start_seconds == 5.0
    ring.clear()
    assert ring.newest() is None


def test_a_stream_that_jumps_back_begins_a_new_clip() -> None:
    ring, _ = fed([10.0, 10.2, 10.4, 10.6])
    _, wanted = fed([1.0, 1.2, 1.4, 1.6], ring=ring)
    assert wanted == [1.0, 1.2, 1.4, 1.6]
    clip = ring.newest()
    assert clip is not None
    assert clip.start_seconds == 1.0
