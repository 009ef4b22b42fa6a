"""Predictions that need no learning: what they are where the right answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tiny_models import make_model, random_video
from videomae.masking import MaskConfig, draw_masks
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD, VideoMAEForPreTraining
from videomae.monitor.baselines import (
    baseline_losses,
    gaussian_interpolation,
    nearest_visible,
)
from videomae.patches import TokenGrid, TubeletSize, complement, patchify, token_places

GRID = TokenGrid(2, 4, 4)
TUBELET = TubeletSize(2, 4, 4)


def parts(model: VideoMAEForPreTraining, pixels: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return one batch of normalized pixels `[B, T, C, H, W]` from [0, 1], with tube masks."""
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    masks = draw_masks(
        MaskConfig(ratio=0.5),
        native_grid(model.config),
        batch=len(pixels),
        generator=torch.Generator().manual_seed(1),
    )
    return [((pixels - mean) / std, masks.visible, masks.decoded)]


def test_one_color_is_predicted_by_all_but_zero() -> None:
    model = make_model(VideoMAEForPreTraining, norm_pix_loss=False)
    color = torch.tensor([0.2, 0.5, 0.7]).view(3, 1, 1).expand(2, 4, 3, 16, 16)
    losses = baseline_losses(model, parts(model, color))
    assert losses["zero"] == pytest.approx((0.04 + 0.25 + 0.49) / 3, rel=1e-5)
    assert [losses[name] for name in ("visible_mean", "copy_nearest", "interpolate")] == pytest.approx(
        [0] * 3, abs=1e-9
    )


def test_a_video_that_repeats_in_time_is_copied_where_whole_slices_are_hidden() -> None:
    model = make_model(VideoMAEForPreTraining, norm_pix_loss=True)
    still = torch.rand(2, 1, 3, 16, 16).expand(2, 4, 3, 16, 16)
    (batch,) = parts(model, still)
    visible = torch.arange(16).expand(2, 16)  # the first of two slices
    losses = baseline_losses(model, [(batch[0], visible, complement(visible, 32))])
    assert losses["copy_nearest"] == pytest.approx(0.0, abs=1e-8)
    assert losses["zero"] > 0.9


def test_normalized_targets_have_unit_variance_and_no_mean() -> None:
    model = make_model(VideoMAEForPreTraining, norm_pix_loss=True)
    losses = baseline_losses(model, parts(model, torch.rand(3, 4, 3, 16, 16)))
    assert losses["zero"] == pytest.approx(31 / 32, rel=1e-3)  # unbiased variance of 32 pixels
    assert losses["visible_mean"] == pytest.approx(losses["zero"], rel=1e-3)
    assert losses["copy_nearest"] == pytest.approx(2 * losses["zero"], rel=0.1)  # two independent patterns


def test_interpolation_beats_the_mean_on_a_smooth_video_and_gains_nothing_on_noise() -> None:
    model = make_model(VideoMAEForPreTraining, norm_pix_loss=False)
    ramp = torch.linspace(0, 1, 16).view(1, 1, 1, 1, 16).expand(2, 4, 3, 16, 16)
    smooth = baseline_losses(model, parts(model, ramp))
    noisy = baseline_losses(model, parts(model, torch.rand(2, 4, 3, 16, 16)))
    assert smooth["interpolate"] < 0.5 * smooth["visible_mean"]
    assert noisy["interpolate"] == pytest.approx(noisy["visible_mean"], rel=0.03)


def test_batches_give_what_one_batch_gives() -> None:
    model = make_model(VideoMAEForPreTraining)
    (whole,) = parts(model, torch.rand(4, 4, 3, 16, 16))
    cut = [tuple(one[first : first + 2] for one in whole) for first in (0, 2)]
    one, several = (baseline_losses(model, batches) for batches in ([whole], cut))  # type: ignore[list-item]
    assert several == pytest.approx(one, rel=1e-5)


def test_the_nearest_visible_token_is_nearest() -> None:
    visible = torch.tensor([[0, 15, 31]])
    nearest = nearest_visible(visible, GRID)[0]
    places = token_places(GRID)
    for token in range(GRID.num_tokens):
        distances = (places[visible[0]] - places[token]).norm(dim=1)
        assert (places[nearest[token]] - places[token]).norm() == distances.min()


def test_the_average_of_visible_pixels_ignores_hidden_ones() -> None:
    video = random_video(make_model(VideoMAEForPreTraining).config)
    truth = patchify(video, TUBELET)
    hidden = torch.zeros(2, 32, dtype=torch.bool).scatter(1, torch.tensor([[5, 6], [7, 9]]), True)
    other = torch.where(hidden[..., None], torch.full_like(truth, 100.0), truth)
    filled = [gaussian_interpolation(one, hidden, GRID, TUBELET, sigma=2.0) for one in (truth, other)]
    assert torch.equal(filled[0], filled[1])
    assert filled[0].abs().max() < truth.abs().max()
