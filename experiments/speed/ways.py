"""Ways to compute fewer tokens of a clip: merged block by block, or left out before the first.

`B` batch, `t` times, `p` places, `N = t * p` tokens, `V` kept tokens, `D` width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from videomae.inference.flops import merging_flops
from videomae.inference.token_merging import MergingClassifier, merge, proportional_attention
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.layers import VideoMAELayer, first_of, normalized
from videomae.patches import TokenGrid, cut_tubelets, membership


class Way(NamedTuple):
    """One way."""

    tokens: Literal["merged", "merged at random", "changed", "random"]
    """merged: as the package does. merged at random: the same with random keys. changed: those are kept that differ
    most from the tubelet before at their place, and the first of every place: run-length tokenization (Choudhury et
    al. 2024, arXiv 2411.05222) with a number in place of a threshold. random: the first of every place, and any."""
    proportional: bool = True
    """Whether attention counts a token as often as the tokens that it stands for."""
    weighed: bool = True
    """Whether the mean over the tokens does."""


def logits_of(model: VideoMAEForVideoClassification, pixels: Tensor, way: Way, *, speed: float) -> Tensor:
    """Return `[B, K]` for clips `[B, T, C, H, W]`."""
    encoder, config = model.videomae, model.config
    grid = encoder.embeddings.grid_of(pixels)
    removed = 0
    if way.tokens in ("merged", "merged at random"):
        removed = MergingClassifier(model, speed).merged(grid)
        tokens, sizes = encoder.embeddings(pixels), torch.ones(len(pixels), grid.num_tokens)
    else:
        indices, sizes = kept_tokens(pixels, model, grid, num_kept=num_kept(config, grid, speed), way=way)
        tokens = encoder.embeddings(pixels, visible_indices=indices)
    for layer in encoder.encoder.layer:
        assert isinstance(layer, VideoMAELayer)
        attention = layer.attention.attention
        hidden = normalized(layer.layernorm_before, tokens)
        query, key, value = (attention._split_heads(one) for one in attention._project(hidden, hidden))
        counts = sizes if way.proportional else torch.ones_like(sizes)
        context = proportional_attention(query, key, value, counts).transpose(1, 2).flatten(2)
        tokens = tokens + layer.attention.output(context, hidden)
        keys = torch.rand_like(key[:, 0]) if way.tokens == "merged at random" else key.mean(dim=1)
        tokens, sizes = merge(tokens, sizes, keys, removed=removed)
        tokens = first_of(layer.output(layer.intermediate(normalized(layer.layernorm_after, tokens)), tokens))
    if encoder.layernorm is not None:
        tokens = normalized(encoder.layernorm, tokens)
    weights = sizes / sizes.mean(dim=1, keepdim=True) if way.weighed else torch.ones_like(sizes)
    return model.classify(model.features(tokens * weights[..., None].to(tokens.dtype)))


def num_kept(config: VideoMAEConfig, grid: TokenGrid, speed: float) -> int:
    """Return the most tokens that have at most 1 / speed of the operations of all."""
    allowed = merging_flops(config, tokens=grid.num_tokens, removed=0).forward / speed
    return max(V for V in range(grid.num_tokens) if merging_flops(config, tokens=V, removed=0).forward <= allowed)


def kept_tokens(
    pixels: Tensor, model: VideoMAEForVideoClassification, grid: TokenGrid, *, num_kept: int, way: Way
) -> tuple[Tensor, Tensor]:
    """Choose V tokens; returns them and for how many of their place each stands, `[B, V]` each."""
    p = grid.tokens_per_frame
    if way.tokens == "changed":
        cut = cut_tubelets(pixels, model.videomae.embeddings.tubelet).flatten(2).unflatten(1, (grid.frames, p))
        change = (cut[:, 1:] - cut[:, :-1]).abs().mean(dim=-1).flatten(1)  # [B, (t - 1) * p]
    else:
        change = torch.rand(len(pixels), grid.num_tokens - p)
    rest = change.argsort(dim=1, descending=True)[:, : num_kept - p] + p
    indices = torch.cat((torch.arange(p).expand(len(pixels), -1), rest), dim=1).sort(dim=1).values
    kept = membership(indices, grid.num_tokens).unflatten(1, (grid.frames, p))
    times = torch.arange(grid.frames)[:, None]
    starts = torch.where(kept, times, grid.frames)
    following = starts.flip(1).cummin(dim=1).values.flip(1)[:, 1:]  # when the next kept one begins
    ends = torch.cat((following, torch.full_like(starts[:, :1], grid.frames)), dim=1)
    return indices, (ends - times).flatten(1).gather(1, indices).float()
