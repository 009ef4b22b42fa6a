"""Fitting a detector on ordinary videos, and scoring others with it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.anomaly.configs import AnomalyConfig
from videomae.anomaly.detector import Detector, Scores, fit_detector
from videomae.anomaly.measures import WindowMeasures
from videomae.anomaly.measuring import kept_measures, measured_videos
from videomae.data.datasets import BadVideo
from videomae.engine.precision import DeviceName
from videomae.errors import ConfigError
from videomae.inference.files import check_output
from videomae.inference.loaded import load_pretraining, weights_digest
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
    resume: bool = False,
) -> tuple[Detector, list[BadVideo]]:
    """Fit a detector on ordinary footage and write it.

    What is measured is kept beside the output meanwhile, so that a call with `resume` goes on after a stop.

    Args:
        source: A pre-trained model with its decoder.
        videos: Ordinary footage: files, folders of them, manifests, addresses.
        output: The file to write, `.npz`.
        config: How.
        clip: How clips are sampled; as the record beside the weights says where not given.
        device: Where to compute.
        resume: Go on with what a stopped call has left beside the output.

    Returns:
        The detector, and the videos that could not be read to their end, with the reasons.

    Raises:
        WeightsError: If the source cannot be loaded or has no decoder.
        ConfigError: If a setting is out of range, or there is too little footage.
        RunError: If the file cannot be written, or what was left was made otherwise.
    """
    config = config or AnomalyConfig()
    check_output(output, suffix=".npz")
    loaded = load_pretraining(source, clip=clip, device=device)
    kept = kept_measures(output, loaded, config, resume=resume)
    measures: list[WindowMeasures] = []
    bad: list[BadVideo] = []
    try:
        for item in measured_videos(loaded, videos, config, kept=kept):
            if isinstance(item, BadVideo):
                bad.append(item)
                continue
            measures.append(item.measures)
            if item.fault is not None:
                bad.append(BadVideo(item.path, item.fault))
    except KeyboardInterrupt:
        warnings.warn(
            f"stopped: {output} was not written; what has been measured is kept in {kept.folder}, continue with "
            "--resume",
            UserWarning,
            stacklevel=2,
        )
        raise
    if not measures:
        kept.remove()
        raise ConfigError(
            f"no video could be read ({bad[0].reason if bad else 'none is given'}): give ordinary footage"
        )
    detector = fit_detector(
        measures, config, model=loaded.source, weights=weights_digest(loaded.model), clip=asdict(loaded.clip)
    )
    detector.save(output)
    kept.remove()
    return detector, bad


def score_videos(
    detector: Detector,
    videos: Sequence[str | os.PathLike[str]],
    *,
    model: str | None = None,
    device: DeviceName = "auto",
    output: Path | None = None,
    resume: bool = False,
) -> Iterator[VideoScores | BadVideo]:
    """Score videos, one after the other.

    Args:
        detector: From `fit_anomaly`.
        videos: Files, folders of them, manifests, addresses.
        model: Where the detector's model is now, if not where it was.
        device: Where to compute.
        output: The file that the caller will write: what is measured is kept beside it until the last video is done.
        resume: Go on with what a stopped call has left there.

    Yields:
        Scores of each, or why it cannot be read. Ctrl-C yields the video in progress up to there, with `fault`
        saying so, before it is raised.

    Raises:
        WeightsError: If the model cannot be loaded.
        ConfigError: If its weights are not those of the detector.
        RunError: If what was left was made otherwise, or the disk refuses.
    """
    source = model or detector.model
    loaded = load_pretraining(source, clip=ClipConfig(**detector.clip), device=device)
    if weights_digest(loaded.model) != detector.weights:
        raise ConfigError(
            f"the weights of {source} are not those that the detector was fitted with ({detector.model}): give them "
            "with --model, or fit again"
        )
    kept = None if output is None else kept_measures(output, loaded, detector.config, resume=resume)
    for item in measured_videos(loaded, videos, detector.config, kept=kept):
        if isinstance(item, BadVideo):
            yield item
            continue
        found = item.measures
        yield VideoScores(item.path, found.starts, found.ends, detector.scores(found), detector.threshold, item.fault)
