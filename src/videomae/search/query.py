"""Search by example: the places in indexed footage that are most like a clip."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomae.data.datasets import BadVideo
from videomae.engine.precision import DeviceName
from videomae.errors import ConfigError, VideoReadError
from videomae.inference.clips import DEFAULT_BATCH_SIZE, clip_batches
from videomae.inference.files import list_inputs
from videomae.inference.loaded import load_encoder, weights_digest
from videomae.inference.pooling import Encoder, pooled_rows
from videomae.inference.window_choice import WindowChoice
from videomae.inference.windows import frame_times, open_as_far_as_whole
from videomae.search.index import FeatureIndex
from videomae.video.addresses import address_of
from videomae.video.opening import part_suffix, split_name
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


class Query(NamedTuple):
    """A clip to search for."""

    vectors: NDArray[np.float32]
    """`[q, D]`, the features of its windows."""
    span: tuple[float, float]
    """Where it begins and ends in its video, in seconds, as far as it was read."""
    fault: str | None
    """Why it was not read to its end; None: it was."""


@dataclass(frozen=True)
class SearchResult:
    """What is like a clip."""

    path: str
    """The clip."""
    span: tuple[float, float]
    """Where it begins and ends in its video, in seconds."""
    matches: tuple[Match, ...]
    """Nearest first."""
    fault: str | None = None
    """Why the clip was not read to its end; None: it was."""


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


def query_features(loaded: Encoder, index: FeatureIndex, clip: str) -> Query:
    """Return the features of the windows of a clip, made as those of the index.

    A clip shorter than the index's window has one window, sampled as the model's clips are.

    Raises:
        VideoReadError: If nothing of it can be read.
    """
    settings = index.settings
    choice = WindowChoice(settings["step_frames"], settings["window_seconds"], settings["step_seconds"])
    with open_as_far_as_whole(clip, fps=loaded.clip.fps) as (reader, fault):
        try:
            indices = choice.indices(reader, loaded.clip)
        except ConfigError:
            indices = clip_indices(len(reader), loaded.clip)
        vectors: list[NDArray[np.float32]] = []
        try:
            for clips in clip_batches(
                reader.frames_in_order, indices, loaded.processor, batch_size=DEFAULT_BATCH_SIZE
            ):
                vectors.append(pooled_rows(loaded, clips, settings["pooling"]).numpy())
        except VideoReadError as error:
            if not vectors:
                raise
            fault = str(error)
        times, ends = frame_times(reader.timestamps_seconds, reader.info.frame_rate)
        last = int(indices[sum(map(len, vectors)) - 1].max()) if fault is not None else len(times) - 1
        return Query(np.concatenate(vectors), (float(times[0]), float(ends[last])), fault)


def search_like(
    index: FeatureIndex,
    clip: str | os.PathLike[str],
    *,
    start: float | None = None,
    end: float | None = None,
    top_k: int = 10,
    model: str | None = None,
    device: DeviceName = "auto",
) -> SearchResult:
    """Find the places in an index that are most like a clip.

    Args:
        index: The index.
        clip: A video, a part of one (`clip.mp4#t=3,5`), or an address; or a folder or manifest with one video.
        start: Seconds; compare only what is shown from here on.
        end: Seconds; and before this.
        top_k: Places to return; of windows that overlap only the best counts. The clip itself, where it is in the
            index, does not.
        model: As for `load_query_model`.
        device: Likewise.

    Raises:
        ConfigError: If a number is out of range, the model is another, or the clip is not one video.
        VideoReadError: If the clip cannot be read.
        WeightsError: If the model cannot be loaded.
    """
    if top_k < 1:
        raise ConfigError(f"top_k is {top_k}; it is a number of results, at least 1")
    for option, time in (("start", start), ("end", end)):
        if time is not None and not 0 <= time < float("inf"):
            raise ConfigError(f"{option} is {time:g}; it is a time in the clip, in seconds, at least 0")
    if start is not None and end is not None and start >= end:
        raise ConfigError(f"start is {start:g} and end is {end:g}: give times in seconds, the end after the start")
    name = _one_clip(clip, start, end)
    loaded = load_query_model(index, model=model, device=device)
    query = query_features(loaded, index, name)
    found = index.nearest(query.vectors, top_k * LOOKED_AT)
    own = _whole(name)
    taken: list[Match] = []
    for row, similarity in zip(found.rows.tolist(), found.similarities.tolist(), strict=True):
        path = index.paths[index.video[row]]
        span = float(index.starts[row]), float(index.ends[row])
        is_clip = _whole(path) == own and span[0] < query.span[1] and span[1] > query.span[0]
        if is_clip or any(one.path == path and span[0] < one.end and span[1] > one.start for one in taken):
            continue
        taken.append(Match(path, *span, similarity))
        if len(taken) == top_k:
            break
    return SearchResult(name, query.span, tuple(taken), query.fault)


def _one_clip(clip: str | os.PathLike[str], start: float | None, end: float | None) -> str:
    """Return the name of the clip to search for.

    Raises:
        ConfigError: If it is not one, or part of a part.
        VideoReadError: If there is none.
    """
    items = list(list_inputs([clip]))
    if len(items) != 1:
        raise ConfigError(f"like is {os.fspath(clip)}, which holds {len(items)} videos: give one of them")
    if isinstance(items[0], BadVideo):
        raise VideoReadError(items[0].reason)
    name = os.fspath(items[0])
    suffix = part_suffix(start, end)
    if suffix and split_name(name)[1:] != (None, None):
        raise ConfigError(f"like is {name}, a part already, and start or end is given too: leave out one of both")
    return f"{name}{suffix}"


def _whole(name: str) -> str:
    """Return by what a video is known again in which a part may lie."""
    video = split_name(name)[0]
    return video if address_of(video) is not None else os.path.abspath(video)
