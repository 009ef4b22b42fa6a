"""From pixels to tokens: the tubelet projection and the fixed position codes.

Shapes: `B` batch, `V` tubelets, `C` channels, `N` tokens, `D` width. Knows nothing of masks or configurations.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae.patches import TokenGrid
from videomae.positions import sinusoid_table


class TubeletProjection(nn.Module):
    """A matrix product over flattened tubelets whose weight is stored in the Conv3d shape of the checkpoints.

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
    """Fixed sinusoid codes over the flattened token number, one row a token.

    The native table is computed in float64 and stored in float32: bit-identical to the original. It is a
    non-persistent buffer: it follows `.to(device)` and is in no state dict. For another grid the native table is
    interpolated linearly in time, rows and columns, once per grid, so that a place in the video keeps its code.

    Args:
        grid: The native token grid.
        width: D, or E in the decoder.
    """

    table: Tensor

    def __init__(self, grid: TokenGrid, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("table", sinusoid_table(grid.num_tokens, width), persistent=False)

    def forward(self, grid: TokenGrid) -> Tensor:
        """Return the table of a grid, `[1, N, D]` in the dtype of the module."""
        if grid == self.grid:
            return self.table
        name = f"table_{grid.frames}x{grid.height}x{grid.width}"
        cached: Tensor | None = self._buffers.get(name)
        if cached is not None:
            return cached
        if torch.compiler.is_compiling():  # a traced graph may not gain buffers; it computes the table in place
            return interpolate_table(self.table, self.grid, grid)
        with torch.inference_mode(False):  # a table first asked for in evaluation serves training too
            table = interpolate_table(self.table, self.grid, grid)
        self.register_buffer(name, table, persistent=False)
        return table


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
