"""Features in 8-bit integers, where they are those in float32: some windows are computed in both.

Vectors of one model are much alike: of two windows that show different things the cosine is often 0.998. So the mean
of the windows is subtracted first, as `search` does; what is compared then is what tells one window from another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.engine.configs import Backend, InferencePrecision
from videomae.engine.precision import compute_dtype
from videomae.errors import ConfigError
from videomae.inference.backends import in_precision
from videomae.inference.configs import MIN_COSINE, Pooling
from videomae.inference.pooling import Encoder, clip_pixels, pooled_rows
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel


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
            f"int8 compared with fp32, on {self.num_windows} windows: cosine {self.plain:.5f} at the lowest, without "
            f"the mean of the windows {self.lowest:.5f}"
        )


def check_min_cosine(min_cosine: float) -> None:
    """Raise ConfigError if a bound is not in [0, 1]."""
    if not 0 <= min_cosine <= 1:
        raise ConfigError(f"min_cosine is {min_cosine:g}; it is the lowest cosine to accept, from 0 to 1")


def in_feature_precision(
    loaded: Encoder,
    precision: InferencePrecision,
    pooling: Pooling,
    windows: Generator[Tensor, None, None],
    *,
    backend: Backend = "torch",
    min_cosine: float = MIN_COSINE,
    told: Callable[[Certificate], None] | None = None,
) -> tuple[Encoder, torch.dtype]:
    """Return a model in a precision and the dtype of `autocast` around it; int8 only with a certificate.

    Args:
        loaded: The model; it is not changed.
        precision: As in `compute_dtype`, and int8.
        pooling: Which vectors are compared.
        windows: From `spread_windows`; read for int8 alone.
        backend: What computes the blocks.
        min_cosine: The least cosine to accept, see `Certificate.lowest`.
        told: Called with the certificate, also where it is not good enough.

    Raises:
        ConfigError: If the precision or the backend is unknown, the model's device does not compute so, the pooling
            needs what the backend has not, or the cosine is lower.
    """
    if backend == "openvino" and pooling == "attention":
        raise ConfigError(
            "pooling is 'attention', whose weights the backend openvino never has as a whole: use the backend torch, "
            "or another pooling"
        )
    if precision != "int8":
        model, dtype = in_precision(loaded.model, precision, backend)
        return _with(loaded, model), dtype
    with closing(windows):
        clips = list(windows)
    if not clips:
        return loaded, compute_dtype("fp32", loaded.model.device)  # of videos none of which can be read
    pixel_values = (clip_pixels(loaded, one) for one in clips)
    model, dtype = in_precision(loaded.model, precision, backend, clips=pixel_values)
    near = _with(loaded, model)
    pairs = []
    for one in clips:
        exact, found = pooled_rows(loaded, one, pooling), pooled_rows(near, one, pooling, dtype=dtype)
        pairs.append(torch.stack([exact.flatten(), found.flatten()]))
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


def _with(loaded: Encoder, model: VideoMAEModel | VideoMAEForVideoClassification) -> Encoder:
    return replace(loaded, model=model)  # type: ignore[arg-type]
