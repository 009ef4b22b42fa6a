"""From the uint8 clips of a batch to the floats that a model reads, with the augmentation that is done on the device.

In this order: colour jitter, RandAugment, normalization, random erasing. Crop and flip have been done before, on the
CPU. What is drawn for a clip is a function of (seed, epoch, index, repeat), never of its place in the batch; all
frames of a clip share it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from videomae.data.augment import CropBox
from videomae.data.configs import AugmentConfig
from videomae.data.datasets import SampleKey
from videomae.data.rand_augment import (
    Operation,
    apply_operations,
    draw_color_jitter,
    draw_rand_augment,
    import_kornia,
)
from videomae.engine.compiled import compiled
from videomae.engine.seeding import numpy_generator, torch_generator
from videomae.processing.pixels import normalize

ERASING_TRIES = 100  # draws of a box that fits before a clip stays whole: original VideoMAE fine-tuning


class DeviceAugment:
    """Augments and normalizes batches.

    Args:
        config: What to do; without colour jitter, RandAugment and erasing it is the normalization alone.
        seed: The run's.
        mean: `[C]` float32 on the device, of pixels in [0, 1].
        std: Likewise.
        compiles: Whether the normalization, which reads and writes whole clips, is compiled.

    Raises:
        ConfigError: If the settings need kornia and it is not installed.
    """

    def __init__(
        self, config: AugmentConfig, *, seed: int, mean: Tensor, std: Tensor, compiles: bool = False
    ) -> None:
        import_kornia(config)
        self.config = config
        self.seed = seed
        self.mean = mean
        self.std = std
        self._normalize = compiled(normalize) if compiles else normalize

    def __call__(self, clips: Tensor, keys: Sequence[SampleKey]) -> Tensor:
        """Augment and normalize the clips of a step.

        Args:
            clips: `[B, T, C, H, W]` uint8 on the device of mean and std.
            keys: The B samples that they are.

        Returns:
            `[B, T, C, H, W]` float32.
        """
        if self.config.rand_augment or self.config.color_jitter:
            scaled = clips.float().div_(255)  # [B, T, C, H, W]
            for clip, key in zip(scaled, keys, strict=True):
                operations = self.operations(key)
                if operations:
                    clip.copy_(apply_operations(clip, operations))
            pixels = self._normalize(scaled, self.mean, self.std, one=1.0)
        else:
            pixels = self._normalize(clips, self.mean, self.std)
        if self.config.erasing_prob:
            for clip, key in zip(pixels, keys, strict=True):
                self._erase(clip, key)
        return pixels

    def operations(self, key: SampleKey) -> list[Operation]:
        """Return what is done to the colours and the geometry of a sample's clip."""
        config, found = self.config, []
        if config.color_jitter:
            found += draw_color_jitter(config.color_jitter, rng=numpy_generator(self.seed, *key.parts("jitter")))
        if config.rand_augment:
            found += draw_rand_augment(config, rng=numpy_generator(self.seed, *key.parts("rand_augment")))
        return found

    def _erase(self, clip: Tensor, key: SampleKey) -> None:
        """Write normal noise into one box of all frames of a clip `[T, C, H, W]`, or leave it."""
        height, width = clip.shape[-2:]
        box = erased_box(width, height, config=self.config, rng=numpy_generator(self.seed, *key.parts("erasing")))
        if box is not None:
            generator = torch_generator(self.seed, *key.parts("noise"), device=clip.device)
            cut = clip[..., box.top : box.top + box.height, box.left : box.left + box.width]
            cut.copy_(torch.randn(cut.shape, generator=generator, device=clip.device))


def erased_box(width: int, height: int, *, config: AugmentConfig, rng: np.random.Generator) -> CropBox | None:
    """Draw the box that random erasing fills in all frames of a clip.

    Args:
        width: Of the frames, pixels.
        height: Of the frames, pixels.
        config: How often, and how large: area uniform, aspect log-uniform.
        rng: Source of all draws.

    Returns:
        A box smaller than the frame in both directions; None where nothing is erased.

    Source: random erasing (Zhong et al. 2020) as in timm's `RandomErasing`, in the cube mode of VideoMAE.
    """
    if rng.random() >= config.erasing_prob:
        return None
    least = math.log(config.erasing_min_aspect)
    for _ in range(ERASING_TRIES):
        pixels = width * height * rng.uniform(config.erasing_min_area, config.erasing_max_area)
        aspect = math.exp(rng.uniform(least, -least))
        h, w = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return CropBox(left, top, w, h)
    return None
