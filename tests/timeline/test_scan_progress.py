"""What a pass over videos tells about itself."""

from __future__ import annotations

import io

from videomae.timeline.scan_progress import ScanProgress


def test_the_time_left_is_that_of_all_videos() -> None:
    now = [0.0]
    output = io.StringIO()
    with ScanProgress(4, stream=output, line_seconds=5.0, clock=lambda: now[0]) as progress:
        progress.begin("a.mp4", total_seconds=20.0)
        now[0] = 10.0
        progress.update(20.0)
        progress.begin("b.mp4", total_seconds=40.0, first_seconds=20.0)  # half of it was done by a run before
        now[0] = 20.0
        progress.update(30.0)
    # 30 seconds of video in 20 s; of b 10 are left, and of two more 30 each, as long as a and b are on average.
    assert output.getvalue().splitlines() == [
        "video 1 of 4, a.mp4  0:00:20 of 0:00:20 (100%)  2x real time  0:00:30 left",
        "video 2 of 4, b.mp4  0:00:30 of 0:00:40 (75%)  1.5x real time  0:00:46 left",
    ]
    assert progress.summary() == "0:00:30 of video in 20.0 s, 1.5x real time"
