"""The arithmetic of the processor: sizes, filters, crops, scales, and that the way back is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from videomae.errors import ConfigError
from videomae.processing.pixels import PixelSteps, center_crop, output_size, read_size, resize, resize_in_float

PIL_NEAREST, PIL_BILINEAR, PIL_BICUBIC = 0, 2, 3
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UNEVEN = ((90, 16), (20, 20))  # one edge shrinks, one grows
SIZES = [((48, 64), (24, 32)), ((37, 53), (37, 20)), ((30, 20), (61, 40)), ((72, 128), (28, 49)), UNEVEN]


def steps(**settings: Any) -> PixelSteps:
    """Return transformers' default steps with some settings changed."""
    defaults: dict[str, Any] = {
        "do_resize": True,
        "size": {"shortest_edge": 16},
        "resample": PIL_BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": 16, "width": 16},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    }
    return PixelSteps(**{**defaults, **settings})


def noise(*shape: int) -> torch.Tensor:
    """Return uint8 noise, with black and white in its first half: the hardest input for a filter."""
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    half = shape[-1] // 2
    frames[..., :half] = np.where(frames[..., :half] > 127, 255, 0)
    return torch.from_numpy(frames)


def pil_resize(frames: torch.Tensor, size: tuple[int, int], resample: int) -> torch.Tensor:
    """Resize uint8 frames `[t, C, H, W]` with PIL."""
    images = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    arrays = [np.array(image.resize(size[::-1], resample=resample)) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("height", "width", "wanted"),
    [
        (240, 320, (224, 298)),  # 224 * 320 / 240 = 298.67, rounded down
        (320, 240, (298, 224)),
        (100, 100, (224, 224)),
        (224, 225, (224, 225)),
        (1080, 1920, (224, 398)),
        (1, 3, (224, 672)),
    ],
)
def test_shortest_edge_keeps_the_aspect_ratio_rounding_down(height: int, width: int, wanted: tuple[int, int]) -> None:
    assert output_size(height, width, {"shortest_edge": 224}) == wanted
    assert output_size(height, width, {"height": 30, "width": 40}) == (30, 40)


# Bicubic overshoots, and PIL and torch clip between their two passes in another order: alike only where both
# edges shrink or both grow, which is what keeping the aspect ratio does.
@pytest.mark.parametrize(
    ("before", "after", "resample"),
    [(*sizes, PIL_BILINEAR) for sizes in SIZES] + [(*sizes, PIL_BICUBIC) for sizes in SIZES if sizes != UNEVEN],
)
def test_resized_uint8_is_within_one_grey_level_of_pil(
    before: tuple[int, int], after: tuple[int, int], resample: int
) -> None:
    frames = noise(3, 3, *before)
    ours, theirs = resize(frames, after, resample), pil_resize(frames, after, resample)
    assert ours.dtype == torch.uint8
    apart = (ours.int() - theirs.int()).abs()
    assert apart.max() <= 1
    assert apart.float().mean() < 0.2


@pytest.mark.parametrize(("before", "after"), [((48, 64), (24, 32)), ((20, 30), (20, 30)), ((16, 16), (48, 32))])
def test_nearest_takes_the_same_pixels_as_pil(before: tuple[int, int], after: tuple[int, int]) -> None:
    frames = noise(2, 3, *before)
    assert torch.equal(resize(frames, after, PIL_NEAREST), pil_resize(frames, after, PIL_NEAREST))


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_the_arithmetic_of_other_devices_is_within_one_grey_level(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    frames = noise(3, 3, *before)
    apart = resize_in_float(frames, after, "bilinear").int() - resize(frames, after, PIL_BILINEAR).int()
    assert apart.abs().max() <= 1


def test_float_overshoot_is_clipped_not_wrapped() -> None:
    frames = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    frames[..., 4:] = 255
    overshoot = torch.nn.functional.interpolate(frames.float(), size=(24, 24), mode="bicubic", antialias=True)
    assert overshoot.min() < -1  # else this test shows nothing
    assert overshoot.max() > 256
    resized = resize_in_float(frames, (24, 24), "bicubic")
    assert resized[..., :8].max() < 32
    assert resized[..., 16:].min() > 223


def test_memory_layout_and_number_of_frames_change_nothing() -> None:
    frames = noise(3, 30, 40, 3).permute(0, 3, 1, 2)  # channels last in memory
    wanted = resize(frames.contiguous(), (18, 24), PIL_BILINEAR)
    assert torch.equal(resize(frames, (18, 24), PIL_BILINEAR), wanted)
    assert torch.equal(resize(frames[1:2], (18, 24), PIL_BILINEAR), wanted[1:2])


def test_a_frame_of_the_right_size_is_left_alone() -> None:
    frames = noise(2, 3, 16, 16)
    assert resize(frames, (16, 16), PIL_BILINEAR) is frames


def test_an_odd_column_left_over_is_cut_off_on_the_right() -> None:
    frames = torch.arange(7)[None, :].expand(4, 7)
    assert center_crop(frames, 2, 4)[0].tolist() == [1, 2, 3, 4]
    assert center_crop(frames, 4, 7).equal(frames)
    assert center_crop(torch.arange(5)[:, None], 2, 1)[:, 0].tolist() == [1, 2]


def test_small_frames_get_black_borders_the_odd_one_below_and_on_the_right() -> None:
    frames = torch.ones(1, 2, 3, dtype=torch.uint8)
    assert center_crop(frames, 5, 3)[0, :, 0].tolist() == [0, 1, 1, 0, 0]
    assert center_crop(frames, 2, 6)[0, 0].tolist() == [0, 1, 1, 1, 0, 0]
    assert center_crop(frames, 3, 1)[0].tolist() == [[1], [1], [0]]  # a border and a cut at once


@pytest.mark.parametrize(("mean", "std"), [((0.5,) * 3, (0.5,) * 3), (IMAGENET_MEAN, IMAGENET_STD), (0.45, 0.225)])
def test_scaling_follows_its_formula_and_its_inverse_is_exact(mean: Any, std: Any) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    some = steps(image_mean=mean, image_std=std)
    values = some.apply(levels)
    column = (torch.tensor(one, dtype=torch.float64).view(-1, 1, 1) for one in (mean, std))
    wanted = (levels.double() / 255 - next(column)) / next(column)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), wanted, rtol=0, atol=1e-6)
    assert torch.equal(some.invert(values), levels)
    assert torch.equal(some.invert(values[0]), levels[0])  # any number of dimensions in front


def test_inverse_clips_predictions_and_takes_half_precision() -> None:
    some = steps()
    assert some.invert(torch.tensor([[[-3.0]], [[0.0]], [[3.0]]])).flatten().tolist() == [0, 128, 255]
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    apart = some.invert(some.apply(levels).bfloat16()).int() - levels.int()
    assert apart.abs().max() <= 1  # bfloat16 keeps 8 bits


def test_inverse_without_normalising_only_undoes_the_factor() -> None:
    some = steps(do_normalize=False)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(some.invert(some.apply(levels)), levels)
    with pytest.raises(ValueError, match="do_rescale is False, so the range of the frames is not known"):
        steps(do_rescale=False).invert(torch.zeros(3, 2, 2))


def test_each_step_can_be_left_out() -> None:
    frames = noise(2, 3, 20, 30)
    assert steps(do_resize=False).apply(frames).shape == (2, 3, 16, 16)
    assert steps(do_center_crop=False).apply(frames).shape == (2, 3, 16, 24)
    raw = steps(do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=False).apply(frames)
    assert raw.dtype == torch.uint8
    assert torch.equal(raw, frames)
    scaled = steps(do_resize=False, do_center_crop=False, do_normalize=False).apply(frames)
    torch.testing.assert_close(scaled, frames.float() / 255)
    plain = steps(do_resize=False, do_center_crop=False, do_rescale=False, image_mean=100.0, image_std=2.0)
    assert torch.equal(plain.apply(frames), (frames.float() - 100) / 2)


def test_one_channel_is_repeated_only_where_normalising_needs_it() -> None:
    grey = noise(2, 1, 20, 30)
    some = steps(image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
    assert torch.equal(some.apply(grey), some.apply(grey.repeat(1, 3, 1, 1)))
    assert steps(do_normalize=False).apply(grey).shape[1] == 1
    assert steps(image_mean=0.5, image_std=0.5).apply(grey).shape[1] == 1
    with pytest.raises(
        ValueError, match="frames have 4 channels and image_mean and image_std are for 3: give frames"
    ):
        some.apply(noise(2, 4, 20, 30))


def test_frames_of_another_scale_are_refused() -> None:
    frames = noise(2, 3, 20, 30).float()
    for wrong in (frames / 255, frames / 127.5 - 1, frames * 257, frames / 1e4):
        with pytest.raises(ValueError, match=r"the frames go from .*, but rescaling by 1/255 is for 0\.\.255: give"):
            steps().apply(wrong)
    for right in (frames, frames * 0, frames * 0.1, frames - 20):  # black; dark; overshoot below 0
        steps().apply(right)
    steps(do_rescale=False).apply(frames / 255)
    steps(rescale_factor=1 / 65535).apply(frames * 257)


def test_normal_noise_as_in_the_published_examples_is_taken_with_a_warning() -> None:
    frames = (noise(2, 3, 20, 30).float() / 255 - 0.485) / 0.229
    with pytest.warns(UserWarning, match=r"rescaling by 1/255 is for 0\.\.255: give do_rescale=False"):
        values = steps(do_resize=False, do_center_crop=False).apply(frames)
    # Rescaled and normalised all the same, as transformers does.
    torch.testing.assert_close(values, (frames / 255 - 0.5) / 0.5)


def test_uint8_without_rescaling_is_refused_where_the_mean_is_for_0_to_1() -> None:
    frames = noise(2, 3, 20, 30)
    with pytest.raises(ValueError, match=r"do_rescale is False, but the frames are uint8 .* leave do_rescale on"):
        steps(do_rescale=False).apply(frames)
    steps(do_rescale=False, image_mean=127.5, image_std=127.5).apply(frames)
    steps(do_rescale=False, image_mean=0.0, image_std=1.0).apply(frames)


def test_floats_are_resized_without_rounding() -> None:
    frames = noise(2, 3, 20, 30)
    exact = steps().apply(frames.float())
    assert (exact - steps().apply(frames)).abs().max() <= 1.01 / 127.5
    assert len(exact.unique()) > 256


def test_the_callers_frames_are_not_written_to() -> None:
    frames = noise(2, 3, 16, 16).float()
    before = frames.clone()
    steps(do_resize=False, do_center_crop=False).apply(frames)
    steps().apply(frames)
    assert torch.equal(frames, before)


@pytest.mark.parametrize(
    ("value", "square", "wanted"),
    [
        (7, False, {"shortest_edge": 7}),
        (7, True, {"height": 7, "width": 7}),
        ((3, 4), False, {"height": 3, "width": 4}),
        ([3, 4], True, {"height": 3, "width": 4}),
        ({"shortest_edge": 7}, False, {"shortest_edge": 7}),
        ({"width": 4, "height": 3}, False, {"height": 3, "width": 4}),
    ],
)
def test_sizes_come_in_every_form_of_transformers(value: Any, square: bool, wanted: dict[str, int]) -> None:
    assert read_size("size", value, square=square) == wanted


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        True,
        2.5,
        "224",
        None,
        (1, 2, 3),
        (0, 4),
        {"height": 3},
        {},
        {"shortest_edge": 3.0},
        {"longest_edge": 9},
    ],
)
def test_other_sizes_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"size is .*; give positive whole numbers of pixels, as a number or"):
        read_size("size", value, square=False)
    with pytest.raises(ConfigError, match=r"crop_size is .* as a number for a square"):
        read_size("crop_size", {"shortest_edge": 3}, square=True)


BAD = {
    "do_resize": (1, "do_resize is 1; it must be true or false"),
    "do_normalize": ("yes", "do_normalize is 'yes'; it must be true or false"),
    "resample": (1, r"resample is 1; choose PIL's number .* 0 \(nearest\), 2 \(bilinear\) or 3 \(bicubic\)"),
    "crop_size": ({"shortest_edge": 3}, "crop_size is .*; it needs 'height' and 'width'"),
    "rescale_factor": (0.0, r"rescale_factor is 0\.0; it must be a number above 0$"),
    "image_mean": ((0.5, "a", 0.5), "image_mean is .*; it must be a number, or one for each channel"),
    "image_std": ((0.5, 0.0, 0.5), "image_std is .*; it must be a number above 0, or one for each channel"),
}


@pytest.mark.parametrize(("name", "value", "message"), [(name, *case) for name, case in BAD.items()])
def test_bad_settings_are_refused_by_name(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        steps(**{name: value})


def test_mean_and_deviation_must_match() -> None:
    with pytest.raises(ConfigError, match=r"image_mean .* and image_std .* are for different numbers of channels"):
        steps(image_std=(0.5, 0.5))
    with pytest.raises(ConfigError, match="image_mean is empty"):
        steps(image_mean=())
    with pytest.raises(ConfigError, match="image_mean is nan"):
        steps(image_mean=float("nan"))
    assert steps(image_std=0.5).num_channels == 3
    assert steps(image_mean=(0.5,), image_std=0.5).num_channels is None
