"""Claims about mixup, cutmix, soft targets, and the loss that goes with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from videomae.data.configs import MixConfig
from videomae.data.loader import Shard
from videomae.data.mix import CutBox, Mix, Mixing, draw_mix, mix_clips, partners, soft_targets
from videomae.errors import ConfigError

PAPER = MixConfig(mixup_alpha=0.8, cutmix_alpha=1.0)
ALL = torch.ones(4, dtype=torch.bool)


def clips(batch: int = 4, size: int = 16) -> torch.Tensor:
    return torch.randn(batch, 2, 3, size, size, generator=torch.Generator().manual_seed(0))


def draws(config: MixConfig, count: int, *, size: int = 100) -> list[Mix | None]:
    return [draw_mix(config, seed=3, step=step, height=size, width=size) for step in range(count)]


def mixing(config: MixConfig = PAPER, *, smoothing: float = 0.1) -> Mixing:
    return Mixing(config, seed=3, num_classes=5, label_smoothing=smoothing)


def test_mixup_adds_the_mirrored_clip_with_the_rest_of_the_weight() -> None:
    videos = clips()
    mixed = mix_clips(videos.clone(), Mix(0.75, None), partners(ALL))
    assert torch.allclose(mixed, 0.75 * videos + 0.25 * videos.flip(0), atol=1e-6)


def test_cutmix_takes_one_box_of_the_mirrored_clip_in_all_frames_and_channels() -> None:
    videos = clips()
    box = CutBox(top=2, bottom=7, left=4, right=16)
    mixed = mix_clips(videos.clone(), Mix(1 - 60 / 256, box), partners(ALL))
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[2:7, 4:16] = True
    assert torch.equal(mixed[..., inside], videos.flip(0)[..., inside])
    assert torch.equal(mixed[..., ~inside], videos[..., ~inside])


def test_targets_are_smoothed_and_mixed_as_timm_does() -> None:
    labels = torch.tensor([0, 3, 1, 1])
    targets = soft_targets(labels, Mix(0.7, None), partners(ALL), num_classes=5, label_smoothing=0.1)
    off = 0.1 / 5
    expected = torch.full((4, 5), off)
    for row, (own, other) in enumerate(zip([0, 3, 1, 1], [1, 1, 3, 0], strict=True)):
        expected[row, own] += 0.7 * 0.9
        expected[row, other] += 0.3 * 0.9
    assert torch.allclose(targets, expected, atol=1e-6)
    assert torch.allclose(targets.sum(1), torch.ones(4), atol=1e-6)


def test_lambda_of_cutmix_is_the_exact_fraction_of_own_pixels() -> None:
    found = [mix for mix in draws(MixConfig(cutmix_alpha=1.0), 300, size=37) if mix is not None]
    assert len(found) == 300
    for mix in found:
        assert mix.box is not None
        own = torch.ones(37, 37)
        own[mix.box.top : mix.box.bottom, mix.box.left : mix.box.right] = 0
        assert own.mean().item() == pytest.approx(mix.kept, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.8, 0.2, 1.0])
def test_lambda_of_mixup_is_beta_distributed(alpha: float) -> None:
    found = np.sort([mix.kept for mix in draws(MixConfig(mixup_alpha=alpha), 2000) if mix is not None])
    sample = np.sort(np.random.default_rng(0).beta(alpha, alpha, 20_000))
    ranks = np.searchsorted(sample, found, side="right") / 20_000
    assert np.abs(ranks - (np.arange(2000) + 0.5) / 2000).max() < 1.95 * math.sqrt(1 / 2000 + 1 / 20_000)


def test_half_of_the_steps_cut_where_both_are_on_and_some_do_nothing_where_asked() -> None:
    found = draws(PAPER, 2000)
    assert all(mix is not None for mix in found)
    assert abs(sum(mix is not None and mix.box is not None for mix in found) - 1000) < 4 * math.sqrt(500)
    seldom = draws(MixConfig(mixup_alpha=0.8, cutmix_alpha=1.0, mixup_prob=0.25, mixup_switch_prob=1.0), 2000)
    assert abs(sum(mix is not None for mix in seldom) - 500) < 4 * math.sqrt(375)
    assert all(mix.box is not None for mix in seldom if mix is not None)


def test_a_step_is_mixed_by_seed_and_step_alone() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    first = draws(PAPER, 20)
    torch.manual_seed(1)
    np.random.seed(1)
    assert draws(PAPER, 20) == first
    assert len(set(first)) == 20
    assert draw_mix(PAPER, seed=4, step=1, height=100, width=100) != first[1]


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("step", range(6))
def test_ranks_mix_the_same_clips_as_one_process(ranks: int, step: int) -> None:
    videos, labels = clips(8), torch.tensor([0, 1, 2, 3, 4, 3, 2, -1])
    readable = labels >= 0
    wanted, wanted_targets = mixing().apply(videos.clone(), labels, readable, step=step)
    for rank in range(ranks):
        places = Shard(rank, ranks).places(8)
        mixed, targets = mixing().apply(videos[places], labels[places], readable[places], step=step)
        assert torch.equal(mixed, wanted[places])
        assert torch.equal(targets, wanted_targets[places])


def test_a_place_without_a_readable_clip_is_nobodys_partner() -> None:
    readable = torch.tensor([True, True, True, False])
    assert partners(readable).tolist() == [0, 2, 1, 0]
    assert partners(ALL).tolist() == [3, 2, 1, 0]
    assert partners(torch.ones(3, dtype=torch.bool)).tolist() == [2, 1, 0]  # the middle stays as it is
    videos = clips()
    mixed = mix_clips(videos.clone(), Mix(0.5, None), partners(readable))
    assert torch.allclose(mixed[0], videos[0], atol=1e-6)


@pytest.mark.parametrize("config", [MixConfig(), PAPER])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_place_without_a_readable_clip_does_not_count_in_the_loss(config: MixConfig, smoothing: float) -> None:
    labels, readable = torch.tensor([0, 4, -1, 2]), torch.tensor([True, True, False, True])
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    step = mixing(config, smoothing=smoothing)
    _, targets = step.apply(clips(), labels, readable, step=1)
    loss = step.loss(logits, targets, readable)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[2].any()
    assert gradient[readable].any()
    wanted = F.cross_entropy(
        logits[readable], targets[readable], label_smoothing=0.0 if config.enabled else smoothing
    )
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_without_mixing_clips_and_loss_are_what_they_were_to_the_bit() -> None:
    videos, labels = clips(), torch.tensor([0, 4, 1, 2])
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    step = mixing(MixConfig())
    kept, targets = step.apply(videos, labels, ALL, step=1)
    assert kept is videos
    assert targets is labels
    assert torch.equal(step.loss(logits, targets, ALL), F.cross_entropy(logits, labels, label_smoothing=0.1))


def test_a_step_that_does_not_mix_has_the_loss_of_smoothed_labels() -> None:
    never = Mixing(MixConfig(mixup_alpha=1.0, mixup_prob=1e-9), seed=0, num_classes=5, label_smoothing=0.1)
    labels = torch.tensor([0, 4, 1, 2])
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    kept, targets = never.apply(clips(), labels, ALL, step=1)
    assert torch.equal(kept, clips())
    wanted = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert never.loss(logits, targets, ALL).item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup_alpha": -0.1}, r"mix\.mixup_alpha is -0\.1; use 0 for none, or a number above 0"),
        ({"cutmix_alpha": math.inf}, r"mix\.cutmix_alpha is inf; use 0 for none"),
        ({"mixup_prob": 1.5}, r"mix\.mixup_prob is 1\.5; it is a fraction in \[0, 1\]"),
        ({"mixup_switch_prob": math.nan}, r"mix\.mixup_switch_prob is nan; it is a fraction"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MixConfig(**settings)
