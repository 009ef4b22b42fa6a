"""Fewer tokens of a clip: what has not changed since the tubelet before is left out, and the dial is a speed.

Video repeats itself. A tubelet that shows what its place showed before is represented by the token that is kept,
which counts in the mean over the tokens as many times as its run is long: run-length tokenization (Choudhury et al.
2024, arXiv 2411.05222). There a threshold decides, and clips of a batch keep different numbers; here as many are kept
of every clip as have 1 / speed of the operations, those that changed most: shapes are fixed, and a speed is what is
asked for. Nothing is trained, and positions are those of the tokens that are kept.

`B` batch, `T C H W` video, `t h w` token grid, `N` tokens, `V` kept tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from videomae.errors import ConfigError
from videomae.inference.configs import check_speed
from videomae.inference.flops import classification_flops
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid, tubelet_size
from videomae.patches import TokenGrid, TubeletSize, cut_tubelets, membership, token_grid


class KeptTokens(NamedTuple):
    """The tokens of a batch of clips that are computed."""

    indices: Tensor
    """int64 `[B, V]`, ascending, in raster order of the grid."""
    run_lengths: Tensor
    """int64 `[B, V]`, how many tokens of the grid each stands for, itself included; they add up to N."""


@dataclass(frozen=True)
class TokenChoice:
    """How many tokens of a clip are computed, and which.

    Args:
        config: Of the model.
        speed: At least 1: how many times fewer operations a forward pass has. At 1 nothing is left out.

    Raises:
        ConfigError: If the speed is below 1 or no number, or fewer tokens would be left than a clip has places.
    """

    config: VideoMAEConfig
    speed: float = 1.0

    def __post_init__(self) -> None:
        """Check the range."""
        check_speed(self.speed)
        self.num_kept(native_grid(self.config))

    def options(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Return the arguments with which a classifier computes the chosen tokens of clips `[B, T, C, H, W]` alone.

        Empty where all are computed, so that the call is the same as without a choice.
        """
        if self.speed == 1.0:
            return {}
        count = self.num_kept(self.grid_of(pixel_values))
        kept = keep_changed(pixel_values, tubelet_size(self.config), num_kept=count)
        return {"visible_indices": kept.indices, "run_lengths": kept.run_lengths}

    def grid_of(self, pixel_values: Tensor) -> TokenGrid:
        """Return the token grid of clips `[B, T, C, H, W]`."""
        _, T, _, H, W = pixel_values.shape
        return token_grid(T, H, W, tubelet_size(self.config))

    def num_kept(self, grid: TokenGrid) -> int:
        """Return V, the most tokens with which a forward pass has at most 1 / speed of the operations of all.

        Raises:
            ConfigError: If these are fewer than the places of the grid.
        """
        N, least = grid.num_tokens, grid.tokens_per_frame
        if self.speed == 1.0:
            return N
        allowed = self._flops(N) / self.speed
        low, high = 0, N  # low is allowed, high + 1 is not
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._flops(middle) <= allowed else (low, middle - 1)
        if low < least:
            most = math.floor(100 * self._flops(N) / self._flops(least)) / 100
            raise ConfigError(
                f"speed is {self.speed:g}, which leaves {low} tokens of a clip for its {least} places, and each "
                f"needs one: use at most {most:g} with this model"
            )
        return low

    def fewer_operations(self, grid: TokenGrid) -> float:
        """Return the operations of a forward pass with all tokens over those with the kept ones."""
        return self._flops(grid.num_tokens) / self._flops(self.num_kept(grid))

    def line(self) -> str:
        """Return for people what is left out of a clip of the configured size."""
        grid = native_grid(self.config)
        return (
            f"speed {self.speed:g}: {self.num_kept(grid)} of {grid.num_tokens} tokens of a clip, "
            f"{self.fewer_operations(grid):.2f} times fewer operations"
        )

    def _flops(self, tokens: int) -> int:
        return classification_flops(self.config, tokens=tokens).forward


def keep_changed(pixel_values: Tensor, tubelet: TubeletSize, *, num_kept: int) -> KeptTokens:
    """Keep the tubelets that differ most from the one before at their place, and the first of every place.

    Args:
        pixel_values: `[B, T, C, H, W]`, any scale.
        tubelet: Size of one tubelet.
        num_kept: V, from the number of places to the number of tokens.
    """
    _, T, _, H, W = pixel_values.shape
    grid = token_grid(T, H, W, tubelet)
    cut = cut_tubelets(pixel_values, tubelet).flatten(2).unflatten(1, (grid.frames, -1))  # [B, t, h * w, P]
    change = (cut[:, 1:] - cut[:, :-1]).abs().mean(dim=-1, dtype=torch.float32)  # [B, t - 1, h * w]
    order = change.flatten(1).argsort(dim=1, descending=True, stable=True) + grid.tokens_per_frame
    first = torch.arange(grid.tokens_per_frame, device=order.device).expand(len(order), -1)
    chosen = torch.cat((first, order[:, : num_kept - grid.tokens_per_frame]), dim=1)
    return with_run_lengths(chosen, grid)


def with_run_lengths(indices: Tensor, grid: TokenGrid) -> KeptTokens:
    """Return tokens `[B, V]`, the first of every place among them, in raster order and with their runs."""
    kept = membership(indices, grid.num_tokens).unflatten(1, (grid.frames, -1))  # [B, t, h * w]
    times = torch.arange(grid.frames, device=indices.device)[:, None]
    starts = torch.where(kept, times, grid.frames)
    following = starts.flip(1).cummin(dim=1).values.flip(1)[:, 1:]  # when the next kept one begins
    ends = torch.cat((following, torch.full_like(starts[:, :1], grid.frames)), dim=1)
    ascending = indices.sort(dim=1).values
    return KeptTokens(ascending, (ends - times).flatten(1).gather(1, ascending))
