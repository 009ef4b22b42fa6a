"""The fixed sinusoid position codes of VideoMAE, one row for each token."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CODES_AT_ONCE = 2**20  # float64 values in memory while position codes are computed


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
