"""Claims about crop boxes, resizing, flips and normalisation."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from videomae.data.augment import (
    AugmentConfig,
    CropBox,
    augment_clip,
    centre_box,
    crop_resize,
    directed_classes,
    multi_scale_box,
    resize_centre,
    resized_box,
)
from videomae.errors import ConfigError
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.processing.pixels import normalize

FRAME_SIZES = [(320, 240), (240, 320), (224, 224), (1920, 1080), (64, 64), (226, 300), (222, 300), (7, 5), (1, 1)]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def smooth_frames(num_frames: int, height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_frames, height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height))) for frame in coarse])


def is_inside(box: CropBox, width: int, height: int) -> bool:
    return (
        box.left >= 0
        and box.top >= 0
        and box.width >= 1
        and box.height >= 1
        and box.left + box.width <= width
        and box.top + box.height <= height
    )


@pytest.mark.parametrize(("width", "height"), FRAME_SIZES)
def test_every_box_lies_inside_the_frame(width: int, height: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        assert is_inside(multi_scale_box(width, height, size=224, rng=rng), width, height)
        assert is_inside(resized_box(width, height, area=(0.08, 1), aspect=(0.75, 4 / 3), rng=rng), width, height)
        assert is_inside(resized_box(width, height, area=(0.5, 1), aspect=(3, 4), rng=rng), width, height)


def test_multi_scale_draws_each_of_ten_shapes_at_each_of_thirteen_places() -> None:
    rng = np.random.default_rng(0)
    draws = Counter(multi_scale_box(400, 256, size=112, rng=rng) for _ in range(13_000))
    shapes = {(box.width, box.height) for box in draws}
    sides = [256, 224, 192, 168]  # int(256 * scale)
    assert shapes == {(sides[i], sides[j]) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    places = {(box.left, box.top) for box in draws if (box.width, box.height) == (168, 192)}
    across, down = (400 - 168) // 4, (256 - 192) // 4
    expected = {
        (0, 0),
        (4, 0),
        (0, 4),
        (4, 4),
        (2, 2),
        (0, 2),
        (4, 2),
        (2, 4),
        (2, 0),
        (1, 1),
        (3, 1),
        (1, 3),
        (3, 3),
    }
    assert places == {(i * across, j * down) for i, j in expected}
    # Each of the 130 outcomes is drawn 100 times on average; at height 256 the places coincide in part.
    counts = [draws[box] for box in draws if (box.width, box.height) == (168, 192)]
    assert max(abs(count - 100) for count in counts) < 5 * math.sqrt(100)


def test_a_multi_scale_side_near_the_output_size_becomes_it_but_never_leaves_the_frame() -> None:
    rng = np.random.default_rng(0)
    for short, expected in ((226, 224), (222, 222), (227, 227), (224, 224)):
        widths = {multi_scale_box(400, short, size=224, rng=rng).width for _ in range(200)}
        assert max(widths) == expected


def test_resized_boxes_have_uniform_area_and_log_uniform_aspect() -> None:
    rng = np.random.default_rng(0)
    boxes = [resized_box(4000, 3000, area=(0.1, 0.3), aspect=(0.75, 4 / 3), rng=rng) for _ in range(4000)]
    areas = np.sort([box.width * box.height / 12e6 for box in boxes])
    aspects = np.sort([math.log(box.width / box.height) for box in boxes])
    grid = (np.arange(4000) + 0.5) / 4000
    bound = 1.95 / math.sqrt(4000)  # Kolmogorov-Smirnov, one in a thousand
    assert np.abs((areas - 0.1) / 0.2 - grid).max() < bound
    assert np.abs((aspects - math.log(0.75)) / math.log(16 / 9) - grid).max() < bound
    lefts = np.sort([box.left / (4000 - box.width) for box in boxes])
    assert np.abs(lefts - grid).max() < bound


def test_a_frame_too_long_for_any_draw_gives_its_largest_centred_crop() -> None:
    rng = np.random.default_rng(0)
    wide = resized_box(1000, 10, area=(0.9, 1.0), aspect=(0.75, 4 / 3), rng=rng)
    assert wide == CropBox(left=493, top=0, width=13, height=10)
    tall = resized_box(10, 1000, area=(0.9, 1.0), aspect=(0.75, 4 / 3), rng=rng)
    assert tall == CropBox(left=0, top=493, width=10, height=13)


def test_centre_box_leaves_the_odd_pixel_below_and_right() -> None:
    assert centre_box(11, 8, crop_width=4, crop_height=5) == CropBox(left=3, top=1, width=4, height=5)


@pytest.mark.parametrize(("height", "width", "box"), [(90, 120, (10, 5, 100, 80)), (30, 40, (3, 2, 30, 25))])
def test_crop_resize_agrees_with_pil_to_one_grey_level(height: int, width: int, box: tuple[int, ...]) -> None:
    frames = smooth_frames(3, height, width)
    clip = crop_resize(frames, CropBox(*box), size=48)
    assert clip.shape == (3, 3, 48, 48)
    assert clip.dtype == torch.uint8
    assert clip.is_contiguous()
    left, top, w, h = box
    for frame, result in zip(frames, clip, strict=True):
        crop = Image.fromarray(frame).crop((left, top, left + w, top + h))
        expected = np.asarray(crop.resize((48, 48), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(result.permute(1, 2, 0).numpy() - expected).max() <= 1


def test_a_crop_of_the_output_size_is_copied_pixel_by_pixel() -> None:
    frames = smooth_frames(2, 40, 50)
    clip = crop_resize(frames, CropBox(left=7, top=3, width=32, height=32), size=32)
    assert np.array_equal(clip.permute(0, 2, 3, 1).numpy(), frames[:, 3:35, 7:39])


@pytest.mark.parametrize(("height", "width"), [(90, 120), (123, 77), (64, 64), (31, 50), (65, 97)])
def test_centre_view_and_normalisation_are_the_image_processors_to_the_bit(height: int, width: int) -> None:
    frames = smooth_frames(4, height, width)
    processor = VideoMAEImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=list(MEAN), image_std=list(STD)
    )
    expected = processor(list(frames), return_tensors="pt")["pixel_values"]  # [1, T, C, S, S]
    clip = augment_clip(frames, AugmentConfig(crop="centre"), size=64, rng=np.random.default_rng(0))
    assert torch.equal(clip, resize_centre(frames, size=64))
    assert torch.equal(normalize(clip[None], torch.tensor(MEAN), torch.tensor(STD)), expected)


def test_normalize_gives_every_channel_its_own_mean_and_std() -> None:
    clips = torch.randint(0, 256, (2, 3, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = normalize(clips, torch.tensor(MEAN), torch.tensor(STD))
    assert pixels.dtype == torch.float32
    expected = (clips.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert (pixels - expected).abs().max() < 1e-6


def test_flip_mirrors_half_of_the_clips_left_to_right() -> None:
    frames = smooth_frames(2, 32, 32)
    plain = resize_centre(frames, size=32)
    rng = np.random.default_rng(0)
    clips = [augment_clip(frames, AugmentConfig("centre", flip=True), size=32, rng=rng) for _ in range(400)]
    mirrored = sum(torch.equal(clip, plain.flip(3)) for clip in clips)
    assert mirrored + sum(torch.equal(clip, plain) for clip in clips) == 400
    assert abs(mirrored - 200) < 40  # four standard deviations


@pytest.mark.parametrize("crop", ["multi_scale", "resized", "centre"])
def test_all_frames_of_a_clip_share_one_box(crop: str) -> None:
    still = np.repeat(smooth_frames(1, 50, 70), 5, axis=0)
    for seed in range(20):
        config = AugmentConfig(crop=crop, flip=True)  # type: ignore[arg-type]
        clip = augment_clip(still, config, size=32, rng=np.random.default_rng(seed))
        assert (clip == clip[:1]).all()


@pytest.mark.parametrize("crop", ["multi_scale", "resized", "centre"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (5, 3)])
def test_frames_smaller_than_the_output_are_enlarged(crop: str, height: int, width: int) -> None:
    frames = np.full((2, height, width, 3), 77, np.uint8)
    config = AugmentConfig(crop=crop)  # type: ignore[arg-type]
    for seed in range(20):
        clip = augment_clip(frames, config, size=32, rng=np.random.default_rng(seed))
        assert clip.shape == (2, 3, 32, 32)
        assert (clip == 77).all()


def test_random_crops_differ_between_clips_and_the_centre_does_not() -> None:
    frames = smooth_frames(2, 100, 140)
    for crop, expected in (("multi_scale", range(15, 21)), ("resized", range(20, 21)), ("centre", range(1, 2))):
        config = AugmentConfig(crop=crop)  # type: ignore[arg-type]
        clips = [augment_clip(frames, config, size=32, rng=np.random.default_rng(seed)) for seed in range(20)]
        assert len({clip.numpy().tobytes() for clip in clips}) in expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": "center"}, r"augment\.crop is 'center'; it is 'multi_scale', 'resized' or 'centre'"),
        (
            {"min_area": 0.0},
            r"augment\.min_area 0 and max_area 1 are fractions .*: use 0 < min_area <= max_area <= 1",
        ),
        ({"min_area": 0.9, "max_area": 0.5}, r"augment\.min_area 0\.9 and max_area 0\.5"),
        ({"max_area": 100.0}, r"augment\.min_area 0\.08 and max_area 100"),
        (
            {"min_aspect": 2.0},
            r"augment\.min_aspect 2 and max_aspect 1\.33333 are width / height: use 0 < min_aspect",
        ),
        ({"min_area": math.nan}, r"augment\.min_area nan"),
    ],
)
def test_contradicting_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AugmentConfig(**settings)  # type: ignore[arg-type]


def test_class_names_that_a_mirror_changes_are_found_and_others_are_not() -> None:
    directed = ["left", "Turn right", "turn_left", "turn-Left", "SwipeLeft", "LEFT", "counterclockwise", "2right"]
    directed += ["Pushing something from left to right", "Rotate counter-clockwise", "moving leftwards"]
    others = ["bright light", "cleft", "copyright", "up", "clock", "upright bike", "straight", "LEFTOVERS", ""]
    assert directed_classes([*directed, *others]) == directed
