"""Search by example: the places in indexed footage that are most like a clip."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomae.engine.precision import DeviceName
from videomae.errors import ConfigError
from videomae.inference.clips import DEFAULT_BATCH_SIZE, clip_batches
from videomae.inference.loaded import load_encoder, weights_digest
from videomae.inference.pooling import Encoder, pooled_rows
from videomae.inference.window_choice import WindowChoice
from videomae.search.index import FeatureIndex
from videomae.video.opening import open_reader, part_name
from videomae.video.sampling import ClipConfig, clip_indices

LOOKED_AT = 20  # rows looked at for each result, since windows of one place follow each other


@dataclass(frozen=True)
class Match:
    """A place that is like the clip."""

    path: str
    """The video."""
    start: float
    """Seconds."""
    end: float
    """Seconds."""
    similarity: float
    """Cosine of the features without the index's mean, in [-1, 1]."""

    def to_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return asdict(self)


def load_query_model(index: FeatureIndex, *, model: str | None = None, device: DeviceName = "auto") -> Encoder:
    """Load the model that an index was made with.

    Args:
        index: The index.
        model: Where the model is now, if not where it was.
        device: Where to compute.

    Raises:
        WeightsError: If it cannot be loaded.
        ConfigError: If its weights are not those of the index.
    """
    source = model or str(index.settings["model"])
    loaded = load_encoder(source, clip=ClipConfig(**index.settings["clip"]), device=device)
    if weights_digest(loaded.model) != index.settings["weights"]:
        raise ConfigError(
            f"the weights of {source} are not those that the index was made with ({index.settings['model']}): give "
            "them with --model, or make the index again"
        )
    return loaded


def query_vectors(loaded: Encoder, index: FeatureIndex, clip: Path) -> NDArray[np.float32]:
    """Return the features of the windows of a clip, `[q, D]`, made as those of the index.

    A clip shorter than the index's window has one window, sampled as the model's clips are.

    Raises:
        VideoReadError: If it cannot be read.
    """
    settings = index.settings
    choice = WindowChoice(settings["step_frames"], settings["window_seconds"], settings["step_seconds"])
    with open_reader(clip, fps=loaded.clip.fps) as reader:
        try:
            indices = choice.indices(reader, loaded.clip)
        except ConfigError:
            indices = clip_indices(len(reader), loaded.clip)
        batches = clip_batches(reader.frames_in_order, indices, loaded.processor, batch_size=DEFAULT_BATCH_SIZE)
        return np.concatenate([pooled_rows(loaded, clips, settings["pooling"]).numpy() for clips in batches])


def search_like(
    index: FeatureIndex,
    clip: Path,
    *,
    start: float | None = None,
    end: float | None = None,
    top_k: int = 10,
    model: str | None = None,
    device: DeviceName = "auto",
) -> list[Match]:
    """Find the places in an index that are most like a clip.

    Args:
        index: The index.
        clip: A video.
        start: Seconds; compare only what is shown from here on.
        end: Seconds; and before this.
        top_k: Places to return; of windows that overlap only the best counts. The clip itself, where it is in the
            index, does not.
        model: As for `load_query_model`.
        device: Likewise.

    Raises:
        ConfigError: If a number is out of range or the model is another.
        VideoReadError: If the clip cannot be read.
        WeightsError: If the model cannot be loaded.
    """
    if top_k < 1:
        raise ConfigError(f"top_k is {top_k}; it is a number of results, at least 1")
    if start is not None and end is not None and not 0 <= start < end:
        raise ConfigError(f"start is {start:g} and end is {end:g}: give times in seconds, the end after the start")
    loaded = load_query_model(index, model=model, device=device)
    found = index.nearest(query_vectors(loaded, index, part_name(clip, start, end)), top_k * LOOKED_AT)
    own = os.path.abspath(clip)
    taken: list[Match] = []
    for row, similarity in zip(found.rows.tolist(), found.similarities.tolist(), strict=True):
        path = index.paths[index.video[row]]
        span = float(index.starts[row]), float(index.ends[row])
        is_clip = os.path.abspath(path) == own and span[0] < (end or np.inf) and span[1] > (start or 0.0)
        if is_clip or any(one.path == path and span[0] < one.end and span[1] > one.start for one in taken):
            continue
        taken.append(Match(path, *span, similarity))
        if len(taken) == top_k:
            break
    return taken
