"""Features of many videos on a Ray cluster: a job for each video, whose table becomes a part of the whole.

A job goes on where an earlier one of its video stopped: what it has done lies beside the other parts, on a disk that
all machines see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from videomae.data.datasets import BadVideo
from videomae.engine.configs import Backend, InferencePrecision
from videomae.engine.jobs import JobFailure
from videomae.engine.progress import TrainingProgress
from videomae.engine.ray_jobs import jobs_on
from videomae.errors import RunError
from videomae.inference.backends import in_precision
from videomae.inference.configs import Pooling
from videomae.inference.feature_pass import FeaturePass
from videomae.inference.feature_table import TableParts
from videomae.inference.loaded import load_encoder, weights_digest
from videomae.inference.pooling import Encoder
from videomae.inference.window_choice import WindowChoice
from videomae.video.decoders import DecoderName
from videomae.video.index_store import IndexStore
from videomae.video.sampling import ClipConfig


@dataclass(frozen=True)
class VideoJob:
    """One video to encode, and all that it takes; without a video it is the plan of them all."""

    source: str
    """The model."""
    settings: Mapping[str, Any]
    """Those of the table; its weights and precision are what the job computes with."""
    choice: WindowChoice
    """Which clips."""
    pooling: Pooling
    """Which vectors."""
    clip: ClipConfig
    """How clips are sampled."""
    batch_size: int
    """Clips in one forward pass."""
    store: IndexStore | None
    """Keeps what is known of the files of a collection."""
    path: str = ""
    """The video's name in the table."""
    video: Path | str = Path()
    """The video."""
    first: int = 0
    """Windows of it that are in other parts."""
    output: Path = Path()
    """The part to write."""


class VideoResult(NamedTuple):
    """What came of a job."""

    num_windows: int
    """In its part; 0: there is none."""
    bad: tuple[BadVideo, ...]
    """The video, if nothing of it could be read."""
    refusal: str | None = None
    """What stops the whole, such as a full disk; None: nothing."""


def run_video_jobs(
    plan: VideoJob,
    parts: TableParts,
    videos: Mapping[str, Path | str],
    *,
    workers: int | None,
    progress: TrainingProgress,
) -> list[BadVideo]:
    """Encode videos on a Ray cluster, into parts of a table.

    Args:
        plan: What is the same for all.
        parts: Of the table.
        videos: Those to do, by their names in the table.
        workers: How many at a time; None: one for each processor of the cluster.
        progress: Told how many videos are through, a step each.

    Returns:
        Those of which nothing could be read, or whose process died.

    Raises:
        ConfigError: If Ray is not installed.
        RunError: If the disk refuses, or a machine has other weights; what is done is kept.
        StopRequested: After SIGTERM.
    """
    unfinished, bad = parts.unfinished(), list[BadVideo]()
    jobs = [
        replace(
            plan,
            path=path,
            video=video,
            first=parts.begun.get(path, 0),
            output=unfinished.get(path) or parts.reserve(),
        )
        for path, video in videos.items()
    ]
    with jobs_on("ray", encode_video, jobs, workers=workers) as finished:
        for number, (job, result) in enumerate(finished, start=1):
            if isinstance(result, JobFailure):
                bad.append(BadVideo(job.path, f"{job.path}: {result.reason}"))
                continue
            if result.refusal is not None:
                raise RunError(result.refusal)
            bad += result.bad
            if result.num_windows:
                parts.take_in(job.output)
            progress.update(number, num_clips=result.num_windows)
    return bad


def encode_video(job: VideoJob) -> VideoResult:
    """Do a job, in a process of the cluster."""
    try:
        precision, backend = job.settings["precision"], job.settings.get("backend", "torch")
        loaded, dtype = _encoder(job.source, job.clip, precision, backend, str(job.settings["weights"]))
        loaded = replace(loaded, decoder=cast(DecoderName, job.settings.get("decoder", "pyav")))
        parts = TableParts(job.output, job.settings, resume=True)
        parts.begun.setdefault(job.path, job.first)
        work = FeaturePass(loaded, parts, job.choice, job.pooling, dtype, job.batch_size)
        try:
            if job.path not in parts.finished:
                work.run({job.path: job.video}, store=job.store, workers=1)
        finally:
            parts.discard_if_empty()
        if any(parts.parts()):
            parts.finish()
    except RunError as error:
        return VideoResult(0, (), str(error))
    found = parts.finished.get(job.path)
    return VideoResult(0 if found is None else found.windows - job.first, tuple(work.bad))


@lru_cache(maxsize=1)  # a process does many jobs
def _encoder(
    source: str, clip: ClipConfig, precision: InferencePrecision, backend: Backend, weights: str
) -> tuple[Encoder, torch.dtype]:
    loaded = load_encoder(source, clip=clip, device="cpu")
    found = weights_digest(loaded.model)
    if found != weights:
        raise RunError(
            f"{source} has other weights on this machine ({found}) than where the work was started ({weights}): give "
            "a model that all machines see alike"
        )
    model, dtype = in_precision(loaded.model, precision, backend)
    return replace(loaded, model=model), dtype  # type: ignore[arg-type]
