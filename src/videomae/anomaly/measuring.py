"""Measuring the windows of many videos, one pass over each, that can be stopped and gone on with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from videomae.anomaly.configs import AnomalyConfig
from videomae.anomaly.measures import Float64, VideoPlan, WindowMeasures, measure_video
from videomae.data.datasets import BadVideo
from videomae.errors import ConfigError, VideoReadError
from videomae.inference.clips import resized_frames
from videomae.inference.files import list_inputs
from videomae.inference.kept_rows import KeptRows
from videomae.inference.loaded import LoadedModel, weights_digest
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.timeline.scan_progress import ScanProgress

STOPPED = "stopped before the end; --resume continues from here"
TIMES = 2  # start and end, which stand before the feature in a row


class MeasuredVideo(NamedTuple):
    """The windows of one video."""

    path: str
    """The video."""
    measures: WindowMeasures
    """At least one window."""
    fault: str | None
    """Why it was not read to its end; None: it was."""


def kept_measures(
    output: Path, loaded: LoadedModel[VideoMAEForPreTraining], config: AnomalyConfig, *, resume: bool
) -> KeptRows:
    """Return the folder beside an output file in which measures are kept, a row for each window.

    Args:
        output: The file.
        loaded: The model.
        config: Windows and masks; the rate of false alarms may change between two calls.
        resume: Go on with what is there; if nothing is there, begin.

    Raises:
        ConfigError: If the processor does not crop to one size.
        RunError: If what is there was made otherwise, or the disk refuses.
    """
    height, width = _grid(loaded)
    settings = {
        "weights": weights_digest(loaded.model),
        "clip": asdict(loaded.clip),
        **{name: getattr(config, name) for name in ("window", "step", "masks", "seed", "batch_size")},
    }
    return KeptRows(
        output,
        settings,
        width=TIMES + loaded.model.config.hidden_size + height * width,
        batch_size=config.batch_size,
        resume=resume,
    )


def measured_videos(
    loaded: LoadedModel[VideoMAEForPreTraining],
    videos: Sequence[str | os.PathLike[str]],
    config: AnomalyConfig,
    *,
    kept: KeptRows | None = None,
) -> Iterator[MeasuredVideo | BadVideo]:
    """Measure videos, one after the other.

    Args:
        loaded: A pre-trained model with its decoder.
        videos: Files, folders of them, manifests, addresses.
        config: Windows and masks.
        kept: Where measures are kept meanwhile, and where those of a stopped call are found.

    Yields:
        Measures of each, or why there are none. Ctrl-C yields the video in progress up to there, before it is raised.

    Raises:
        RunError: If the disk refuses.
    """
    items = list(list_inputs(videos))
    grid = _grid(loaded)
    with ScanProgress(len(items)) as progress:
        for item in items:
            if isinstance(item, BadVideo):
                yield item
                continue
            name = os.fspath(item)
            done = None if kept is None else kept.finished(name)
            if kept is not None and done is not None:
                found = from_rows(kept.rows(name), loaded.model.config.hidden_size, grid)
                progress.begin(name, total_seconds=found.ends[-1], first_seconds=found.ends[-1])
                yield MeasuredVideo(name, found, done.values["fault"])
                continue
            yield from _measured(loaded, name, config, grid, kept, progress)


def _measured(
    loaded: LoadedModel[VideoMAEForPreTraining],
    name: str,
    config: AnomalyConfig,
    grid: tuple[int, int],
    kept: KeptRows | None,
    progress: ScanProgress,
) -> Iterator[MeasuredVideo | BadVideo]:
    first = 0 if kept is None else kept.begin(name)
    parts: list[WindowMeasures] = []
    if kept is not None and first:
        parts.append(from_rows(kept.rows(name), loaded.model.config.hidden_size, grid))
    fault: str | None = None
    try:
        for part in measure_video(loaded, name, config, first=first):
            if isinstance(part, VideoPlan):
                fault = part.fault
                progress.begin(name, total_seconds=part.seconds, first_seconds=parts[0].ends[-1] if parts else 0.0)
                continue
            parts.append(part)
            if kept is not None:
                kept.append(name, as_rows(part))
            progress.update(float(part.ends[-1]))
    except VideoReadError as error:  # what was decoded before it broke off counts
        fault = str(error)
    except ConfigError as error:  # a window that does not fit this video
        yield BadVideo(name, str(error))
        return
    except KeyboardInterrupt:
        if parts:
            yield MeasuredVideo(name, WindowMeasures.joined(parts), STOPPED)
        raise
    if not parts:
        yield BadVideo(name, fault or f"{name} has no window")
        return
    if kept is not None:
        kept.finish(name, {"fault": fault})
    yield MeasuredVideo(name, WindowMeasures.joined(parts), fault)


def as_rows(measures: WindowMeasures) -> Float64:
    """Return measures as rows to keep, `[n, 2 + D + h * w]`; float64 holds each value as it is."""
    times = np.stack([measures.starts, measures.ends], axis=1)
    errors = measures.errors.reshape(len(times), -1)
    return np.concatenate([times, measures.features, errors], axis=1, dtype=np.float64)


def from_rows(rows: Float64, hidden_size: int, grid: tuple[int, int]) -> WindowMeasures:
    """Return the measures that rows were made of."""
    starts, ends = np.array(rows[:, 0]), np.array(rows[:, 1])
    features = rows[:, TIMES : TIMES + hidden_size].astype(np.float32)
    errors = rows[:, TIMES + hidden_size :].astype(np.float32)
    return WindowMeasures(starts, ends, features, errors.reshape(len(rows), *grid))


def _grid(loaded: LoadedModel[VideoMAEForPreTraining]) -> tuple[int, int]:
    """Return height and width of the token grid of the clips that the processor prepares.

    Raises:
        ConfigError: If clips of other frames have another one.
    """
    sizes = []
    for height, width in ((240, 320), (320, 240)):
        blank = np.zeros((1, height, width, 3), np.uint8)
        sizes.append(
            resized_frames(partial(np.take, blank, axis=0), np.zeros(1, np.int64), loaded.processor).shape[-2:]
        )
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"the processor of {loaded.source} does not crop to one size, and errors are compared by position: set "
            "do_center_crop to true in its preprocessor_config.json"
        )
    rows, columns = loaded.model.config.patch_height_width
    return sizes[0][0] // rows, sizes[0][1] // columns
