"""How much of unseen clips a model reconstructs, beside what needs no learning.

`fvu`: squared pixel error on the hidden tubelets over that of the mean color of the clip's visible pixels; 1: nothing
learnt. No statistics of hidden tubelets are used; a model with normalized targets is given means and standard
deviations that are interpolated between the visible tubelets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.learning.settings import normalized
from videomae.masking import MaskConfig, draw_masks
from videomae.model.embeddings import native_grid, tubelet_size
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import (
    PatchStatistics,
    TokenGrid,
    complement,
    denormalize_patches,
    gather_tokens,
    patch_statistics,
    patchify,
    unpatchify,
)

SIGMAS = (1.5, 2.5, 4.0, 6.0, 9.0)  # pixels, of the Gaussian interpolation; the best one counts


@torch.no_grad()
def reconstruct(model: VideoMAEForPreTraining, clips: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Fill the hidden tubelets of uint8 clips `[B, T, C, S, S]`: patches `[B, N, P]` in [0, 1], and the true ones."""
    dtype = model.dtype
    grid, tubelet = native_grid(model.config), tubelet_size(model.config)
    truth = patchify(clips.float() / 255.0, tubelet)
    logits = model(normalized(clips, dtype), visible_indices=visible).logits.float()
    hidden = complement(visible, grid.num_tokens)
    if model.config.norm_pix_loss:
        logits = denormalize_patches(logits, interpolated_statistics(truth, visible, hidden, grid))
    filled = truth.scatter(1, hidden[..., None].expand_as(logits), logits.clamp(0, 1))
    return filled, truth


def interpolated_statistics(truth: Tensor, visible: Tensor, hidden: Tensor, grid: TokenGrid) -> PatchStatistics:
    """Return statistics of hidden tubelets as Gaussian averages, one token wide, of the visible ones'."""
    device = truth.device
    sides = (torch.arange(n, device=device) for n in (grid.frames, grid.height, grid.width))
    places = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).view(-1, 3).float()
    distance = torch.cdist(places[hidden], places[visible])  # [B, M, V]
    weights = torch.softmax(-0.5 * distance**2, dim=-1)
    known = patch_statistics(gather_tokens(truth, visible), 3)
    mean, std = (weights @ one[:, :, 0] for one in (known.mean, known.std))  # [B, M, C]
    return PatchStatistics(mean[:, :, None], std[:, :, None])


def nearest_visible(visible: Tensor, grid: TokenGrid) -> Tensor:
    """Return for every token the nearest visible one, `[B, N]`."""
    device = visible.device
    time, rows, columns = torch.meshgrid(
        *(torch.arange(n, device=device) for n in (grid.frames, grid.height, grid.width)), indexing="ij"
    )
    places = torch.stack((time, rows, columns), dim=-1).view(-1, 3).float()
    seen = places[visible]  # [B, V, 3]
    distance = torch.cdist(places.expand(len(seen), -1, -1), seen)  # [B, N, V]
    return visible.gather(1, distance.argmin(dim=2))


def gaussian_interpolation(truth: Tensor, hidden: Tensor, model: VideoMAEForPreTraining, sigma: float) -> Tensor:
    """Fill hidden pixels with a Gaussian average of the visible ones of the same frame: patches `[B, N, P]`."""
    grid, tubelet = native_grid(model.config), tubelet_size(model.config)
    mask = (~hidden).float()[..., None].expand_as(truth)
    video = unpatchify(truth * mask, grid, tubelet).flatten(0, 1)
    weight = unpatchify(mask.contiguous(), grid, tubelet).flatten(0, 1)
    reach = int(3 * sigma) + 1
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=truth.device) / sigma) ** 2)

    def blurred(images: Tensor) -> Tensor:
        kernel = taps.expand(3, 1, 1, -1)
        images = F.conv2d(images, kernel, padding=(0, reach), groups=3)
        return F.conv2d(images, kernel.mT, padding=(reach, 0), groups=3)

    filled = blurred(video) / blurred(weight).clamp_min(1e-8)
    return patchify(filled.unflatten(0, (len(truth), -1)), tubelet)


@torch.no_grad()
def measure(model: VideoMAEForPreTraining, clips: Tensor, mask: MaskConfig, *, baselines: bool) -> dict[str, float]:
    """Return the model's `fvu` on uint8 clips, and the baselines'."""
    grid = native_grid(model.config)
    sums: dict[str, float] = {}
    generator = torch.Generator(clips.device).manual_seed(1)
    for part in clips.split(64):
        visible = draw_masks(mask, grid, batch=len(part), generator=generator).visible
        filled, truth = reconstruct(model, part, visible)
        hidden = torch.ones(truth.shape[:2], dtype=torch.bool, device=truth.device).scatter(1, visible, False)
        seen = gather_tokens(truth, visible).unflatten(-1, (-1, 3)).mean(dim=(1, 2))  # [B, 3]
        mean = seen.repeat(1, truth.shape[-1] // 3)[:, None].expand_as(truth)
        rows = {"model": filled, "visible_mean": mean}
        if baselines:
            own = truth.unflatten(-1, (-1, 3)).mean(dim=2, keepdim=True).expand(-1, -1, truth.shape[-1] // 3, -1)
            rows["copy_nearest"] = gather_tokens(truth, nearest_visible(visible, grid))
            rows["oracle_tubelet_mean"] = own.flatten(2)
            for sigma in SIGMAS:
                rows[f"gaussian_{sigma}"] = gaussian_interpolation(truth, hidden, model, sigma)
        for name, patches in rows.items():
            error = ((patches - truth) ** 2).mean(dim=-1)
            sums[name] = sums.get(name, 0.0) + float((error * hidden).sum())
    fvu = {name: total / sums["visible_mean"] for name, total in sums.items() if name != "visible_mean"}
    gaussians = [fvu.pop(f"gaussian_{sigma}") for sigma in SIGMAS] if baselines else []
    return fvu | ({"gaussian_best": min(gaussians)} if baselines else {})


def contact_sheet(model: VideoMAEForPreTraining, clips: Tensor, mask: MaskConfig, *, moments: int = 4) -> Tensor:
    """Return rows of (seen, reconstructed, true) frames as one uint8 image `[H, W, 3]` on the CPU."""
    grid, tubelet = native_grid(model.config), tubelet_size(model.config)
    generator = torch.Generator(clips.device).manual_seed(2)
    visible = draw_masks(mask, grid, batch=len(clips), generator=generator).visible
    filled, truth = reconstruct(model, clips, visible)
    shown = torch.full_like(truth, 0.5).scatter(
        1, visible[..., None].expand(-1, -1, truth.shape[-1]), gather_tokens(truth, visible)
    )
    times = torch.linspace(1, clips.shape[1] - 2, moments).round().long()
    videos = [
        unpatchify(one, grid, tubelet)[:, times.to(clips.device)] for one in (shown, filled, truth)
    ]  # [B,t,C,S,S]
    strips = [torch.cat(list(video.permute(1, 0, 3, 4, 2)), dim=2) for video in videos]  # each [B, S, t*S, C]
    rows = torch.cat(strips, dim=2)
    return (torch.cat(list(rows), dim=0).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
