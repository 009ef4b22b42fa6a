"""Fitting a detector on ordinary videos, and scoring others with it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.anomaly.configs import AnomalyConfig
from videomae.anomaly.detector import Detector, Scores, fit_detector
from videomae.anomaly.measures import WindowMeasures, measure_video
from videomae.data.datasets import BadVideo
from videomae.engine.precision import DeviceName
from videomae.engine.progress import TrainingProgress
from videomae.errors import ConfigError, VideoReadError
from videomae.inference.files import check_output, list_videos
from videomae.inference.loaded import LoadedModel, load_pretraining, weights_digest
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.video.sampling import ClipConfig


@dataclass(frozen=True)
class Anomaly:
    """A stretch of unusual windows."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    peak: float
    """The highest score in it."""
    peak_second: float
    """Middle of the window with that score."""


@dataclass(frozen=True)
class VideoScores:
    """How unusual each window of a video is."""

    path: str
    """The video."""
    starts: NDArray[np.float64]
    """`[n]`, seconds."""
    ends: NDArray[np.float64]
    """`[n]`, seconds."""
    scores: Scores
    """Of each window; `maps` `[n, h, w]` in standard deviations."""
    threshold: float
    """Above it a window is unusual."""
    fault: str | None = None
    """Why it was not read to its end; None: it was."""

    @property
    def events(self) -> list[Anomaly]:
        """The stretches of windows above the threshold, in order."""
        above = np.flatnonzero(self.scores.score > self.threshold)
        runs = np.split(above, np.flatnonzero(np.diff(above) > 1) + 1) if len(above) else []
        found = []
        for run in runs:
            top = int(run[self.scores.score[run].argmax()])
            middle = float(self.starts[top] + self.ends[top]) / 2
            found.append(
                Anomaly(float(self.starts[run[0]]), float(self.ends[run[-1]]), float(self.scores.score[top]), middle)
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values, without the maps."""
        windows = zip(self.starts, self.ends, self.scores.score, self.scores.distance, self.scores.error, strict=True)
        return {
            "path": self.path,
            "fault": self.fault,
            "threshold": self.threshold,
            "events": [asdict(event) for event in self.events],
            "windows": [
                dict(zip(("start", "end", "score", "distance", "error"), map(float, one), strict=True))
                for one in windows
            ],
        }


def fit_anomaly(
    source: str | os.PathLike[str],
    videos: Sequence[str | os.PathLike[str]],
    output: Path,
    *,
    config: AnomalyConfig | None = None,
    clip: ClipConfig | None = None,
    device: DeviceName = "auto",
) -> tuple[Detector, list[BadVideo]]:
    """Fit a detector on ordinary footage and write it.

    Args:
        source: A pre-trained model with its decoder.
        videos: Ordinary footage: files, folders of them, manifests.
        output: The file to write, `.npz`.
        config: How.
        clip: How clips are sampled; as the record beside the weights says where not given.
        device: Where to compute.

    Returns:
        The detector, and the videos that could not be read.

    Raises:
        WeightsError: If the source cannot be loaded or has no decoder.
        ConfigError: If a setting is out of range, or there is too little footage.
        RunError: If the file cannot be written.
    """
    config = config or AnomalyConfig()
    check_output(output, suffix=".npz")
    loaded = load_pretraining(source, clip=clip, device=device)
    measures: list[WindowMeasures] = []
    bad: list[BadVideo] = []
    for item in _measured(loaded, videos, config, "fitting"):
        if isinstance(item, BadVideo):
            bad.append(item)
        else:
            _, measured, fault = item
            measures.append(measured)
            if fault is not None:
                print(f"warning: {fault}", file=sys.stderr)
    if not measures:
        raise ConfigError(
            f"no video could be read ({bad[0].reason if bad else 'none is given'}): give ordinary footage"
        )
    detector = fit_detector(
        measures, config, model=loaded.source, weights=weights_digest(loaded.model), clip=asdict(loaded.clip)
    )
    detector.save(output)
    return detector, bad


def score_videos(
    detector: Detector,
    videos: Sequence[str | os.PathLike[str]],
    *,
    model: str | None = None,
    device: DeviceName = "auto",
) -> Iterator[VideoScores | BadVideo]:
    """Score videos, one after the other.

    Args:
        detector: From `fit_anomaly`.
        videos: Files, folders of them, manifests.
        model: Where the detector's model is now, if not where it was.
        device: Where to compute.

    Yields:
        Scores of each, or why it cannot be read.

    Raises:
        WeightsError: If the model cannot be loaded.
        ConfigError: If its weights are not those of the detector.
    """
    source = model or detector.model
    loaded = load_pretraining(source, clip=ClipConfig(**detector.clip), device=device)
    if weights_digest(loaded.model) != detector.weights:
        raise ConfigError(
            f"the weights of {source} are not those that the detector was fitted with ({detector.model}): give them "
            "with --model, or fit again"
        )
    for item in _measured(loaded, videos, detector.config, "scoring"):
        if isinstance(item, BadVideo):
            yield item
            continue
        path, measured, fault = item
        yield VideoScores(path, measured.starts, measured.ends, detector.scores(measured), detector.threshold, fault)


def _measured(
    loaded: LoadedModel[VideoMAEForPreTraining],
    videos: Sequence[str | os.PathLike[str]],
    config: AnomalyConfig,
    name: str,
) -> Iterator[tuple[str, WindowMeasures, str | None] | BadVideo]:
    items = list(list_videos(videos))
    with TrainingProgress(name, total_steps=len(items), unit="windows") as progress:
        for number, item in enumerate(items):
            if isinstance(item, BadVideo):
                yield item
                continue
            parts: list[WindowMeasures] = []
            fault: str | None = None
            try:
                for part in measure_video(loaded, item, config):
                    if isinstance(part, str):
                        fault = part
                    else:
                        parts.append(part)
                        progress.update(number, num_clips=len(part.starts))
            except VideoReadError as error:  # what was decoded before it broke off counts
                fault = str(error)
            except ConfigError as error:  # a window that does not fit this video
                yield BadVideo(str(item), str(error))
                continue
            progress.update(number + 1, num_clips=0)
            if parts:
                yield str(item), WindowMeasures.joined(parts), fault
            else:
                yield BadVideo(str(item), fault or f"{item} has no window")
