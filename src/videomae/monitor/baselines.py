"""Predictions of hidden tubelets that need no learning, and their losses in a model's own targets.

`zero`: every value is 0, with normalized targets the tubelet's mean. `visible_mean`: the mean target of the visible
tubelets, for each channel. `copy_nearest`: the target of the nearest visible tubelet. `interpolate`: a Gaussian
average of the visible pixels of the same frame, at the best of several widths and times the best factor on its
difference from `zero` or `visible_mean`, since what is only guessed is better guessed small.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from videomae.model.embeddings import native_grid
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import (
    TokenGrid,
    TubeletSize,
    membership,
    patchify,
    token_places,
    unpatchify,
)

SIGMAS = (1.5, 2.5, 4.0, 6.0, 9.0)  # pixels, of the Gaussian interpolation; the best one counts


def nearest_visible(visible: Tensor, grid: TokenGrid) -> Tensor:
    """Return for every token the nearest one of `visible` `[B, V]`: token indices `[B, N]` int64."""
    return visible.gather(1, _nearest_column(visible, grid))


def gaussian_interpolation(
    truth: Tensor, hidden: Tensor, grid: TokenGrid, tubelet: TubeletSize, *, sigma: float
) -> Tensor:
    """Fill hidden pixels with a Gaussian average of the visible ones of the same frame.

    Args:
        truth: `[B, N, P]` patches of any number of channels.
        hidden: `[B, N]` bool.
        grid: Token grid.
        tubelet: Size of one.
        sigma: Standard deviation in pixels.

    Returns:
        `[B, N, P]`, all pixels averaged, visible ones too. Where no visible pixel of the frame is near: 0.
    """
    mask = (~hidden).float()[..., None].expand_as(truth)
    video = unpatchify(truth * mask, grid, tubelet).flatten(0, 1)
    weight = unpatchify(mask.contiguous(), grid, tubelet).flatten(0, 1)
    # Products with matrices of weights, which on small images are many times faster than convolutions.
    rows, columns = (_gaussian_weights(size, sigma, truth.device) for size in video.shape[-2:])
    filled = (rows @ video @ columns) / (rows @ weight @ columns).clamp_min(1e-8)
    return patchify(filled.unflatten(0, (len(truth), -1)), tubelet)


@torch.no_grad()
def baseline_losses(
    model: VideoMAEForPreTraining, batches: Iterable[tuple[Tensor, Tensor, Tensor]]
) -> dict[str, float]:
    """Return the mean squared error of each baseline over the hidden tubelets, in the targets of the model.

    Args:
        model: For its targets and its grid.
        batches: Of normalized pixels `[B, T, C, H, W]` of the native size, visible token indices `[B, V]` and hidden
            ones `[B, M]`, int64.

    Returns:
        `zero`, `visible_mean`, `copy_nearest` and `interpolate`.
    """
    grid, tubelet, C = native_grid(model.config), model.tubelet, model.num_channels
    sums = dict.fromkeys(("zero", "visible_mean", "copy_nearest"), 0.0)
    around = 0.0  # squared targets around the center that the interpolation starts from
    fits = {sigma: [0.0, 0.0] for sigma in SIGMAS}  # sums of guess * target, and of guess squared
    total = 0
    for clips, seen, unseen in batches:
        target, known = model.targets(clips, unseen), model.targets(clips, seen)  # [B, M, P], [B, V, P]
        colors = known.unflatten(-1, (-1, C)).mean(dim=(1, 2))  # [B, C]
        mean = colors.repeat(1, target.shape[-1] // C)[:, None]  # [B, 1, P], channel fastest
        nearest = _nearest_column(seen, grid).gather(1, unseen)  # [B, M]
        copied = known.gather(1, nearest[..., None].expand_as(target))
        for name, prediction in (("zero", 0.0 * mean), ("visible_mean", mean), ("copy_nearest", copied)):
            sums[name] += float((prediction - target).square().sum())
        center = 0.0 * mean if model.norm_pix_loss else mean  # a factor on a color would darken it
        around += float((target - center).square().sum())
        truth, is_hidden = patchify(clips.float(), tubelet), membership(unseen, grid.num_tokens)
        for sigma in SIGMAS:
            filled = gaussian_interpolation(truth, is_hidden, grid, tubelet, sigma=sigma)
            guess = model.targets(unpatchify(filled, grid, tubelet), unseen) - center
            fits[sigma][0] += float((guess * (target - center)).sum())
            fits[sigma][1] += float(guess.square().sum())
        total += target.numel()
    explained = max(max(product, 0.0) ** 2 / max(square, 1e-12) for product, square in fits.values())
    sums["interpolate"] = max(around - explained, 0.0)
    return {name: value / max(total, 1) for name, value in sums.items()}


def _gaussian_weights(size: int, sigma: float, device: torch.device) -> Tensor:
    """Return the weight of every pixel of a line for every other, `[size, size]`, 0 from 3 sigma on."""
    place = torch.arange(size, device=device)
    distance = (place[:, None] - place).float()
    return torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= int(3 * sigma) + 1)


def _nearest_column(visible: Tensor, grid: TokenGrid) -> Tensor:
    """Return for every token the position of the nearest one in `visible` `[B, V]`: `[B, N]` int64 below V."""
    places = token_places(grid, visible.device)
    distance = torch.cdist(places.expand(len(visible), -1, -1), places[visible])  # [B, N, V]
    return distance.argmin(dim=2)
