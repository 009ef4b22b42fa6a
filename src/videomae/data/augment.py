"""Random cropping, resizing and flipping of one clip, on the CPU.

Crop boxes are drawn by pure functions of sizes and a generator; all frames of a clip share one box. Resizing and
cropping themselves are the processor's, `processing/pixels.py`, and so is the normalization, which is left to the
device: clips stay uint8 until they are there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.data.configs import AugmentConfig as AugmentConfig
from videomae.processing.pixels import center_crop, output_size, resize

SCALES = (1.0, 0.875, 0.75, 0.66)  # sides of multi-scale crops, of the short side: original VideoMAE pre-training
SNAP_PIXELS = 3  # a crop side closer than this to the output size becomes it, which spares the resizing: likewise
# Corner positions in quarters of the free width and height: center, corners, edges, and halfway between: likewise.
ANCHORS = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))
RESIZED_TRIES = 10  # draws before a resized crop falls back to the center: original VideoMAE fine-tuning
BILINEAR = 2  # PIL's number of the filter
DIRECTION = re.compile(r"(left|right|(counter|anti)?clockwise)(ward|wards)?", flags=re.IGNORECASE)
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # of snake_case, kebab-case, CamelCase and plain text


class CropBox(NamedTuple):
    """A rectangle of pixels inside a frame."""

    left: int
    top: int
    width: int
    height: int


def augment_clip(frames: NDArray[np.uint8], config: AugmentConfig, *, size: int, rng: np.random.Generator) -> Tensor:
    """Crop, resize and perhaps flip a clip as the config says.

    Args:
        frames: `[T, H, W, C]` uint8.
        config: What to draw.
        size: S, side of the result in pixels.
        rng: Source of the box and the flip.

    Returns:
        `[T, C, S, S]` uint8, contiguous.
    """
    height, width = frames.shape[1:3]
    match config.crop:
        case "multi_scale":
            clip = crop_resize(frames, multi_scale_box(width, height, size=size, rng=rng), size=size)
        case "resized":
            area, aspect = (config.min_area, config.max_area), (config.min_aspect, config.max_aspect)
            clip = crop_resize(frames, resized_box(width, height, area=area, aspect=aspect, rng=rng), size=size)
        case "centre":
            clip = resize_centre(frames, size=size)
    if config.flip and rng.random() < 0.5:
        clip = clip.flip(-1)
    return clip


def directed_classes(classes: Sequence[str]) -> list[str]:
    """Return the class names with a word that is another one in a mirror: left, right, clockwise and their kin."""
    return [name for name in classes if any(DIRECTION.fullmatch(word) for word in WORD.findall(name))]


def multi_scale_box(width: int, height: int, *, size: int, rng: np.random.Generator) -> CropBox:
    """Draw a crop whose sides are one of four fractions of the short side, at one of 13 positions.

    Width and height come from neighbouring fractions, so the aspect stays near 1.

    Args:
        width: Of the frame, pixels.
        height: Of the frame, pixels.
        size: Side that the crop will be resized to; a crop within 2 pixels of it takes it exactly.
        rng: Source of the two choices.

    Returns:
        A box inside the frame.

    Source: VideoMAE (Tong et al. 2022) pre-training augmentation. Unlike there, a crop never grows beyond the
    frame, where it would have black edges.
    """
    base = min(width, height)
    sides = []
    for scale in SCALES:
        side = max(int(base * scale), 1)
        sides.append(size if abs(side - size) < SNAP_PIXELS and size <= base else side)
    pairs = [(i, j) for i in range(len(SCALES)) for j in range(len(SCALES)) if abs(i - j) <= 1]
    i, j = pairs[int(rng.integers(len(pairs)))]
    across, down = ANCHORS[int(rng.integers(len(ANCHORS)))]
    left, top = across * ((width - sides[i]) // 4), down * ((height - sides[j]) // 4)
    return CropBox(left, top, sides[i], sides[j])


def resized_box(
    width: int,
    height: int,
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
    rng: np.random.Generator,
) -> CropBox:
    """Draw a crop of random area, uniform, and random aspect, log-uniform.

    Args:
        width: Of the frame, pixels.
        height: Of the frame, pixels.
        area: Smallest and largest area as fractions of the frame.
        aspect: Smallest and largest width / height.
        rng: Source of all draws.

    Returns:
        A box inside the frame; after 10 draws that do not fit, the largest centered one of allowed aspect.

    Source: VideoMAE (Tong et al. 2022) fine-tuning augmentation.
    """
    for _ in range(RESIZED_TRIES):
        pixels = width * height * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return CropBox(left, top, w, h)
    ratio = min(max(width / height, aspect[0]), aspect[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return centre_box(width, height, crop_width=max(w, 1), crop_height=max(h, 1))


def centre_box(width: int, height: int, *, crop_width: int, crop_height: int) -> CropBox:
    """Return the box of a given size in the middle of a frame; half a pixel goes to the left and upper edge."""
    return CropBox((width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height)


def crop_resize(frames: NDArray[np.uint8], box: CropBox, *, size: int) -> Tensor:
    """Cut a box out of every frame and resize it, bilinear with antialiasing.

    Args:
        frames: `[T, H, W, C]` uint8.
        box: Inside the frames.
        size: S, side of the result in pixels.

    Returns:
        `[T, C, S, S]` uint8, contiguous.

    Source: as in original pre-training (PIL); original fine-tuning does not antialias, which this package does.
    """
    left, top, width, height = box
    clip = _channels_first(frames[:, top : top + height, left : left + width])
    return resize(clip, (size, size), BILINEAR).contiguous()


def resize_centre(frames: NDArray[np.uint8], *, size: int) -> Tensor:
    """Resize so that the short side is `size`, then crop the center, as the image processor does.

    Args:
        frames: `[T, H, W, C]` uint8.
        size: S, side of the result in pixels.

    Returns:
        `[T, C, S, S]` uint8, contiguous.
    """
    height, width = frames.shape[1:3]
    target = output_size(height, width, {"shortest_edge": size})
    return center_crop(resize(_channels_first(frames), target, BILINEAR), size, size).contiguous()


def _channels_first(frames: NDArray[np.uint8]) -> Tensor:
    """Turn `[T, H, W, C]` frames into a tensor `[T, C, H, W]` whose memory stays in the first order.

    With the channels innermost in memory, torch resizes uint8 frames by its fast path.
    """
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)  # [T, C, H, W]
