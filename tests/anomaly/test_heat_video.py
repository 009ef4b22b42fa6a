"""A frame under its heat map: of every size, and hot where the map is."""

from __future__ import annotations

import numpy as np
import pytest

from videomae.anomaly.detector import Scores
from videomae.anomaly.heat_video import heat_frame
from videomae.anomaly.run import VideoScores


@pytest.mark.parametrize(("height", "width"), [(240, 320), (121, 160), (121, 233), (160, 121), (60, 90), (33, 33)])
def test_a_frame_of_any_size_is_colored_where_the_map_is_high_and_nowhere_else(height: int, width: int) -> None:
    one = np.array([2.0])
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 3, 0] = 9.0  # below, on the left
    scores = VideoScores("clip.mp4", one * 0, one, Scores(one, one, one, maps), threshold=3.0)
    frame = np.full((height, width, 3), 100, np.uint8)
    shown = heat_frame(frame, scores, 0)
    times = shown.shape[0] // (height // 2 * 2)
    assert shown.shape[0] % 2 == shown.shape[1] % 2 == 0
    assert abs(shown.shape[0] - times * height) <= 1
    assert abs(shown.shape[1] - times * width) <= 1
    changed = np.abs(shown.astype(int) - 100).max(axis=2) > 20
    side = min(shown.shape[:2])
    top, left = (shown.shape[0] - side) // 2, (shown.shape[1] - side) // 2
    hot = (slice(top + round(0.8 * side), top + round(0.95 * side)), slice(left + 4, left + round(0.2 * side)))
    assert changed[hot].all()
    changed[top + side // 2 : top + side + 2, max(left - 2, 0) : left + side // 2] = False
    assert not changed.any()
