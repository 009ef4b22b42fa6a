"""From pixels to tokens: the tubelet projection and the fixed position codes.

Shapes: `B` batch, `V` tubelets, `C` channels, `N` tokens, `D` width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae.patches import TokenGrid
from videomae.positions import sinusoid_table

MAX_GRIDS = 4  # other than the native one, whose tables are kept: 5 MB each for the base model and 16 frames


class TubeletProjection(nn.Module):
    """A matrix multiplication over flattened tubelets whose weight is stored in the Conv3d shape of the checkpoints.

    Args:
        num_channels: C.
        hidden_size: D.
        kernel: Frames, height and width of a tubelet.
    """

    def __init__(self, num_channels: int, hidden_size: int, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden_size, num_channels, *kernel))
        self.bias = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as torch's Conv3d does; the original leaves that layer at its default."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, tubelets: Tensor) -> Tensor:
        """Embed `[B, V, C, frames, height, width]` as `[B, V, D]`."""
        return F.linear(tubelets.flatten(2), self.weight.flatten(1), self.bias)


class PatchEmbeddings(nn.Module):
    """Holds the projection under the name that transformers gives it."""

    def __init__(self, num_channels: int, hidden_size: int, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        self.projection = TubeletProjection(num_channels, hidden_size, kernel)

    def forward(self, tubelets: Tensor) -> Tensor:
        """Embed `[B, V, C, frames, height, width]` as `[B, V, D]`."""
        projected: Tensor = self.projection(tubelets)
        return projected


class PositionTable(nn.Module):
    """Fixed sinusoid codes over the flattened token index, one row for each token.

    The native table is computed in float64 and stored in float32: bit-identical to the original. It is a
    non-persistent buffer: it follows `.to(device)` and is in no state dict. Whatever moves, casts or empties the
    module's tensors (`to_empty` after a start on the meta device) computes it again, so that it never holds anything
    else. For another grid the native table is interpolated linearly in time, rows and columns, so that a position
    in the video keeps its code; the tables of the last few grids are kept.

    Args:
        grid: The native token grid.
        width: D, or E in the decoder.
    """

    table: Tensor

    def __init__(self, grid: TokenGrid, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.width = width
        self.register_buffer("table", sinusoid_table(grid.num_tokens, width), persistent=False)
        self._interpolated: dict[TokenGrid, Tensor] = {}

    def reset_parameters(self) -> None:
        """Compute the native table again, on the device and in the dtype of the one there is."""
        self._interpolated = {}
        if not self.table.is_meta:
            table = sinusoid_table(self.grid.num_tokens, self.width)
            self.table = table.to(device=self.table.device, dtype=self.table.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What torch calls for to(), half(), to_empty() and the like. No file holds the table, and after to_empty() it
        # is whatever was in that memory, which load_state_dict would not notice.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.reset_parameters()
        return self

    def forward(self, grid: TokenGrid) -> Tensor:
        """Return the table of a grid, `[1, N, D]` in the dtype of the module."""
        if grid == self.grid:
            return self.table
        if torch.compiler.is_compiling():  # a traced graph computes the table in place
            return interpolate_table(self.table, self.grid, grid)
        if grid not in self._interpolated:
            while len(self._interpolated) >= MAX_GRIDS:
                del self._interpolated[next(iter(self._interpolated))]  # the oldest
            with torch.inference_mode(False):  # a table first asked for in evaluation serves training too
                self._interpolated[grid] = interpolate_table(self.table, self.grid, grid)
        return self._interpolated[grid]


def interpolate_table(table: Tensor, native: TokenGrid, grid: TokenGrid) -> Tensor:
    """Interpolate position codes `[1, N, D]` of the native grid to another grid, `[1, N', D]`."""
    width = table.shape[-1]
    volume = table.view(1, native.frames, native.height, native.width, width).permute(
        0, 4, 1, 2, 3
    )  # [1, D, t, h, w]
    resized = F.interpolate(
        volume.float(), size=(grid.frames, grid.height, grid.width), mode="trilinear", align_corners=False
    )
    return resized.flatten(2).transpose(1, 2).to(table.dtype)  # [1, D, N'] -> [1, N', D]
