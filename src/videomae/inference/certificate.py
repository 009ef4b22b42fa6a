"""Features in 8-bit integers, where they are those in float32: the first windows are computed in both."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.engine.configs import InferencePrecision
from videomae.engine.precision import compute_dtype
from videomae.errors import ConfigError, VideoReadError
from videomae.inference.clips import clip_batches
from videomae.inference.configs import MIN_COSINE, Pooling
from videomae.inference.int8 import in_int8
from videomae.inference.pooling import Encoder, pooled_rows
from videomae.inference.window_choice import WindowChoice
from videomae.inference.windows import open_as_far_as_whole
from videomae.video.index_store import IndexStore

NUM_WINDOWS = 8  # that are compared: each is computed in float32, too


class Certificate(NamedTuple):
    """How near vectors in 8-bit integers are to those in float32."""

    num_windows: int
    """How many windows were compared; the rows of each count as one vector."""
    mean: float
    """Mean of their cosines."""
    lowest: float
    """The lowest of them."""

    def line(self) -> str:
        """Return it as text."""
        return (
            f"int8 beside fp32, on the first {self.num_windows} windows: cosine {self.mean:.5f} on average, "
            f"{self.lowest:.5f} at the lowest"
        )


def check_min_cosine(min_cosine: float) -> None:
    """Raise ConfigError if a bound is not in [0, 1]."""
    if not 0 <= min_cosine <= 1:
        raise ConfigError(f"min_cosine is {min_cosine:g}; it is the lowest cosine to accept, from 0 to 1")


def first_windows(
    loaded: Encoder, videos: Iterable[Path], choice: WindowChoice, *, store: IndexStore | None = None
) -> Generator[Tensor, None, None]:
    """Yield the first windows of videos, `NUM_WINDOWS` in all where there are so many, in batches.

    Videos that cannot be read are left to whoever computes their features, and says so.

    Yields:
        uint8 `[b, T, C, h, w]`, resized and cropped.
    """
    left = NUM_WINDOWS
    for video in videos:
        if left == 0:
            return
        try:
            with open_as_far_as_whole(video, store=store, fps=loaded.clip.fps) as (reader, _):
                indices = choice.indices(reader, loaded.clip)[:left]  # [W, T]
                for clips in clip_batches(reader.frames_in_order, indices, loaded.processor, batch_size=1):
                    yield clips
                    left -= len(clips)
        except (VideoReadError, ConfigError):
            continue


def in_feature_precision(
    loaded: Encoder,
    precision: InferencePrecision,
    pooling: Pooling,
    windows: Generator[Tensor, None, None],
    *,
    min_cosine: float = MIN_COSINE,
    told: Callable[[Certificate], None] | None = None,
) -> tuple[Encoder, torch.dtype]:
    """Return a model in a precision and the dtype of `autocast` around it; int8 only with a certificate.

    Args:
        loaded: The model; it is not changed.
        precision: As in `compute_dtype`, and int8.
        pooling: Which vectors are compared.
        windows: From `first_windows`; read for int8 alone.
        min_cosine: The least cosine to accept between the vectors of a window in int8 and in float32.
        told: Called with the certificate, also where it is not good enough.

    Raises:
        ConfigError: If the precision is unknown, the model's device does not compute in it, or the cosine is lower.
    """
    if precision != "int8":
        return loaded, compute_dtype(precision, loaded.model.device)
    near, dtype = rounded(loaded), compute_dtype("auto", loaded.model.device)
    cosines = []
    with closing(windows):
        for clips in windows:
            exact = pooled_rows(loaded, clips, pooling).flatten(1)
            found = pooled_rows(near, clips, pooling, dtype=dtype).flatten(1)
            cosines += F.cosine_similarity(exact, found, dim=1).tolist()
    if not cosines:
        return near, dtype
    certificate = Certificate(len(cosines), sum(cosines) / len(cosines), min(cosines))
    if told is not None:
        told(certificate)
    if not certificate.lowest >= min_cosine:
        raise ConfigError(
            f"{certificate.line()}, which is below {min_cosine:g}: use --precision fp32, or --min_cosine 0 to take "
            "the vectors nevertheless"
        )
    return near, dtype


def rounded(loaded: Encoder) -> Encoder:
    """Return the model with the linear layers of its blocks in 8-bit integers.

    Raises:
        ConfigError: If its device, or this processor, does not compute so.
    """
    return replace(loaded, model=in_int8(loaded.model))  # type: ignore[arg-type]
