"""Fewer and fewer tokens: every block merges those that are most alike, and the dial is a speed.

Between attention and MLP of each block, every second token looks for the most similar of the others; the pairs most
alike become one token each, their mean. A merged token counts in attention and in the mean over the tokens as often
as tokens are in it. Nothing need be trained for it, and training may do the same. All clips merge equally many, so
that shapes are fixed; how many follows from how many times fewer operations are asked for.

`B` batch, `T C H W` video, `N` tokens, `D` width, `H` heads, `d` width of a head, `r` tokens that a block merges.

Source: token merging (Bolya et al. 2023, arXiv 2210.09461).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from videomae.errors import ConfigError
from videomae.inference.configs import check_speed
from videomae.inference.flops import merging_flops, tokens_left
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.cpu_attention import blocked_attention, blocked_is_faster
from videomae.model.embeddings import native_grid
from videomae.model.layers import VideoMAELayer, first_of, normalized
from videomae.model.outputs import ImageClassifierOutput
from videomae.patches import TokenGrid

EXTRA = 8  # values that queries and keys get for the sizes, one of which is used: kernels like whole eights


class MergingClassifier:
    """Calls a classifier with tokens merged; to be called as the classifier is, for logits alone.

    In train mode its dropout, stochastic depth and activation checkpointing do what they do without merging; which
    tokens are merged has no gradient, what becomes of them has.

    Args:
        model: It is not changed.
        speed: At least 1: how many times fewer operations a forward pass has.

    Raises:
        ConfigError: If the speed is below 1 or no number, the model has too few tokens for it, or a block of it has
            been replaced.
    """

    def __init__(self, model: VideoMAEForVideoClassification, speed: float) -> None:
        check_speed(speed)
        self.model = model
        self.speed = speed
        self.config = model.config
        self.layers = [layer for layer in model.videomae.encoder.layer if isinstance(layer, VideoMAELayer)]
        for number, layer in enumerate(model.videomae.encoder.layer):
            if not isinstance(layer, VideoMAELayer):
                raise ConfigError(
                    f"speed is {speed:g}, and block {number} of the model is a {type(layer).__name__}: tokens are "
                    "merged inside the blocks of this package; use speed 1, or put the model's own block back"
                )
        self.merged(native_grid(model.config))

    def __call__(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """Classify `[B, T, C, H, W]`; returns logits `[B, K]`.

        Raises:
            ValueError: If the video does not fit the tubelets.
        """
        encoder = self.model.videomae
        removed = self.merged(encoder.embeddings.grid_of(pixel_values))
        tokens: Tensor = encoder.embeddings(pixel_values)
        sizes: Tensor | None = None
        first = self.model.uses_first_token
        again = encoder.encoder.checkpoint_every if self.model.training and torch.is_grad_enabled() else 0
        for number, layer in enumerate(self.layers):
            block = functools.partial(merging_layer, layer, removed=removed, keeps_first=first)
            if again and number % again == 0:
                tokens, sizes = checkpoint(block, tokens, sizes, use_reentrant=False)
            else:
                tokens, sizes = block(tokens, sizes)
        if encoder.layernorm is not None:
            tokens = normalized(encoder.layernorm, tokens)
        assert sizes is not None  # there is a block
        if not first:
            tokens = tokens * (sizes / sizes.mean(dim=1, keepdim=True))[..., None].to(tokens.dtype)
        return ImageClassifierOutput(logits=self.model.classify(self.model.features(tokens)))

    def merged(self, grid: TokenGrid) -> int:
        """Return r, the fewest tokens to merge in each block with which at most 1 / speed of the operations are left.

        Raises:
            ConfigError: If no number is enough.
        """
        N = grid.num_tokens
        allowed = merging_flops(self.config, tokens=N, removed=0).forward / self.speed
        low, high = 0, N // 2  # high is the most that a block can merge
        least = merging_flops(self.config, tokens=N, removed=high).forward
        if least > allowed:
            most = math.floor(100 * allowed * self.speed / least) / 100
            raise ConfigError(
                f"speed is {self.speed:g}, and merging all that can be merged of the {N} tokens of a clip saves "
                f"less: use at most {most:g} with this model"
            )
        while low < high:
            middle = (low + high) // 2
            enough = merging_flops(self.config, tokens=N, removed=middle).forward <= allowed
            low, high = (low, middle) if enough else (middle + 1, high)
        return low

    def fewer_operations(self, grid: TokenGrid) -> float:
        """Return the operations of a forward pass on all tokens over those of one with tokens merged."""
        N = grid.num_tokens
        whole, fewer = (merging_flops(self.config, tokens=N, removed=one).forward for one in (0, self.merged(grid)))
        return whole / fewer

    def line(self, grid: TokenGrid | None = None) -> str:
        """Return for people what is merged in a clip of a size; None: of the configured one."""
        grid = native_grid(self.config) if grid is None else grid
        left = tokens_left(grid.num_tokens, removed=self.merged(grid), depth=self.config.num_hidden_layers)
        merged = f"{self.merged(grid)} of {grid.num_tokens} tokens merged in every block, {left} left"
        return f"speed {self.speed:g}: {merged}, {self.fewer_operations(grid):.2f} times fewer operations"


def merging_layer(
    layer: VideoMAELayer, tokens: Tensor, sizes: Tensor | None, *, removed: int, keeps_first: bool = False
) -> tuple[Tensor, Tensor]:
    """Run a block that merges tokens after attention.

    Args:
        layer: The block.
        tokens: `[B, N, D]`.
        sizes: `[B, N]` float32, how many tokens each is; None: one.
        removed: r, at most N / 2.
        keeps_first: Nothing is merged into the first token.

    Returns:
        Tokens `[B, N - r, D]` and their sizes.
    """
    attention = layer.attention.attention
    hidden = normalized(layer.layernorm_before, tokens)
    query, key, value = (attention._split_heads(one) for one in attention._project(hidden, hidden))
    dropout = attention.dropout_prob if layer.training else 0.0
    context = (
        proportional_attention(query, key, value, sizes, dropout=dropout).transpose(1, 2).flatten(2)
    )  # [B, N, D]
    tokens = tokens + layer._branch(layer.attention.output(context, hidden), layer.gamma_1)
    if sizes is None:
        sizes = tokens.new_ones(tokens.shape[:2], dtype=torch.float32)
    tokens, sizes = merge(tokens, sizes, key.detach().mean(dim=1), removed=removed, keeps_first=keeps_first)
    expanded = layer.intermediate(normalized(layer.layernorm_after, tokens))
    return first_of(layer.output(expanded, tokens, branch=lambda one: layer._branch(one, layer.gamma_2))), sizes


def proportional_attention(
    query: Tensor, key: Tensor, value: Tensor, sizes: Tensor | None, *, dropout: float = 0.0
) -> Tensor:
    """Return `softmax(q k^T / sqrt(d) + log sizes) v`.

    The logarithm is one more value of every key, which one of every query multiplies: kernels that take a mask are
    slower than those that take none.

    Args:
        query: `[B, H, Q, d]`.
        key: `[B, H, N, d]`.
        value: `[B, H, N, d]`.
        sizes: `[B, N]`; None: all are 1.
        dropout: Of the probabilities.

    Returns:
        `[B, H, Q, d]`.
    """
    attend: Callable[[Tensor, Tensor, Tensor], Tensor] = blocked_attention
    if dropout > 0.0 or not blocked_is_faster(query):
        attend = functools.partial(F.scaled_dot_product_attention, dropout_p=dropout)
    if sizes is None:
        return attend(query, key, value)
    d = query.shape[-1]
    scale = ((d + EXTRA) / d) ** 0.5  # of what the kernel divides by beyond sqrt(d)
    query = F.pad(query * scale, (0, EXTRA))
    query[..., d] = (d + EXTRA) ** 0.5
    key = F.pad(key, (0, EXTRA))
    key[..., d] = sizes.log()[:, None].to(key.dtype)
    value = F.pad(value, (0, EXTRA))
    return attend(query, key, value)[..., :d]


def merge(
    tokens: Tensor, sizes: Tensor, keys: Tensor, *, removed: int, keeps_first: bool = False
) -> tuple[Tensor, Tensor]:
    """Merge the tokens of odd places into those of even places with the most similar keys, the most similar pairs.

    Args:
        tokens: `[B, N, D]`.
        sizes: `[B, N]`, how many tokens each already is.
        keys: `[B, N, d]`, compared by their cosine.
        removed: r, at most N / 2.
        keeps_first: Nothing is merged into the first token.

    Returns:
        `[B, N - r, D]`, those of even places first, and their sizes `[B, N - r]`, by which means are weighed.
    """
    removed = min(removed, tokens.shape[1] // 2)
    if removed == 0:
        return tokens, sizes
    keys = F.normalize(keys, dim=-1)
    similarity = keys[:, 1::2] @ keys[:, ::2].transpose(1, 2)  # [B, odd, even]
    if keeps_first:
        similarity[:, :, 0] = -torch.inf
    best = similarity.max(dim=-1)
    order = best.values.argsort(dim=-1, descending=True, stable=True)
    gone, stay = order[:, :removed], order[:, removed:]
    target = best.indices.gather(1, gone)  # [B, r]
    odd, odd_sizes = tokens[:, 1::2], sizes[:, 1::2]
    batch = torch.arange(len(tokens), device=tokens.device)[:, None]  # whole rows are copied faster than gathered
    weights = odd_sizes[batch, gone]
    sums = (tokens[:, ::2] * sizes[:, ::2, None].to(tokens.dtype)).scatter_add(
        1, target[..., None].expand(-1, -1, tokens.shape[-1]), odd[batch, gone] * weights[..., None].to(tokens.dtype)
    )
    even_sizes = sizes[:, ::2].scatter_add(1, target, weights)
    merged = sums / even_sizes[..., None].to(tokens.dtype)
    return torch.cat((merged, odd[batch, stay]), dim=1), torch.cat((even_sizes, odd_sizes[batch, stay]), dim=1)
