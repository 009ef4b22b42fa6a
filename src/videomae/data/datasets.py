"""From a row of a manifest to one training sample: read, crop, and in pre-training mask.

Every random draw comes from (seed, epoch, index, purpose) and from nothing else, so a sample is the same in any
process, in any order, and after a resume. A video that cannot be read becomes a `BadVideo`, never another video.

Repeated augmentation: several samples from one decoding. They share their frames and differ in crop, flip and mask.
Source: Hoffer et al. 2020, "Augment your batch"; `num_sample` of the original VideoMAE.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from videomae.data.augment import AugmentConfig, augment_clip
from videomae.data.manifest import Manifest
from videomae.data.samples import NO_LABEL as NO_LABEL
from videomae.data.samples import BadVideo as BadVideo
from videomae.data.samples import ClipSample as ClipSample
from videomae.data.samples import SampleKey as SampleKey
from videomae.engine.seeding import numpy_generator, torch_generator
from videomae.errors import ConfigError, VideoReadError
from videomae.masking import MaskConfig, draw_masks
from videomae.patches import TokenGrid
from videomae.video.decoders import DecoderName
from videomae.video.opening import Reader, open_reader
from videomae.video.sampling import ClipConfig, IntArray, finetuning_clip, pretraining_clip

MAX_OVERSIZE = 4  # times the size of clips that the shorter side of a frame may have when it is cropped


class PretrainingDataset(Dataset[ClipSample | BadVideo]):
    """Random clips with their masks; labels are ignored."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        clip: ClipConfig,
        size: int,
        augment: AugmentConfig,
        mask: MaskConfig,
        grid: TokenGrid,
        seed: int,
        decoder: DecoderName = "pyav",
    ) -> None:
        """Check what can be checked before the first video is read.

        Args:
            manifest: The videos.
            clip: Frames of a clip.
            size: S, side of a clip in pixels.
            augment: How clips are cropped and flipped.
            mask: How tokens are hidden.
            grid: Token grid of the model for clips of this size.
            seed: Source of all randomness.
            decoder: What decodes videos.

        Raises:
            ConfigError: If the size is not positive, or the masks do not fit the grid.
        """
        _check_size(size)
        draw_masks(mask, grid, batch=1, generator=torch_generator(seed))  # raises now, not in a worker
        self.manifest = manifest
        self._store = manifest.index_store()
        self.clip = clip
        self.size = size
        self.augment = augment
        self.mask = mask
        self.grid = grid
        self.seed = seed
        self.decoder: DecoderName = decoder

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def __getitem__(self, key: SampleKey) -> ClipSample | BadVideo:
        """Read one sample; what it holds depends on the key and the seed alone."""
        found = self.siblings(key, repeats=1)
        return found if isinstance(found, BadVideo) else found[0]

    def siblings(self, key: SampleKey, *, repeats: int) -> list[ClipSample] | BadVideo:
        """Read a video once and cut several samples from its frames, those of `key` and of the repeats after it."""
        path = str(self.manifest.rows[key.index].source)
        try:
            with open_reader(path, store=self._store, fps=self.clip.fps, decoder=self.decoder) as reader:
                rng = numpy_generator(self.seed, key.epoch, key.index, "clip")
                frames = _frames(reader, pretraining_clip(len(reader), self.clip, rng=rng), size=self.size)
        except VideoReadError as error:
            return BadVideo(path, str(error))
        return [self._sample(frames, one) for one in repeated(key, repeats)]

    def _sample(self, frames: NDArray[np.uint8], key: SampleKey) -> ClipSample:
        clip = _augment(frames, self.augment, size=self.size, seed=self.seed, key=key)
        generator = torch_generator(self.seed, *key.parts("mask"))
        masks = draw_masks(self.mask, self.grid, batch=1, generator=generator)
        return ClipSample(clip, NO_LABEL, masks.visible[0], masks.decoded[0], key.index)

    def blank(self, index: int) -> ClipSample:
        """Return a black clip that stands where a video cannot be read; its reconstruction does not count.

        All that its decoder is asked for is one visible token, and the loss counts hidden tokens alone.
        """
        masks = draw_masks(self.mask, self.grid, batch=1, generator=torch_generator(self.seed))
        (visible,) = masks.visible
        decoded = visible[:1].expand(masks.decoded.shape[1]).clone()  # [M]
        return ClipSample(_black(self.clip, self.size), NO_LABEL, visible, decoded, index)


class FinetuningDataset(Dataset[ClipSample | BadVideo]):
    """Random clips with their class ids; what else is right for a video, `data.targets` tells by its row."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        clip: ClipConfig,
        size: int,
        augment: AugmentConfig,
        seed: int,
        decoder: DecoderName = "pyav",
    ) -> None:
        """Check what can be checked before the first video is read.

        Args:
            manifest: The videos.
            clip: Frames of a clip.
            size: S, side of a clip in pixels.
            augment: How clips are cropped and flipped.
            seed: Source of all randomness.
            decoder: What decodes videos.

        Raises:
            ConfigError: If the size is not positive.
        """
        _check_size(size)
        self.manifest = manifest
        self._store = manifest.index_store()
        self.clip = clip
        self.size = size
        self.augment = augment
        self.seed = seed
        self.decoder: DecoderName = decoder

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def __getitem__(self, key: SampleKey) -> ClipSample | BadVideo:
        """Read one sample; what it holds depends on the key and the seed alone."""
        found = self.siblings(key, repeats=1)
        return found if isinstance(found, BadVideo) else found[0]

    def siblings(self, key: SampleKey, *, repeats: int) -> list[ClipSample] | BadVideo:
        """Read a video once and cut several samples from its frames, those of `key` and of the repeats after it."""
        row = self.manifest.rows[key.index]
        try:
            with open_reader(row.source, store=self._store, fps=self.clip.fps, decoder=self.decoder) as reader:
                rng = numpy_generator(self.seed, *key.video_parts("clip"))
                frames = _frames(reader, finetuning_clip(len(reader), self.clip, rng=rng), size=self.size)
        except VideoReadError as error:
            return BadVideo(str(row.source), str(error))
        clips = [
            _augment(frames, self.augment, size=self.size, seed=self.seed, key=one) for one in repeated(key, repeats)
        ]
        label = NO_LABEL if row.label is None else row.label
        return [ClipSample(clip, label, None, None, key.index) for clip in clips]

    def blank(self, index: int) -> ClipSample:
        """Return a black clip that stands where a video cannot be read; it has no label."""
        return ClipSample(_black(self.clip, self.size), NO_LABEL, None, None, index)


def repeated(key: SampleKey, repeats: int) -> list[SampleKey]:
    """Return the keys of the samples that are cut from one decoding, from `key` on."""
    return [replace(key, repeat=key.repeat + number) for number in range(repeats)]


def _black(clip: ClipConfig, size: int) -> Tensor:
    return torch.zeros(clip.num_frames, 3, size, size, dtype=torch.uint8)


def _frames(reader: Reader, indices: IntArray, *, size: int) -> NDArray[np.uint8]:
    """Read the frames of a clip; those of a much larger video than needed scaled down while they are decoded.

    A clip of 16 frames of 4K has 400 MB, and the smallest random crops are a quarter of a side.
    """
    height, width = reader.info.height, reader.info.width
    scale = MAX_OVERSIZE * size / min(height, width)
    if scale >= 1:
        return reader.frames(indices)
    return reader.frames(indices, size=(round(height * scale), round(width * scale)))


def _augment(
    frames: NDArray[np.uint8],
    augment: AugmentConfig,
    *,
    size: int,
    seed: int,
    key: SampleKey,
) -> Tensor:
    rng = numpy_generator(seed, *key.parts("augment"))
    return augment_clip(frames, augment, size=size, rng=rng)


def _check_size(size: int) -> None:
    if size < 1:
        raise ConfigError(f"the clip size is {size} pixels; it must be at least 1")
