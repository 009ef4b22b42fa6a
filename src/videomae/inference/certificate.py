"""Features in 8-bit integers, where they are those in float32: some windows are computed in both.

Vectors of one model are much alike: of two windows that show different things the cosine is often 0.998. So the mean
of the windows is subtracted first, as `search` does; what is compared then is what tells one window from another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
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

NUM_WINDOWS = 8  # that are compared, at most: each is computed in float32, too


class Certificate(NamedTuple):
    """How near vectors in 8-bit integers are to those in float32; the rows of a window count as one vector."""

    num_windows: int
    """How many windows were compared."""
    plain: float
    """The lowest cosine of a window's vectors."""
    lowest: float
    """The same after the mean of all windows is subtracted; of a single window, as it is."""

    def line(self) -> str:
        """Return it as text."""
        return (
            f"int8 beside fp32, on {self.num_windows} windows: cosine {self.plain:.5f} at the lowest, without the "
            f"mean of the windows {self.lowest:.5f}"
        )


def check_min_cosine(min_cosine: float) -> None:
    """Raise ConfigError if a bound is not in [0, 1]."""
    if not 0 <= min_cosine <= 1:
        raise ConfigError(f"min_cosine is {min_cosine:g}; it is the lowest cosine to accept, from 0 to 1")


def spread_windows(
    loaded: Encoder, videos: Sequence[Path], choice: WindowChoice, *, store: IndexStore | None = None
) -> Generator[Tensor, None, None]:
    """Yield some windows, spread evenly over videos: `NUM_WINDOWS`, or as many as there are.

    Videos that cannot be read are left to whoever computes their features, and says so.

    Yields:
        uint8 `[1, T, C, h, w]`, resized and cropped.
    """
    chosen = [videos[number] for number in _spread(len(videos), NUM_WINDOWS)]
    for video in chosen:
        try:
            with open_as_far_as_whole(video, store=store, fps=loaded.clip.fps) as (reader, _):
                indices = choice.indices(reader, loaded.clip)  # [W, T]
                indices = indices[_spread(len(indices), NUM_WINDOWS // len(chosen))]
                yield from clip_batches(reader.frames_in_order, indices, loaded.processor, batch_size=1)
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
        windows: From `spread_windows`; read for int8 alone.
        min_cosine: The least cosine to accept, see `Certificate.lowest`.
        told: Called with the certificate, also where it is not good enough.

    Raises:
        ConfigError: If the precision is unknown, the model's device does not compute in it, or the cosine is lower.
    """
    if precision != "int8":
        return loaded, compute_dtype(precision, loaded.model.device)
    near, dtype = rounded(loaded), compute_dtype("auto", loaded.model.device)
    pairs = []
    with closing(windows):
        for clips in windows:
            exact, found = pooled_rows(loaded, clips, pooling), pooled_rows(near, clips, pooling, dtype=dtype)
            pairs.append(torch.stack([exact.flatten(), found.flatten()]))
    if not pairs:
        return near, dtype
    certificate = certificate_of(torch.stack(pairs))
    if told is not None:
        told(certificate)
    if not certificate.lowest >= min_cosine:
        raise ConfigError(
            f"{certificate.line()}, which is below {min_cosine:g}: use --precision fp32, or --min_cosine 0 to take "
            "the vectors nevertheless"
        )
    return near, dtype


def certificate_of(vectors: Tensor) -> Certificate:
    """Compare vectors `[W, 2, D]`, those of each window in float32 and in 8-bit integers."""
    centred = vectors - vectors[:, :1].mean(dim=0) if len(vectors) > 1 else vectors
    plain, without_mean = (
        F.cosine_similarity(one[:, 0], one[:, 1], dim=1).min().item() for one in (vectors, centred)
    )
    return Certificate(len(vectors), plain, without_mean)


def _spread(num_items: int, num_wanted: int) -> list[int]:
    """Return as many indices as are wanted, or all, at even distances."""
    count = min(num_items, num_wanted)
    return [(2 * number + 1) * num_items // (2 * count) for number in range(count)]


def rounded(loaded: Encoder) -> Encoder:
    """Return the model with the linear layers of its blocks in 8-bit integers.

    Raises:
        ConfigError: If its device, or this processor, does not compute so.
    """
    return replace(loaded, model=in_int8(loaded.model))  # type: ignore[arg-type]
