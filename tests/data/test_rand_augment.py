"""Claims about RandAugment and colour jitter: what is drawn, what the operators do, and that frames share it."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from videomae.data.configs import AugmentConfig
from videomae.data.rand_augment import (
    OPERATIONS,
    Operation,
    OperationName,
    apply_operations,
    argument,
    draw_color_jitter,
    draw_rand_augment,
    import_kornia,
)
from videomae.errors import ConfigError

PAPER = AugmentConfig(rand_augment=True)
GRAY = (128, 128, 128)
MOVING = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
HEIGHT, WIDTH = 48, 64


def smooth_frame(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def clip_of(frames: list[Image.Image]) -> Tensor:
    stacked = np.stack([np.asarray(frame) for frame in frames])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255  # [T, 3, H, W]


def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    return lambda frame: frame.transform(
        frame.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GRAY
    )


def solarize_add(summand: int) -> Callable[[Image.Image], Image.Image]:
    table = [min(255, value + summand) if value < 128 else value for value in range(256)] * 3
    return lambda frame: frame.point(table)


# Each operation at magnitude 7 with the sign given, and Pillow's call for it in timm, the numbers written out.
PILLOW: list[tuple[OperationName, float, Callable[[Image.Image], Image.Image]]] = [
    ("auto_contrast", 1, ImageOps.autocontrast),
    ("equalize", 1, ImageOps.equalize),
    ("invert", 1, ImageOps.invert),
    ("rotate", 1, lambda frame: frame.rotate(21, Image.Resampling.BILINEAR, fillcolor=GRAY)),
    ("rotate", -1, lambda frame: frame.rotate(-21, Image.Resampling.BILINEAR, fillcolor=GRAY)),
    ("posterize", 1, lambda frame: ImageOps.posterize(frame, 2)),
    ("solarize", 1, lambda frame: ImageOps.solarize(frame, 77)),
    ("solarize_add", 1, solarize_add(77)),
    ("color", 1, lambda frame: ImageEnhance.Color(frame).enhance(1.63)),
    ("color", -1, lambda frame: ImageEnhance.Color(frame).enhance(0.37)),
    ("contrast", 1, lambda frame: ImageEnhance.Contrast(frame).enhance(1.63)),
    ("contrast", -1, lambda frame: ImageEnhance.Contrast(frame).enhance(0.37)),
    ("brightness", 1, lambda frame: ImageEnhance.Brightness(frame).enhance(1.63)),
    ("brightness", -1, lambda frame: ImageEnhance.Brightness(frame).enhance(0.37)),
    ("sharpness", 1, lambda frame: ImageEnhance.Sharpness(frame).enhance(1.63)),
    ("sharpness", -1, lambda frame: ImageEnhance.Sharpness(frame).enhance(0.37)),
    ("shear_x", 1, affine(1, 0.21, 0, 0, 1, 0)),
    ("shear_x", -1, affine(1, -0.21, 0, 0, 1, 0)),
    ("shear_y", 1, affine(1, 0, 0, 0.21, 1, 0)),
    ("translate_x", -1, affine(1, 0, -0.315 * WIDTH, 0, 1, 0)),
    ("translate_y", 1, affine(1, 0, 0, 0, 1, 0.315 * HEIGHT)),
]


def test_every_operation_is_compared_with_pillow() -> None:
    assert {name for name, _, _ in PILLOW} == set(OPERATIONS)
    assert len(OPERATIONS) == 15


@pytest.mark.parametrize(("name", "sign", "pillow"), PILLOW, ids=[f"{name} {sign:+}" for name, sign, _ in PILLOW])
def test_an_operation_agrees_with_pillow_in_every_frame(
    name: OperationName, sign: float, pillow: Callable[[Image.Image], Image.Image]
) -> None:
    frames = [smooth_frame(seed) for seed in range(3)]
    changed = apply_operations(clip_of(frames), [Operation(name, argument(name, 7.0, sign))])
    assert changed.shape == (3, 3, HEIGHT, WIDTH)
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 1
    for before, result, frame in zip(clip_of(frames), changed, frames, strict=True):
        assert not torch.equal(result, before)
        expected = np.asarray(pillow(frame)).astype(float)
        distance = np.abs(result.mul(255).permute(1, 2, 0).numpy() - expected)
        if name in MOVING:  # but for the edge, which Pillow cuts off and kornia fades over a pixel or two
            assert (distance <= 1.01).mean() > 0.93
            assert np.median(distance) < 0.6
        else:
            assert distance.max() < 2  # Pillow rounds twice in some


@pytest.mark.parametrize("name", ["auto_contrast", "equalize", "contrast"])
def test_frames_of_one_colour_stay_finite(name: OperationName) -> None:
    frames = torch.full((2, 3, 8, 8), 0.3)
    changed = apply_operations(frames, [Operation(name, argument(name, 7.0, 1.0))])
    assert torch.allclose(changed, frames, atol=1 / 255)


def test_all_operations_get_stronger_with_the_magnitude() -> None:
    def strength(name: OperationName, magnitude: float) -> float:
        value = argument(name, magnitude, 1.0)
        return {"posterize": -value, "solarize": -value}.get(name, value)

    for name in OPERATIONS[3:]:
        steps = [strength(name, magnitude) for magnitude in (0.0, 2.5, 5.0, 7.5, 10.0)]
        assert steps == sorted(set(steps)), name
    assert argument("posterize", 0.0, 1.0) == 4
    assert argument("solarize", 10.0, 1.0) == 0
    assert argument("color", 10.0, -1.0) == pytest.approx(0.1)


def test_four_operations_are_drawn_with_replacement_and_half_of_them_applied() -> None:
    draws = [draw_rand_augment(PAPER, rng=np.random.default_rng(seed)) for seed in range(6000)]
    counts = Counter(len(one) for one in draws)
    for number in range(5):
        expected = 6000 * math.comb(4, number) / 16
        assert abs(counts[number] - expected) < 4.5 * math.sqrt(expected)
    names = Counter(operation.name for one in draws for operation in one)
    assert set(names) == set(OPERATIONS)
    assert all(abs(count - 800) < 4.5 * math.sqrt(800) for count in names.values())
    assert any(len({operation.name for operation in one}) < len(one) for one in draws)


def test_magnitudes_are_normal_and_signs_even() -> None:
    draws = [draw_rand_augment(PAPER, rng=np.random.default_rng(seed)) for seed in range(6000)]
    angles = np.array([one.value for row in draws for one in row if one.name == "rotate"])
    assert len(angles) > 600
    assert abs((angles > 0).mean() - 0.5) < 4 / (2 * math.sqrt(len(angles)))
    magnitudes = np.abs(angles) / 3
    assert abs(magnitudes.mean() - 7) < 4 * 0.5 / math.sqrt(len(angles))
    assert abs(magnitudes.std() - 0.5) < 4 * 0.5 / math.sqrt(2 * len(angles))
    wide = AugmentConfig(rand_augment=True, rand_magnitude_std=20.0)
    found = [one.value for seed in range(300) for one in draw_rand_augment(wide, rng=np.random.default_rng(seed))]
    assert max(found) <= 30


def test_colour_jitter_draws_uniform_factors_in_any_order() -> None:
    draws = [draw_color_jitter(0.4, rng=np.random.default_rng(seed)) for seed in range(2000)]
    assert Counter(tuple(one.name for one in row) for row in draws).keys().__len__() == 6
    factors = np.sort([row[0].value for row in draws])
    uniform = 0.6 + 0.8 * (np.arange(2000) + 0.5) / 2000
    assert np.abs(factors - uniform).max() < 0.8 * 1.95 / math.sqrt(2000)
    assert min(one.value for one in draw_color_jitter(3.0, rng=np.random.default_rng(0))) >= 0


def drawn(seed: int) -> list[Operation]:
    rng = np.random.default_rng(seed)
    return [*draw_color_jitter(0.4, rng=rng), *draw_rand_augment(PAPER, rng=rng)]


def test_all_frames_of_a_clip_share_their_parameters_and_clips_do_not() -> None:
    frames = clip_of([smooth_frame(seed) for seed in range(4)])
    still = frames[:1].expand(4, -1, -1, -1)
    results: list[NDArray[np.float32]] = []
    for seed in range(60):
        operations = drawn(seed)
        changed = apply_operations(still, operations)
        assert torch.equal(changed, changed[:1].expand_as(changed))
        results.append(changed[0].numpy())
        whole = apply_operations(frames, operations)
        for number in range(4):  # and a frame is changed as if it were alone
            alone = apply_operations(frames[number : number + 1], operations)
            assert torch.allclose(whole[number : number + 1], alone, atol=1e-6)
    assert len({one.tobytes() for one in results}) == 60


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_reads_a_pixel_back_from_the_device(name: OperationName) -> None:
    frames = torch.empty(2, 3, 16, 16, device="meta")  # has no values: reading one is an error
    changed = apply_operations(frames, [Operation(name, argument(name, 7.0, 1.0))])
    assert changed.shape == frames.shape
    assert changed.device.type == "meta"


def test_without_kornia_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    import_kornia(AugmentConfig(erasing_prob=0.25))
    with pytest.raises(
        ConfigError,
        match=r"augment\.rand_augment is True and needs kornia, which cannot be imported \(.*\): "
        r"pip install 'videomae\[augment\]', or give --augment\.rand_augment false",
    ):
        import_kornia(PAPER)
    with pytest.raises(ConfigError, match=r"augment\.color_jitter is 0\.4 and needs kornia"):
        import_kornia(AugmentConfig(color_jitter=0.4))
