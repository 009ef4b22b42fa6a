"""What a pre-trained model is to predict, and how wrong it was: normalized pixels of tubelets, and their mean error.

`B` videos, `M` decoded tokens, `P` values of a tubelet, `C` channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from videomae.patches import TubeletSize, gather_tubelets, normalize_tubelets
from videomae.presets import IMAGENET_MEAN, IMAGENET_STD


@torch.no_grad()
def pixel_targets(pixel_values: Tensor, decoded_indices: Tensor, size: TubeletSize, *, normalized: bool) -> Tensor:
    """Return what the decoded tokens should predict.

    Only the decoded tubelets are read. With three channels the ImageNet normalization is undone first.

    Args:
        pixel_values: `[B, T, C, H, W]`.
        decoded_indices: `[B, M]` int64.
        size: Size of a tubelet.
        normalized: Whether each tubelet and channel is normalized.

    Returns:
        `[B, M, P]` float32, channel fastest.
    """
    # The indexing inside copies: `tubelets` is written in place from here on, for every pass costs.
    tubelets = gather_tubelets(pixel_values, decoded_indices, size).float().flatten(3)  # [B, M, C, s]
    # Numbers, not buffers: exact in a bfloat16 model, there after a start on the meta device, no copy a step.
    C = tubelets.shape[2]
    is_rgb = len(IMAGENET_MEAN) == C
    if normalized:
        normalize_tubelets(tubelets, IMAGENET_STD if is_rgb else (1.0,) * C)
    elif is_rgb:
        for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
            tubelets[:, :, channel].mul_(std).add_(mean)
    return tubelets.transpose(2, 3).flatten(2)  # [B, M, P]


def reconstruction_loss(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, count: Tensor | float | None = None
) -> Tensor:
    """Return the mean squared error, 0-d float32.

    Args:
        logits: `[B, M, P]`.
        targets: `[B, M, P]` float32.
        weights: `[B, M]` bool or float; tokens with 0 do not count. None: all count.
        count: Number of tokens to divide by, where these are a part of them; None: of those that count here.

    Source: VideoMAE, equation 1; VideoMAE V2, which divides by the number of tokens that count.
    """
    if weights is None:
        mean = F.mse_loss(logits.float(), targets)
        return mean if count is None else mean * (targets.shape[:2].numel() / count)
    per_token = F.mse_loss(logits.float(), targets, reduction="none").mean(dim=-1)  # [B, M]
    counted = weights.to(per_token.dtype)
    return (per_token * counted).sum() / (counted.sum() if count is None else count)


def pixel_loss(
    logits: Tensor,
    pixel_values: Tensor,
    decoded_indices: Tensor,
    weights: Tensor | None,
    size: TubeletSize,
    *,
    normalized: bool,
    count: Tensor | float | None = None,
) -> Tensor:
    """Return the reconstruction loss of predictions `[B, M, P]`; one function, so that it can be compiled as one."""
    targets = pixel_targets(pixel_values, decoded_indices, size, normalized=normalized)
    return reconstruction_loss(logits, targets, weights, count)
