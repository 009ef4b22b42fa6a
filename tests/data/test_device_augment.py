"""Claims about what is done to clips on the device: by sample and not by place, the same in all frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from videomae.data.configs import AugmentConfig
from videomae.data.datasets import SampleKey
from videomae.data.device_augment import DeviceAugment, erased_box
from videomae.errors import ConfigError
from videomae.processing.pixels import normalize

MEAN, STD = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
EVERYTHING = AugmentConfig(rand_augment=True, color_jitter=0.4, erasing_prob=0.5)
ERASING = AugmentConfig(erasing_prob=1.0)


def augment(config: AugmentConfig = EVERYTHING, *, seed: int = 3) -> DeviceAugment:
    return DeviceAugment(config, seed=seed, mean=MEAN, std=STD)


def clips(batch: int = 6, size: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 4, 3, size, size), dtype=torch.uint8, generator=generator)


def keys(batch: int = 6, *, epoch: int = 2, repeat: int = 0) -> list[SampleKey]:
    return [SampleKey(epoch, 10 + place, repeat) for place in range(batch)]


def test_without_any_of_it_clips_are_normalized_to_the_bit() -> None:
    pixels = augment(AugmentConfig())(clips(), keys())
    assert torch.equal(pixels, normalize(clips(), MEAN, STD))


def test_a_clip_is_augmented_by_its_sample_and_not_by_its_place_or_its_neighbours() -> None:
    whole = augment()(clips(), keys())
    order = [4, 1, 5, 0]
    others = augment()(clips()[order], [keys()[place] for place in order])
    assert torch.equal(others, whole[order])
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(augment()(clips(), keys()), whole)


def test_seed_epoch_index_and_repeat_each_change_what_is_drawn() -> None:
    same = clips(1).expand(6, -1, -1, -1, -1)
    found = [
        *augment()(same, keys()),
        *augment(seed=4)(same, keys()),
        *augment()(same, keys(epoch=3)),
        *augment()(same, keys(repeat=1)),
    ]
    assert len({one.numpy().tobytes() for one in found}) > 20  # of 24; a few draw nothing but the jitter


def test_one_kind_of_augmentation_draws_the_same_whether_or_not_another_is_on() -> None:
    with_jitter = augment(AugmentConfig(rand_augment=True, color_jitter=0.4))
    without = augment(AugmentConfig(rand_augment=True))
    for key in keys():
        assert with_jitter.operations(key)[3:] == without.operations(key)


def test_all_frames_of_a_still_clip_stay_equal_and_clips_differ() -> None:
    still = clips(1)[:, :1].expand(6, 4, -1, -1, -1)
    pixels = augment(AugmentConfig(rand_augment=True, color_jitter=0.4))(still, keys())
    assert torch.equal(pixels, pixels[:, :1].expand_as(pixels))
    assert len({one.numpy().tobytes() for one in pixels}) == 6


def test_the_clips_that_came_in_are_not_written_to() -> None:
    given = clips()
    augment()(given, keys())
    assert torch.equal(given, clips())


def test_erasing_fills_one_box_of_all_frames_with_normal_noise_and_leaves_the_rest() -> None:
    given = clips(8, size=64)
    before, after = normalize(given, MEAN, STD), augment(ERASING)(given, keys(8))
    noise = []
    for number in range(8):
        changed = (before[number] != after[number]).any(dim=1)  # [T, H, W]
        assert torch.equal(changed, changed[:1].expand_as(changed))
        rows, columns = changed[0].any(1).nonzero().flatten(), changed[0].any(0).nonzero().flatten()
        box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        assert changed[0][box].all()
        assert changed[0].sum() == changed[0][box].numel()
        filled = after[number][..., box[0], box[1]]
        assert not torch.equal(filled[0], filled[1])  # every pixel of every frame has its own
        noise.append(filled.flatten())
    values = torch.cat(noise)
    assert abs(values.mean()) < 5 / math.sqrt(len(values))
    assert abs(values.std() - 1) < 5 / math.sqrt(2 * len(values))


def test_erased_boxes_have_the_published_area_and_aspect_and_frequency() -> None:
    boxes = [erased_box(2000, 2000, config=ERASING, rng=np.random.default_rng(seed)) for seed in range(3000)]
    found = [box for box in boxes if box is not None]
    assert len(found) == 3000
    areas = np.array([box.width * box.height / 4e6 for box in found])
    aspects = np.array([math.log(box.height / box.width) for box in found])
    assert 0.0199 < areas.min() < 0.022
    assert 0.33 < areas.max() < 0.334
    assert abs(areas.mean() - (0.02 + 1 / 3) / 2) < 0.01
    assert abs(aspects.mean()) < 4 * 2 * math.log(1 / 0.3) / math.sqrt(12 * 3000)
    assert np.abs(aspects).max() < math.log(1 / 0.3) + 0.01
    seldom = AugmentConfig(erasing_prob=0.25)
    number = sum(
        erased_box(64, 64, config=seldom, rng=np.random.default_rng(seed)) is not None for seed in range(2000)
    )
    assert abs(number - 500) < 4.5 * math.sqrt(375)


def test_a_frame_in_which_no_box_fits_stays_whole() -> None:
    assert erased_box(1, 1, config=ERASING, rng=np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rand_num_ops": 0}, r"augment\.rand_num_ops is 0; it must be at least 1: switch RandAugment off with"),
        ({"rand_magnitude": 11.0}, r"augment\.rand_magnitude is 11; it is in \[0, 10\], 7 as published"),
        ({"rand_magnitude_std": -1.0}, r"augment\.rand_magnitude_std is -1; use 0 for none"),
        ({"color_jitter": math.inf}, r"augment\.color_jitter is inf; use 0 for none"),
        ({"erasing_prob": 25.0}, r"augment\.erasing_prob is 25; it is a fraction in \[0, 1\]"),
        ({"erasing_min_area": 0.5}, r"augment\.erasing_min_area 0\.5 and erasing_max_area 0\.333333 are fractions"),
        ({"erasing_min_aspect": 3.3}, r"augment\.erasing_min_aspect is 3\.3; it is in \(0, 1\]"),
    ],
)
def test_settings_of_the_device_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AugmentConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_augments_as_the_processor_does_and_never_waits() -> None:
    config = AugmentConfig(rand_augment=True, color_jitter=0.4)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (32, 4, 3, 8, 8), dtype=torch.uint8, generator=generator)
    smooth = coarse.repeat_interleave(8, -1).repeat_interleave(8, -2)
    on_gpu = DeviceAugment(
        AugmentConfig(rand_augment=True, color_jitter=0.4, erasing_prob=0.5), seed=3, mean=MEAN.cuda(), std=STD.cuda()
    )
    given = smooth.cuda()
    first = on_gpu(given, keys(32))
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = on_gpu(given, keys(32))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, again)
    pixels = DeviceAugment(config, seed=3, mean=MEAN.cuda(), std=STD.cuda())(given, keys(32)).cpu()
    distance = (pixels - augment(config)(smooth, keys(32))).abs()
    assert (distance < 0.02).float().mean() > 0.99  # a rounding may decide on which side of a step a pixel falls
