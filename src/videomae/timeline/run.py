"""Timelines of many videos, one pass over each, that can be stopped and gone on with."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from videomae.data.datasets import BadVideo
from videomae.errors import ConfigError, RunError, VideoReadError
from videomae.inference.calibration import calibrate
from videomae.inference.files import collection_store, list_inputs, output_names
from videomae.inference.kept_rows import KeptRows
from videomae.inference.predictor import Predictor
from videomae.inference.windows import Windows, open_as_far_as_whole, plan_windows
from videomae.timeline.annotate import annotate_video
from videomae.timeline.configs import TimelineConfig
from videomae.timeline.events import chosen_labels
from videomae.timeline.kept import FinishedVideo, finish_scores, finished_scores
from videomae.timeline.scan_progress import ScanProgress
from videomae.timeline.timeline import FloatArray, Timeline, VideoFacts, check_has_scores, score_windows, video_facts
from videomae.video.index_store import IndexStore
from videomae.video.opening import Reader

STRIP_FRAMES = 24  # small frames side by side on the page
STRIP_HEIGHT = 72  # pixels
STOPPED = "stopped before the end; --resume continues from here"


@dataclass
class TimelineRun:
    """What has been done so far; complete for every video in it."""

    timelines: list[Timeline] = field(default_factory=list)
    """Of the videos that could be read, in order."""
    bad: list[BadVideo] = field(default_factory=list)
    """Those of which nothing could be read."""
    videos: tuple[str, ...] = ()
    """Those asked for, in order."""
    is_stopped: bool = False
    """True if Ctrl-C ended it."""


def run_timelines(
    predictor: Predictor,
    videos: Sequence[str | os.PathLike[str]],
    kept: KeptRows,
    *,
    config: TimelineConfig,
    labels: Sequence[str] | None = None,
    with_strip: bool = False,
    annotated: str | None = None,
    progress: ScanProgress | None = None,
) -> TimelineRun:
    """Compute the timelines of videos; Ctrl-C ends it with what is done.

    Args:
        predictor: The classifier.
        videos: Files, folders of them, manifests, addresses.
        kept: Where scores are kept meanwhile, and where those of a run before are found; see `kept_scores`.
        config: Windows, smoothing and thresholds.
        labels: Names of the classes to look for; all where not given.
        with_strip: Keep small frames for a page.
        annotated: Name of a video file to write with the labels in it, `{video}` in it for the video's name; None:
            none.
        progress: Told how far it is.

    Returns:
        What was done; of a video that a stop has met, its timeline up to there.

    Raises:
        ConfigError: If a label is unknown, the model is a regression, or a length does not fit the only video; of
            several videos those that it does not fit are among the bad ones.
        RunError: If the disk refuses, or the model's output is not finite.
    """
    check_has_scores(predictor)
    wanted = chosen_labels(labels, predictor.classes)
    store = collection_store(videos)
    items = list(list_inputs(videos))
    calibrate(predictor, videos, store=store)
    names = tuple(os.fspath(item) for item in items if not isinstance(item, BadVideo))
    done = TimelineRun(videos=names)
    outputs = {} if annotated is None else output_names(annotated, names)
    work = _Work(predictor, kept, config, wanted, store, with_strip, outputs, progress or ScanProgress(len(items)))
    for item in items:
        if isinstance(item, BadVideo):
            done.bad.append(item)
            continue
        try:
            done.timelines.append(work.timeline(os.fspath(item)))
        except (VideoReadError, ConfigError) as error:
            if isinstance(error, ConfigError) and len(items) == 1:
                raise
            done.bad.append(BadVideo(os.fspath(item), str(error)))
        except KeyboardInterrupt:
            done.is_stopped = True
            if work.current is not None:
                done.timelines.append(work.current.with_fault(STOPPED))
            break
    return done


@dataclass
class _Work:
    """What is the same for all videos."""

    predictor: Predictor
    kept: KeptRows
    config: TimelineConfig
    labels: dict[int, str]
    store: IndexStore | None
    with_strip: bool
    annotated: dict[str, str]  # by video; empty: none
    progress: ScanProgress
    _opened: tuple[VideoFacts, Windows] | None = None

    @property
    def current(self) -> Timeline | None:
        """The video that is being worked on, up to where it is; None before its first window."""
        if self._opened is None:
            return None
        facts, windows = self._opened
        rows = self.kept.rows(facts.path)
        return self._timeline(facts, windows, rows) if len(rows) else None

    def timeline(self, video: str) -> Timeline:
        """Compute the timeline of one video, or take what is kept of it."""
        self._opened = None
        found = finished_scores(self.kept, video)
        if found is not None and (found.strip or not self.with_strip) and not self.annotated:
            self.progress.begin(video, total_seconds=found.facts.seconds, first_seconds=found.facts.seconds)
            rows = self.kept.rows(video)
            return self._timeline(found.facts, found.windows, rows, found.fault, found.strip)
        with open_as_far_as_whole(
            video, store=self.store, fps=self.predictor.clip.fps, decoder=self.predictor.decoder
        ) as (reader, fault):
            windows = plan_windows(
                reader, self.predictor.clip, window_seconds=self.config.window, step_seconds=self.config.step
            )
            facts = video_facts(reader, video)
            first = self.kept.begin(video)
            self._opened = facts, windows
            ends = windows.end_seconds
            self.progress.begin(video, total_seconds=facts.seconds, first_seconds=ends[first - 1] if first else 0.0)
            try:
                for batch in score_windows(
                    self.predictor, reader, windows, batch_size=self.config.batch_size, first=first
                ):
                    self.kept.append(video, batch.scores)
                    self.progress.update(float(ends[batch.first + len(batch.scores) - 1]))
            except VideoReadError as error:
                if not len(self.kept.rows(video)):
                    raise
                fault = str(error)
            strip = frame_strip(reader) if self.with_strip else b""
            finish_scores(self.kept, video, FinishedVideo(facts, windows, fault, strip))
            timeline = self._timeline(facts, windows, self.kept.rows(video), fault, strip)
            if self.annotated:
                target = Path(self.annotated[video])
                try:
                    annotate_video(reader, timeline, target)
                except OSError as error:
                    raise RunError(
                        f"{target} cannot be written ({error.strerror or error}): free space, then add --resume"
                    ) from None
        return timeline

    def _timeline(
        self, facts: VideoFacts, windows: Windows, rows: FloatArray, fault: str | None = None, strip: bytes = b""
    ) -> Timeline:
        return Timeline.from_scores(
            self.predictor,
            facts,
            windows,
            rows,
            config=self.config,
            labels=self.labels,
            fault=fault,
            strip=strip,
        )


def frame_strip(reader: Reader, *, num_frames: int = STRIP_FRAMES, height: int = STRIP_HEIGHT) -> bytes:
    """Return a JPEG of small frames at even distances, side by side, the first frame of each part of the video.

    Empty if they cannot be read, which a damaged file may do at a second reading.
    """
    width = max(1, round(reader.info.width * height / reader.info.height))
    indices = np.arange(num_frames) * len(reader) // num_frames
    try:
        frames = [reader.frames(indices[k : k + 1], size=(height, width))[0] for k in range(num_frames)]
    except VideoReadError:
        return b""
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(frames, axis=1)).save(stream, "JPEG", quality=80)
    return stream.getvalue()
