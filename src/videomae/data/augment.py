"""Cropping, resizing and flipping of one clip on the CPU, and normalisation of a batch on the device.

Crop boxes are drawn by pure functions of sizes and a generator; all frames of a clip share one box. Clips stay uint8
until they are on the device. Knows nothing of files and labels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from videomae.data.configs import AugmentConfig as AugmentConfig

SCALES = (1.0, 0.875, 0.75, 0.66)  # sides of multi-scale crops, of the short side: original VideoMAE pre-training
SNAP_PIXELS = 3  # a crop side closer than this to the output size becomes it, which spares the resizing: likewise
# Corner positions in quarters of the free width and height: centre, corners, edges, and halfway between: likewise.
ANCHORS = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))
RESIZED_TRIES = 10  # draws before a resized crop falls back to the centre: original VideoMAE fine-tuning


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


def multi_scale_box(width: int, height: int, *, size: int, rng: np.random.Generator) -> CropBox:
    """Draw a crop whose sides are one of four fractions of the short side, at one of 13 places.

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
        A box inside the frame; after 10 draws that do not fit, the largest centred one of allowed aspect.

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
    return _resize(frames[:, top : top + height, left : left + width], size, size)


def resize_centre(frames: NDArray[np.uint8], *, size: int) -> Tensor:
    """Resize so that the short side is `size`, then keep the middle: the view of the image processor.

    Args:
        frames: `[T, H, W, C]` uint8.
        size: S, side of the result in pixels.

    Returns:
        `[T, C, S, S]` uint8, contiguous.
    """
    height, width = frames.shape[1:3]
    short = min(height, width)
    resized_height, resized_width = height * size // short, width * size // short
    left, top, _, _ = centre_box(resized_width, resized_height, crop_width=size, crop_height=size)
    resized = _resize(frames, resized_height, resized_width)
    return resized[:, :, top : top + size, left : left + size].contiguous()


def _resize(frames: NDArray[np.uint8], height: int, width: int) -> Tensor:
    """Turn `[T, H, W, C]` uint8 frames into a resized, contiguous `[T, C, height, width]` tensor."""
    clip = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)  # [T, C, H, W]
    if clip.shape[-2:] != (height, width):
        # Channels still lie innermost in memory: torch's fast path for uint8.
        clip = F.interpolate(clip, size=(height, width), mode="bilinear", antialias=True)
    return clip.contiguous()


def normalize(clips: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Turn uint8 pixels into the floats that the model reads; runs on the device that the clips are on.

    Args:
        clips: `[B, T, C, H, W]` uint8.
        mean: `[C]` float, of pixels scaled to [0, 1].
        std: `[C]` float, likewise.

    Returns:
        `[B, T, C, H, W]` float32: `(clips / 255 - mean) / std`.
    """
    # The order of operations is the image processor's, so that training and prediction see equal floats.
    mean_255, std_255 = (mean * 255.0).view(-1, 1, 1), (std * 255.0).view(-1, 1, 1)
    return (clips - mean_255).div_(std_255)
