"""The scores of videos on disk while they are computed: what `inference.kept_rows` keeps of a timeline."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from videomae.inference.kept_rows import KeptRows
from videomae.inference.predictor import Predictor
from videomae.inference.windows import Windows
from videomae.timeline.configs import TimelineConfig
from videomae.timeline.timeline import VideoFacts


class FinishedVideo(NamedTuple):
    """What is known of a video that is through, but for its scores."""

    facts: VideoFacts
    """Of the video."""
    windows: Windows
    """Where its windows lie."""
    fault: str | None
    """Why there are no more scores; None: there are all."""
    strip: bytes
    """JPEG of small frames, may be empty."""


def kept_scores(output: Path, predictor: Predictor, config: TimelineConfig, *, resume: bool) -> KeptRows:
    """Return the folder of scores beside an output file, a row for each window.

    Args:
        output: The file that the scores will become.
        predictor: The classifier.
        config: Windows; smoothing and thresholds may change between two calls.
        resume: Go on with what is there; if nothing is there, begin.

    Raises:
        RunError: If what is there was made by another model or with other windows, or the disk refuses.
    """
    settings = {
        "model": model_identity(predictor),
        "classes": list(predictor.classes),
        "clip": asdict(predictor.clip),
        "speed": 1.0 if predictor.merging is None else predictor.merging.speed,
        "precision": predictor.precision,
        **({} if predictor.decoder == "pyav" else {"decoder": predictor.decoder}),  # unnamed by earlier versions
        **({} if predictor.backend == "torch" else {"backend": predictor.backend}),  # likewise
        **{name: getattr(config, name) for name in ("window", "step", "batch_size")},
    }
    width = len(predictor.classes)
    return KeptRows(output, settings, width=width, batch_size=config.batch_size, resume=resume)


def finish_scores(kept: KeptRows, video: str, found: FinishedVideo) -> None:
    """Note that a video is through, and what is known of it.

    Raises:
        RunError: If the disk refuses.
    """
    values = {"facts": found.facts._asdict(), "fault": found.fault}
    arrays = {name: np.asarray(value) for name, value in found.windows._asdict().items()}
    kept.finish(video, values, strip=np.frombuffer(found.strip, np.uint8), **arrays)


def finished_scores(kept: KeptRows, video: str) -> FinishedVideo | None:
    """Return what was noted of a video that is through; None if it is not, or is another file now."""
    known = kept.finished(video)
    if known is None:
        return None
    indices, stored, starts, ends, step = (known.arrays[name] for name in Windows._fields)
    windows = Windows(indices, stored, starts, ends, float(step))
    return FinishedVideo(
        VideoFacts(**known.values["facts"]), windows, known.values["fault"], known.arrays["strip"].tobytes()
    )


def model_identity(predictor: Predictor) -> list[Any]:
    """Return by what another model is noticed: its name and a sum over each of its parameters."""
    digest = hashlib.sha256()
    for name, parameter in predictor.model.named_parameters():
        digest.update(f"{name} {parameter.detach().double().sum().item()!r}".encode())
    return [predictor.source, digest.hexdigest()[:16]]
