"""From pixels to tokens: the tubelet projection and the fixed position table.

Shapes: `B` batch, `T C H W` video, `V` visible tubelets, `N` tokens, `t h w` token grid, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae.model.config import VideoMAEConfig
from videomae.model.layers import is_untouched
from videomae.patches import (
    TokenGrid,
    TubeletSize,
    cut_tubelets,
    gather_tokens,
    gather_tubelets,
    split_by_mask,
    token_grid,
)
from videomae.positions import PositionTables


class VideoMAEPatchEmbeddings(nn.Module):
    """Projects every tubelet of a video to a token."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.image_size = config.image_height_width
        self.patch_size = config.patch_height_width
        self.tubelet_size = config.tubelet_size
        self.tubelet = tubelet_size(config)
        self.num_channels = config.num_channels
        self.num_patches = native_grid(config).num_tokens
        kernel = (config.tubelet_size, *config.patch_height_width)
        self.projection = nn.Conv3d(config.num_channels, config.hidden_size, kernel_size=kernel, stride=kernel)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed all tubelets of `[B, T, C, H, W]` as `[B, N, D]`, in raster order.

        Raises:
            ValueError: If tubelets do not divide the video, or it has other channels.
        """
        self.grid_of(pixel_values)
        if is_untouched(self.projection, nn.Conv3d):
            return self.embed(cut_tubelets(pixel_values, self.tubelet))
        projected: Tensor = self.projection(pixel_values.transpose(1, 2))  # [B, C, T, H, W] -> [B, D, t, h, w]
        return projected.flatten(2).transpose(1, 2)  # [B, N, D]

    def embed(self, tubelets: Tensor) -> Tensor:
        """Embed `[B, V, C, frames, height, width]` as `[B, V, D]`, faster than as a convolution."""
        weight = self.projection.weight
        return F.linear(tubelets.to(weight.dtype).flatten(2), weight.flatten(1), self.projection.bias)

    def grid_of(self, pixel_values: Tensor) -> TokenGrid:
        """Return the token grid of a video batch.

        Raises:
            ValueError: If it is not `[B, T, C, H, W]` with the configured channels, or tubelets do not divide it.
        """
        if pixel_values.dim() != 5:
            raise ValueError(f"pixel_values has shape {list(pixel_values.shape)}; it must be [B, T, C, H, W]")
        _, T, C, H, W = pixel_values.shape
        if self.num_channels != C:
            raise ValueError(
                f"pixel_values has {C} channels in [B, T, C, H, W], but the configuration has num_channels "
                f"{self.num_channels}: pass frames with {self.num_channels} channels"
            )
        return token_grid(T, H, W, self.tubelet)


class VideoMAEEmbeddings(nn.Module):
    """Tubelets to tokens with their positions.

    `position_embeddings` is the table `[1, N, D]` of the native grid; what is put in its place is used.
    """

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.patch_embeddings = VideoMAEPatchEmbeddings(config)
        self.num_patches = self.patch_embeddings.num_patches
        self.tubelet = self.patch_embeddings.tubelet
        self.position_tables = PositionTables(config.hidden_size, native_grid(config), trained_grid(config))
        self.position_embeddings = self.position_tables.native
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if config.use_cls_token else None

    def forward(
        self, pixel_values: Tensor, bool_masked_pos: Tensor | None = None, *, visible_indices: Tensor | None = None
    ) -> Tensor:
        """Embed the visible tubelets of a video, or all of them.

        Args:
            pixel_values: `[B, T, C, H, W]`.
            bool_masked_pos: `[B, N]` bool, True = hidden.
            visible_indices: `[B, V]` int64, indices of the visible tokens, instead of a mask.

        Returns:
            `[B, V, D]`, one more in front with a CLS token.

        Raises:
            ValueError: If the video does not fit the tubelets, or no token is visible.
        """
        patches = self.patch_embeddings
        if bool_masked_pos is not None:
            visible_indices, _ = self.split_mask(bool_masked_pos, pixel_values, given=visible_indices)
        tokens: Tensor
        positions = self.positions(self.grid_of(pixel_values), pixel_values.device)
        if visible_indices is None:
            tokens = patches(pixel_values)
        else:
            if visible_indices.shape[1] == 0:
                raise ValueError("every token is hidden from the encoder: leave at least one visible")
            positions = gather_tokens(positions, visible_indices)  # [B, V, D]
            if is_untouched(patches, VideoMAEPatchEmbeddings) and type(patches.projection) is nn.Conv3d:
                tokens = patches.embed(gather_tubelets(pixel_values, visible_indices, patches.tubelet))
            else:
                tokens = gather_tokens(patches(pixel_values), visible_indices)
        # The residual stream has the dtype of the projection (bf16 under autocast), as in the original.
        tokens = tokens + positions.to(tokens.dtype)
        if self.cls_token is not None:
            first = self.cls_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat((first, tokens), dim=1)
        return tokens

    def grid_of(self, pixel_values: Tensor) -> TokenGrid:
        """Return the token grid of a video batch; errors as in `VideoMAEPatchEmbeddings.grid_of`."""
        return self.patch_embeddings.grid_of(pixel_values)

    def positions(self, grid: TokenGrid, device: torch.device | None = None) -> Tensor:
        """Return the position codes of a token grid, `[1, N, D]`, on a device; None: that of the table."""
        return self.position_tables.table(self.position_embeddings, grid, device)

    def split_mask(self, mask: Tensor, pixel_values: Tensor, *, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Turn a mask `[B, N]` into the indices of its False and of its True tokens.

        Raises:
            ValueError: If the mask does not fit the video, its rows have unequal counts, or indices came with it.
        """
        if given is not None:
            raise ValueError("a mask and indices were both given: pass one of them")
        expected = (pixel_values.shape[0], self.grid_of(pixel_values).num_tokens)
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise ValueError(
                f"the mask has shape {list(mask.shape)} and dtype {mask.dtype}; this video needs "
                f"{list(expected)} and torch.bool"
            )
        return split_by_mask(mask.to(pixel_values.device))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.position_embeddings = self.position_tables.follow(self.position_embeddings, self.patch_embeddings)
        return self


def native_grid(config: VideoMAEConfig) -> TokenGrid:
    """Return the token grid of a clip of the configured size."""
    return token_grid(config.num_frames, *config.image_height_width, tubelet_size(config))


def trained_grid(config: VideoMAEConfig) -> TokenGrid:
    """Return the token grid whose position codes are computed; those of others are interpolated from them."""
    return native_grid(config) if config.position_grid is None else TokenGrid(*config.position_grid)


def tubelet_size(config: VideoMAEConfig) -> TubeletSize:
    """Return the size of a tubelet."""
    return TubeletSize(config.tubelet_size, *config.patch_height_width)
