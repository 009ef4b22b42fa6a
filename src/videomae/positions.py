"""The fixed sinusoid position codes of VideoMAE, one row for each token, and their interpolation.

`N` tokens, `D` width.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae.patches import TokenGrid

CODES_AT_ONCE = 2**20  # float64 values in memory while position codes are computed
MAX_TABLES = 8  # interpolated position tables that a module keeps, the last used ones


def sinusoid_table(num_tokens: int, width: int) -> Tensor:
    """Return the sinusoid codes `[1, N, D]` float32.

    `angle(n, j) = n / 10000 ** (2 * (j // 2) / D)`, sine for even j and cosine for odd j, over the token index n
    in raster order (a one-dimensional code, not a separable three-dimensional one).

    Source: VideoMAE (Tong et al. 2022), released code; Vaswani et al. 2017, section 3.5.
    """
    # Numpy, not torch: the original rounds numpy's float64 sines, and the last bit of the two libraries differs.
    column = np.arange(width)
    periods = np.power(10000.0, 2 * (column // 2) / width)
    codes = np.empty((num_tokens, width), np.float32)
    rows = max(1, CODES_AT_ONCE // width)  # in parts: angles, sines and cosines are float64
    for start in range(0, num_tokens, rows):
        angles = np.arange(start, min(start + rows, num_tokens), dtype=np.float64)[:, None] / periods
        codes[start : start + rows] = np.where(column % 2 == 0, np.sin(angles), np.cos(angles))
    table = torch.from_numpy(codes).unsqueeze(0)
    device = torch.get_default_device()
    # Real values even where the model is made on the meta device: nothing on disk restores them.
    return table if device.type == "meta" else table.to(device)


def interpolate_table(table: Tensor, source: TokenGrid, grid: TokenGrid) -> Tensor:
    """Interpolate position codes `[1, N, D]` of one grid to another, `[1, N', D]`."""
    width = table.shape[-1]
    volume = table.view(1, source.frames, source.height, source.width, width).permute(
        0, 4, 1, 2, 3
    )  # [1, D, t, h, w]
    size = (grid.frames, grid.height, grid.width)
    resized = F.interpolate(volume.float(), size=size, mode="trilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2).to(table.dtype)  # [1, D, N'] -> [1, N', D]


def _version_of(table: Tensor) -> int:
    """Return how often a tensor was written to; torch does not count it for those of inference mode."""
    return 0 if table.is_inference() else table._version


class PositionTables:
    """The position tables of a module: of its native grid, and of others, interpolated once each.

    The native table is also an attribute of the module, as upstream, and no buffer: no state dict holds it, so
    nothing may empty or round it (`to_empty`, `half`). What is put in the place of that attribute is used instead.

    Args:
        width: D.
        grid: The native token grid.
        trained: The grid whose codes are computed; the tables of all other grids are interpolated from it.
    """

    def __init__(self, width: int, grid: TokenGrid, trained: TokenGrid) -> None:
        self.grid, self.trained = grid, trained
        with torch.inference_mode(False):  # a model that was built for evaluation may be trained
            self.codes = sinusoid_table(trained.num_tokens, width)
            self.native = self.codes if trained == grid else interpolate_table(self.codes, trained, grid)
        self._version = _version_of(self.native)
        self._source: tuple[Tensor, int] | None = None
        self._tables: OrderedDict[tuple[TokenGrid, torch.device], Tensor] = OrderedDict()

    def table(self, native: Tensor, grid: TokenGrid, device: torch.device | None = None) -> Tensor:
        """Return the table of a grid.

        Args:
            native: `[1, N, D]`, of the native grid: what the module's attribute holds.
            grid: The token grid of a video.
            device: Where it is needed; None: where `native` is.

        Returns:
            `[1, N', D]`.
        """
        device = native.device if device is None else device
        if grid == self.grid and native.device == device:
            return native
        if torch.compiler.is_compiling() or native.requires_grad:  # a traced graph keeps no state
            return self._compute(native, grid, device)
        if self._source is None or self._source[0] is not native or self._source[1] != _version_of(native):
            self._source = native, _version_of(native)
            self._tables.clear()
        found = self._tables.pop((grid, device), None)
        if found is None:
            with torch.inference_mode(False):  # a table first asked for in evaluation serves training too
                found = self._compute(native, grid, device)
        self._tables[grid, device] = found
        if len(self._tables) > MAX_TABLES:
            self._tables.popitem(last=False)
        return found

    def _compute(self, native: Tensor, grid: TokenGrid, device: torch.device) -> Tensor:
        # Twice interpolated codes are blurred: where the native ones are ours, others come from the trained grid's.
        ours = native is self.native and (torch.compiler.is_compiling() or _version_of(native) == self._version)
        codes, source = (self.codes, self.trained) if ours and grid != self.grid else (native, self.grid)
        table = codes if grid == source else interpolate_table(codes, source, grid)
        return table.to(device)

    def follow(self, table: Tensor, module: nn.Module) -> Tensor:
        """Return what the attribute holds on the device of a module's parameters; dtype and values stay."""
        device = next(module.parameters()).device
        if isinstance(table, nn.Parameter) or device.type == "meta":
            return table
        with torch.inference_mode(False):
            moved = table.to(device)
        if table is self.native and _version_of(table) == self._version:
            self.codes = moved if self.codes is self.native else self.codes.to(device)
            self.native, self._version = moved, _version_of(moved)
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_source": None, "_tables": OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._version = _version_of(self.native)
