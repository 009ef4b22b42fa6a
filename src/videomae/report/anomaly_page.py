"""The page of scored videos: a curve, the events, and where the error is in the most unusual moment of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from videomae.anomaly.detector import Detector
from videomae.anomaly.heat_video import heat_frame
from videomae.anomaly.run import VideoScores
from videomae.errors import VideoReadError
from videomae.inference.windows import open_as_far_as_whole
from videomae.report.figures import Curve, Level, loss_curves, thumbnail
from videomae.report.page import (
    Block,
    Chart,
    Facts,
    Player,
    Players,
    Section,
    Table,
    Text,
    player_address,
    render_report,
    versions,
    write_report,
)
from videomae.wording import counted

MAX_EVENTS = 12  # of a video, with a picture; the table has all
MAX_VIDEOS = 50


def write_anomaly_page(path: Path, detector: Detector, videos: Sequence[VideoScores]) -> None:
    """Write the page; of many videos the most unusual ones.

    Raises:
        RunError: If it cannot be written.
    """
    ranked = sorted(videos, key=lambda one: -float(one.scores.score.max()))[:MAX_VIDEOS]
    events = sum(len(one.events) for one in videos)
    facts = Facts({
        "fitted on": f"{counted(detector.num_videos, 'video')}, {counted(len(detector.calibration), 'window')}",
        "model": detector.model,
        "false alarms": f"at most {detector.config.false_alarms:g} of ordinary windows",
        "threshold": detector.threshold,
    })  # fmt: skip
    sections = [*(Section(Path(one.path).name, _blocks(one, path.parent)) for one in ranked)]
    sections.append(Section("The detector", [facts, versions()]))
    summary = f"{counted(events, 'unusual moment')} in {counted(len(videos), 'video')}."
    if len(videos) > MAX_VIDEOS:
        summary += f" The {MAX_VIDEOS} most unusual are shown; --out with a .json file has all."
    write_report(path, render_report("Anomalies", sections, summary=summary))


def _blocks(video: VideoScores, folder: Path) -> list[Block]:
    middles = ((video.starts + video.ends) / 2).tolist()
    levels = [Level("threshold", video.threshold)]
    curve = Curve("score", middles, video.scores.score.tolist())
    blocks: list[Block] = [Chart(loss_curves([curve], levels=levels, x_label="seconds", y_label="score"))]
    if video.fault is not None:
        blocks.append(Text(f"Read in part: {video.fault}", is_warning=True))
    if not video.events:
        return [*blocks, Text("Nothing above the threshold.")]
    strongest = sorted(video.events, key=lambda one: -one.peak)[:MAX_EVENTS]
    players = [
        Player(
            f"{one.start:.1f} to {one.end:.1f} s",
            f"score {one.peak:.2f} at {one.peak_second:.1f} s",
            player_address(video.path, one.start, one.end, folder),
            _heat_thumbnail(video, one.peak_second),
        )
        for one in strongest
    ]
    rows = [(f"{one.start:.2f}", f"{one.end:.2f}", f"{one.peak:.2f}") for one in video.events]
    return [*blocks, Players(players), Table(("start", "end", "peak"), rows)]


def _heat_thumbnail(video: VideoScores, second: float) -> str | None:
    middles = (video.starts + video.ends) / 2
    try:
        with open_as_far_as_whole(video.path) as (reader, _):
            index = int(np.clip(np.searchsorted(reader.timestamps_seconds, second), 0, len(reader) - 1))
            frame = reader.frames([index])[0]
    except VideoReadError:
        return None
    return thumbnail(heat_frame(frame, video, int(np.abs(middles - second).argmin())))
