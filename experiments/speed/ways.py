"""Ways to compute fewer tokens of a clip: which are left out or merged, and how those that are left count.

`B` batch, `t` times, `p` places, `N = t * p` tokens, `V` kept tokens, `D` width, `H` heads.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from videomae.inference.flops import embedding_flops
from videomae.inference.token_choice import KeptTokens, keep_changed, with_run_lengths
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.layers import VideoMAELayer
from videomae.patches import TokenGrid, TubeletSize, cut_tubelets, token_grid

Choice = Literal["before", "squares", "run", "random"]


class Way(NamedTuple):
    """One way."""

    choice: Choice = "before"
    """before: most changed since the tubelet before, by mean difference. squares: by mean square of it, which small
    things that move show in. run: the least sum of errors of the runs, drift included. random: any, but the first of
    every place."""
    proportional: bool = False
    """Whether attention, too, counts a token as often as its run is long."""
    merges: bool = False
    """Merge tokens after attention in every block instead of choosing any."""


def kept_tokens(pixels: Tensor, tubelet: TubeletSize, *, num_kept: int, choice: Choice) -> KeptTokens:
    """Choose V tokens of clips `[B, T, C, H, W]`."""
    if choice == "before":
        return keep_changed(pixels, tubelet, num_kept=num_kept)
    _, T, _, H, W = pixels.shape
    grid = token_grid(T, H, W, tubelet)
    if choice == "squares":
        cut = cut_tubelets(pixels, tubelet).flatten(2).unflatten(1, (grid.frames, -1))
        change = (cut[:, 1:] - cut[:, :-1]).square().mean(dim=-1).flatten(1)
        order = change.argsort(dim=1, descending=True, stable=True) + grid.tokens_per_frame
        first = torch.arange(grid.tokens_per_frame).expand(len(pixels), -1)
        return with_run_lengths(torch.cat((first, order[:, : num_kept - grid.tokens_per_frame]), dim=1), grid)
    if choice == "run":
        return _least_error(pixels, tubelet, grid, num_kept)
    places = grid.tokens_per_frame
    first = torch.arange(places).expand(len(pixels), -1)
    rest = torch.rand(len(pixels), grid.num_tokens - places).argsort(dim=1)[:, : num_kept - places] + places
    return with_run_lengths(torch.cat((first, rest), dim=1), grid)


def _least_error(pixels: Tensor, tubelet: TubeletSize, grid: TokenGrid, num_kept: int) -> KeptTokens:
    """Choose the tokens with the least sum of differences between each tubelet and the kept one that stands for it.

    For every place the best runs of each number are found by dynamic programming; the numbers follow from what one
    more token gains.
    """
    B, t, p = len(pixels), grid.frames, grid.tokens_per_frame
    cut = cut_tubelets(pixels, tubelet).flatten(2).unflatten(1, (t, p)).transpose(1, 2).flatten(0, 1)  # [B * p, t, P]
    apart = torch.cdist(cut, cut, p=1.0)  # [B * p, t, t]
    sums = F.pad(apart.triu().cumsum(dim=-1), (1, 0))  # [.., i, j]: of a run from i that ends before j
    alone = sums[:, 0].clone()  # of one run: [B * p, t + 1], over the times before which it ends
    alone[:, 0] = torch.inf  # no run is empty
    best = [alone]
    came = []
    for _ in range(t - 1):
        options = best[-1][:, :t, None] + sums  # [B * p, i, j]
        options = options.masked_fill(torch.ones(t, t + 1).tril().bool(), torch.inf)
        smallest = options.min(dim=1)
        best.append(smallest.values)
        came.append(smallest.indices)
    errors = torch.stack([one[:, t] for one in best], dim=1)  # [B * p, t]
    gains = (errors[:, :-1] - errors[:, 1:]).nan_to_num(0.0).cummin(dim=1).values  # [B * p, t - 1]
    gains = gains.unflatten(0, (B, p)).transpose(1, 2).flatten(1)  # [B, (t - 1) * p], fewer runs first
    order = gains.argsort(dim=1, descending=True, stable=True)[:, : num_kept - p]
    counts = torch.zeros_like(gains).scatter(1, order, 1.0).unflatten(1, (t - 1, p)).sum(dim=1).long()  # [B, p]
    counts = counts.flatten()  # runs of a place but the first
    kept = torch.zeros(B * p, t + 1, dtype=torch.bool)
    kept[:, 0] = True
    ends = torch.full((B * p,), t)
    for number in range(t - 1, 0, -1):
        active = counts >= number
        starts = came[number - 1].gather(1, ends[:, None])[:, 0]
        ends = torch.where(active, starts, ends)
        kept[torch.arange(B * p)[active], ends[active]] = True
    chosen = kept[:, :t].unflatten(0, (B, p)).transpose(1, 2).flatten(1)  # [B, N]
    assert (chosen.sum(dim=1) == num_kept).all()
    return with_run_lengths(chosen.long().argsort(dim=1, descending=True, stable=True)[:, :num_kept], grid)


def encode(
    model: VideoMAEModel, pixels: Tensor, way: Way, *, num_kept: int | None = None, removed: int = 0
) -> tuple[Tensor, Tensor]:
    """Encode clips `[B, T, C, H, W]`; returns tokens `[B, V, D]` and how often each counts, `[B, V]`.

    Args:
        model: The encoder.
        pixels: Normalized clips.
        way: Which tokens.
        num_kept: V; None: all.
        removed: Tokens that each block merges into others.
    """
    embeddings = model.embeddings
    grid = embeddings.grid_of(pixels)
    if num_kept is None or way.merges:
        tokens = embeddings(pixels)
        sizes = torch.ones(tokens.shape[:2])
    else:
        kept = kept_tokens(pixels, embeddings.tubelet, num_kept=num_kept, choice=way.choice)
        tokens, sizes = embeddings(pixels, visible_indices=kept.indices), kept.run_lengths.float()
    assert grid.num_tokens >= tokens.shape[1]
    for layer in model.encoder.layer:
        assert isinstance(layer, VideoMAELayer)
        if way.proportional or way.merges:
            tokens, keys = _attend(layer, tokens, sizes)
            if way.merges:
                tokens, sizes = merge(tokens, sizes, keys, removed=removed)
            tokens = layer.output(layer.intermediate(layer.layernorm_after(tokens)), tokens)
        else:
            tokens = layer(tokens)
    return tokens if model.layernorm is None else model.layernorm(tokens), sizes


def _attend(layer: VideoMAELayer, tokens: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens after attention in which each counts as often as its size says, and the mean key of its heads."""
    attention = layer.attention.attention
    hidden = layer.layernorm_before(tokens)
    query, key, value = (
        attention._split_heads(one(hidden)) for one in (attention.query, attention.key, attention.value)
    )
    weights = sizes.log()[:, None, None].to(query.dtype)  # [B, 1, 1, V]
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=weights)
    attended = layer.attention.output(context.transpose(1, 2).flatten(2), hidden)
    return tokens + attended, key.mean(dim=1)


def merge(tokens: Tensor, sizes: Tensor, keys: Tensor, *, removed: int) -> tuple[Tensor, Tensor]:
    """Merge tokens into those of most similar keys: every second token may be merged, into one of the others.

    Args:
        tokens: `[B, V, D]`.
        sizes: `[B, V]`, how many tokens each already is.
        keys: `[B, V, d]`, compared by cosine.
        removed: How many disappear, at most half.

    Source: token merging (Bolya et al. 2023, arXiv 2210.09461).
    """
    removed = min(removed, tokens.shape[1] // 2)
    if removed == 0:
        return tokens, sizes
    unit = F.normalize(keys, dim=-1)
    similarity = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)  # [B, a, b]
    value, partner = similarity.max(dim=-1)
    order = value.argsort(dim=-1, descending=True)
    gone, stay = order[:, :removed], order[:, removed:].sort(dim=1).values
    target = partner.gather(1, gone)  # [B, removed]
    weighed = torch.cat((tokens * sizes[..., None], sizes[..., None]), dim=-1)  # [B, V, D + 1]
    width = weighed.shape[-1]
    left, right = weighed[:, ::2], weighed[:, 1::2]
    right = right.scatter_add(
        1, target[..., None].expand(-1, -1, width), left.gather(1, gone[..., None].expand(-1, -1, width))
    )
    result = torch.cat((left.gather(1, stay[..., None].expand(-1, -1, width)), right), dim=1)
    return result[..., :-1] / result[..., -1:], result[..., -1]


def merging_flops(config: VideoMAEConfig, *, tokens: int, removed: int) -> int:
    """Return the operations of a forward pass in which every block merges so many tokens, matching left out."""
    D, total, count = config.hidden_size, embedding_flops(config, tokens=tokens), tokens
    for _ in range(config.num_hidden_layers):
        total += 2 * count * 4 * D * D + 4 * count * count * D
        count -= min(removed, count // 2)
        total += 2 * count * 2 * D * config.intermediate_size
    return total


def removed_for(config: VideoMAEConfig, *, tokens: int, speed: float) -> int:
    """Return the fewest tokens to merge in each block that leave at most 1 / speed of the operations."""
    allowed = merging_flops(config, tokens=tokens, removed=0) / speed
    return next(
        removed
        for removed in range(tokens)
        if merging_flops(config, tokens=tokens, removed=removed) <= allowed or removed == tokens - 1
    )
