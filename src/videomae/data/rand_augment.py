"""RandAugment and colour jitter of whole clips, by kornia's operators, on the device where the clips are.

What is done to a clip is drawn first, as a list of operations with their arguments, from a generator of the sample
alone. Then every operation is applied to all frames of the clip at once with that one argument, so frames cannot
differ.

Source: RandAugment (Cubuk et al. 2020), with timm's operations, ranges and signs of `rand-m7-n4-mstd0.5-inc1`, which
VideoMAE (Tong et al. 2022) is fine-tuned with. The operators agree with Pillow's, on which those numbers are defined.
Unlike there, clips are cropped before and not after, as timm does with images, and moved frames are interpolated
bilinearly, not bicubically: torch's bicubic filter is another one than Pillow's, and takes 2.5 times as long.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.data.configs import AugmentConfig
from videomae.errors import ConfigError

OperationName = Literal[
    "auto_contrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add", "color", "contrast",
    "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
]  # fmt: skip
OPERATIONS: tuple[OperationName, ...] = get_args(OperationName)
OPERATION_PROB = 0.5  # timm: each of the drawn operations is applied to every second clip
MAX_MAGNITUDE = 10.0  # timm: the scale on which magnitudes are given
FILL = 128 / 255  # timm: gray where a moved frame leaves a gap
JITTERED: tuple[OperationName, ...] = ("brightness", "contrast", "color")


class Operation(NamedTuple):
    """One operation and its argument."""

    name: OperationName
    """Which."""
    value: float
    """rotate: degrees counterclockwise; posterize: bits that are kept; solarize: threshold of pixels in [0, 1], and
    solarize_add: summand; shear: pixels a pixel; translate: fraction of the width or height; color, contrast,
    brightness, sharpness: factor, where 1 changes nothing; the first three take none."""


def import_kornia(config: AugmentConfig) -> None:
    """Import kornia where the settings need it, which takes a second or two and must not fall into the first step.

    Raises:
        ConfigError: If it cannot be imported.
    """
    needed = [name for name in ("rand_augment", "color_jitter") if getattr(config, name)]
    if not needed:
        return
    try:
        import kornia  # noqa: F401
    except ImportError as error:
        off = {"rand_augment": "false", "color_jitter": "0"}[needed[0]]
        raise ConfigError(
            f"augment.{needed[0]} is {getattr(config, needed[0])} and needs kornia, which cannot be imported "
            f"({error}): pip install 'videomae[augment]', or give --augment.{needed[0]} {off}"
        ) from error


def draw_rand_augment(config: AugmentConfig, *, rng: np.random.Generator) -> list[Operation]:
    """Draw the operations for one clip: `rand_num_ops` with replacement, of which about half are applied.

    Args:
        config: How many, and how strong.
        rng: Source of all draws.
    """
    chosen = rng.integers(len(OPERATIONS), size=config.rand_num_ops)
    applied = rng.random(config.rand_num_ops) < OPERATION_PROB
    drawn = rng.normal(config.rand_magnitude, config.rand_magnitude_std, size=config.rand_num_ops)
    signs = rng.choice((-1.0, 1.0), size=config.rand_num_ops)
    rows = zip(chosen, applied, np.clip(drawn, 0.0, MAX_MAGNITUDE), signs, strict=True)
    return [
        Operation(OPERATIONS[number], argument(OPERATIONS[number], float(magnitude), float(sign)))
        for number, used, magnitude, sign in rows
        if used
    ]


def argument(name: OperationName, magnitude: float, sign: float) -> float:
    """Return the argument of an operation at a magnitude in [0, 10], all of which get stronger with it.

    Source: timm's level functions of the operations whose names end with "Increasing", and of those that have one.
    """
    match name:
        case "auto_contrast" | "equalize" | "invert":
            return 0.0
        case "rotate":
            return sign * 3.0 * magnitude
        case "posterize":
            return 4 - int(0.4 * magnitude)
        case "solarize":
            return (256 - int(25.6 * magnitude)) / 255
        case "solarize_add":
            return int(11 * magnitude) / 255
        case "color" | "contrast" | "brightness" | "sharpness":
            return 1.0 + sign * 0.09 * magnitude
        case "shear_x" | "shear_y":
            return sign * 0.03 * magnitude
        case "translate_x" | "translate_y":
            return sign * 0.045 * magnitude


def draw_color_jitter(strength: float, *, rng: np.random.Generator) -> list[Operation]:
    """Draw factors of brightness, contrast and saturation, uniform in [1 - strength, 1 + strength], and their order.

    Source: timm's `color_jitter`, which is torchvision's `ColorJitter` without a change of hue.
    """
    factors = rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength, size=len(JITTERED))
    return [Operation(JITTERED[number], float(factors[number])) for number in rng.permutation(len(JITTERED))]


def apply_operations(frames: Tensor, operations: list[Operation]) -> Tensor:
    """Apply operations in turn to all frames of a clip.

    Args:
        frames: `[T, 3, H, W]` float32 in [0, 1].
        operations: With arguments that hold for every frame.

    Returns:
        `[T, 3, H, W]` float32 in [0, 1]. What depends on the pixels themselves, the stretch of auto_contrast, the
        table of equalize and the mean of contrast, is each frame's own, as with Pillow.
    """
    for operation in operations:
        frames = _apply(frames, operation)
    return frames


def _apply(frames: Tensor, operation: Operation) -> Tensor:
    from kornia import enhance

    name, value = operation
    # Arguments are tensors because kornia copies a number to a GPU in a way that waits for all work before it.
    factor = torch.tensor(value)
    match name:
        case "auto_contrast":
            return _auto_contrast(frames)
        case "equalize":
            return enhance.equalize(frames)
        case "invert":
            return enhance.invert(frames, torch.ones((), device=frames.device))
        case "posterize":
            return enhance.posterize(frames, torch.full((), int(value), device=frames.device))
        case "solarize":
            # A tensor that is filled there: kornia copies a number to the device, and waits for it.
            return enhance.solarize(frames, torch.full((), value, device=frames.device))
        case "solarize_add":  # kornia's additions are for all pixels
            return torch.where(frames < 128 / 255, (frames + value).clamp_(max=1.0), frames)
        case "color":
            return enhance.adjust_saturation_with_gray_subtraction(frames, factor)
        case "contrast":
            return enhance.adjust_contrast_with_mean_subtraction(frames, factor)
        case "brightness":
            return enhance.adjust_brightness_accumulative(frames, factor)
        case "sharpness":
            return enhance.sharpness(frames, value)
        case _:
            return _move(frames, output_to_input(operation, frames.shape[-2], frames.shape[-1]))


def _auto_contrast(frames: Tensor) -> Tensor:
    from kornia import enhance

    low, high = frames.amin((-2, -1), keepdim=True), frames.amax((-2, -1), keepdim=True)  # [T, 3, 1, 1]
    return torch.where(high > low, enhance.normalize_min_max(frames), frames)  # a channel of one value stays


def output_to_input(operation: Operation, height: int, width: int) -> NDArray[np.float64]:
    """Return where a moved frame takes its pixels from, `[3, 3]`: output to input, (x, y, 1), the corner at 0, 0.

    Source: the calls of Pillow in timm: rotation about the center, shears and translations from the corner.
    """
    matrix = np.eye(3)
    name, value = operation
    match name:
        case "shear_x":
            matrix[0, 1] = value
        case "shear_y":
            matrix[1, 0] = value
        case "translate_x":
            matrix[0, 2] = value * width
        case "translate_y":
            matrix[1, 2] = value * height
        case "rotate":
            cosine, sine = math.cos(math.radians(value)), math.sin(math.radians(value))
            center = np.array((width / 2, height / 2))
            matrix[:2, :2] = ((cosine, -sine), (sine, cosine))
            matrix[:2, 2] = center - matrix[:2, :2] @ center
        case _:
            raise AssertionError(f"{name} moves no pixel")
    return matrix


def _move(frames: Tensor, source: NDArray[np.float64]) -> Tensor:
    from kornia.geometry.transform import warp_affine

    half = np.array(((1.0, 0.0, 0.5), (0.0, 1.0, 0.5), (0.0, 0.0, 1.0)))  # pixel centers are at 0 for kornia
    forward = np.linalg.inv(np.linalg.inv(half) @ source @ half)[:2]  # kornia takes input to output
    matrix = torch.from_numpy(forward).float().to(frames.device, non_blocking=True)[None]  # [1, 2, 3]
    fill = torch.full((frames.shape[1],), FILL, device=frames.device)
    size = (frames.shape[-2], frames.shape[-1])
    return warp_affine(frames, matrix, size, mode="bilinear", padding_mode="fill", fill_value=fill)
