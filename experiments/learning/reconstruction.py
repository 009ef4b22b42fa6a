"""How much of unseen clips a model reconstructs, beside what needs no learning.

`fvu`: squared pixel error on the hidden tubelets over that of the mean color of the clip's visible pixels; 1: nothing
learnt. No statistics of hidden tubelets are used; a model with normalized targets is given means and standard
deviations that are interpolated between the visible tubelets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.learning.settings import normalized
from videomae.masking import MaskConfig, draw_masks
from videomae.model.embeddings import native_grid, tubelet_size
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.monitor.baselines import (
    SIGMAS,
    gaussian_interpolation,
    nearest_visible,
)
from videomae.patches import (
    complement,
    denormalize_patches,
    gather_tokens,
    interpolated_statistics,
    patchify,
    unpatchify,
)


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
                rows[f"gaussian_{sigma}"] = gaussian_interpolation(truth, hidden, grid, model.tubelet, sigma=sigma)
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
