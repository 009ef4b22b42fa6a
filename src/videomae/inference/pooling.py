"""Which vectors are the features of a clip of T frames, with `t = T / 2` tubelets in time and `N` tokens.

- `token` `[N, D]`: the encoder's output, after its final LayerNorm if it has one. Pre-trained models do; classifiers
  that pool by mean do not. For anything that asks where: localization, heat maps, attentive probes.
- `tubelet` `[t, D]`: the mean of the tokens of each time slice. For when: temporal segmentation, alignment.
- `frame` `[T, D]`: the row of a frame's tubelet, once for each of its frames; nothing in the model is finer. For
  programs that want one row a frame.
- `clip` `[D]`: for a classifier, the input of its last layer (for one that pools by mean: the mean of all tokens,
  after `fc_norm`); for any other model, the mean of all tokens. For search, clustering and linear classifiers.
- `attention` `[D]`: the mean of the tokens, weighted by the attention that each receives in the last layer, averaged
  over heads and queries. As `clip`, where what matters fills a small part of the picture; attention matrices of all
  layers are computed, so that it takes longer.

Hence for a classifier that pools by mean, `fc_norm` of the mean of token, tubelet or frame rows is the clip row.
A CLS token, which only custom models have, is in no row but the clip row of a classifier that uses it.
"""

from __future__ import annotations

from typing import TypeAlias, get_args

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from torch import Tensor

from videomae.engine.precision import autocast
from videomae.errors import ConfigError
from videomae.inference.clips import normalized
from videomae.inference.configs import Pooling
from videomae.inference.loaded import LoadedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel, encode

Encoder: TypeAlias = LoadedModel[VideoMAEModel] | LoadedModel[VideoMAEForVideoClassification]
FloatArray = NDArray[np.float64]


def check_pooling(pooling: Pooling) -> None:
    """Raise ConfigError if a pooling is unknown."""
    if pooling not in get_args(Pooling):
        raise ConfigError(f"pooling is {pooling!r}; choose one of {', '.join(get_args(Pooling))}")


@torch.inference_mode()
def pooled_rows(loaded: Encoder, clips: Tensor, pooling: Pooling, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Encode clips.

    Args:
        loaded: The model.
        clips: uint8 `[b, T, C, h, w]`, resized and cropped.
        pooling: Which vectors.
        dtype: Of the matrix multiplications.

    Returns:
        float32 `[b, ..., D]` on the CPU. There a clip's values do not depend on the clips beside it, to the bit: a
        processor multiplies a batch of matrices in an order of its own, so that clips are encoded one by one, which
        takes no longer.
    """
    pixel_values = clip_pixels(loaded, clips)  # [b, T, C, H, W]
    parts = pixel_values.split(1) if pixel_values.device.type == "cpu" else (pixel_values,)
    with autocast(pixel_values.device, dtype):
        return torch.cat([_pooled(loaded, part, pooling).float().cpu() for part in parts])


def clip_pixels(loaded: Encoder, clips: Tensor) -> Tensor:
    """Return uint8 clips `[b, T, C, h, w]`, resized and cropped, as pixel values on the model's device."""
    channels = loaded.model.config.num_channels
    return normalized(clips, loaded.processor, device=loaded.model.device, num_channels=channels)


def _pooled(loaded: Encoder, pixel_values: Tensor, pooling: Pooling) -> Tensor:
    model = loaded.model
    encoder = model.videomae if isinstance(model, VideoMAEForVideoClassification) else model
    options = {"output_attentions": True} if pooling == "attention" else {}
    encoded = encode(encoder, pixel_values, **options)
    states = encoded.last_hidden_state  # [b, N, D], CLS in front
    first = 1 if model.config.use_cls_token else 0
    tokens = states[:, first:]  # [b, N, D]
    grid = encoder.embeddings.grid_of(pixel_values)
    tubelets = rearrange(tokens, "b (t p) d -> b t p d", t=grid.frames)
    match pooling:
        case "token":
            return tokens
        case "tubelet":
            return tubelets.mean(dim=2)  # [b, t, D]
        case "frame":
            return repeat(tubelets.mean(dim=2), "b t d -> b (t a) d", a=model.config.tubelet_size)  # [b, T, D]
        case "attention":
            assert encoded.attentions is not None
            received = encoded.attentions[-1].mean(dim=(1, 2))[:, first:]  # [b, H, Q, N] -> [b, N]
            weights = received / received.sum(dim=1, keepdim=True)
            return torch.einsum("bn,bnd->bd", weights, tokens)
        case "clip":
            pooled = model.features(states) if isinstance(model, VideoMAEForVideoClassification) else None
            return tokens.mean(dim=1) if pooled is None else pooled  # [b, D]


def time_spans(
    pooling: Pooling, starts: FloatArray, ends: FloatArray, *, tubelet_size: int, num_rows: int
) -> FloatArray:
    """Return when each row of each clip starts and ends, `[W, ..., 2]`, from the times of its frames, `[W, T]`.

    A row of several frames lasts from the start of the first to the end of the last.

    Args:
        pooling: Which vectors.
        starts: When each frame appears, in seconds.
        ends: When the next one replaces it.
        tubelet_size: Frames of a tubelet.
        num_rows: N, used for tokens.
    """
    tubelets = np.stack([starts[:, ::tubelet_size], ends[:, tubelet_size - 1 :: tubelet_size]], axis=-1)  # [W, t, 2]
    match pooling:
        case "token":
            return np.repeat(tubelets, num_rows // tubelets.shape[1], axis=1)  # [W, N, 2]
        case "tubelet":
            return tubelets
        case "frame":
            return np.stack([starts, ends], axis=-1)  # [W, T, 2]
        case "clip" | "attention":
            return np.stack([starts[:, 0], ends[:, -1]], axis=-1)  # [W, 2]
