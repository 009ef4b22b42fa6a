"""Procedural clips in the place of files: `procedural:` as the source of a pre-training run.

`procedural:` or `procedural:SEED` names an endless set. An epoch is `CLIPS_AN_EPOCH` clips, and every epoch has new
ones: clip `epoch * CLIPS_AN_EPOCH + index` of the seed. On a GPU the clips are drawn there, so that workers hand over
numbers alone; the distribution is the same (`data/procedural.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from videomae.data.datasets import NO_LABEL, BadVideo, ClipSample, SampleKey
from videomae.data.manifest import Manifest, procedural_seed
from videomae.data.procedural import ProceduralVideos
from videomae.engine.seeding import torch_generator
from videomae.masking import MaskConfig, draw_masks
from videomae.patches import TokenGrid
from videomae.video.sampling import ClipConfig


class ProceduralDataset(Dataset[ClipSample | BadVideo]):
    """Procedural clips with their masks, drawn at the size and length that the model takes, without augmentation.

    Args:
        manifest: Of `procedural:`.
        clip: Frames of a clip; consecutive ones, whatever the stride.
        size: S, side of a clip in pixels.
        mask: How tokens are hidden.
        grid: Token grid of the model for clips of this size.
        seed: Source of the masks; the clips have the source's own.
        device: Of the run. On CUDA a sample's clip has no pixels (`[0]`), and `clips_of` draws the batch's there;
            otherwise clips are drawn on the CPU, by the data worker.

    Raises:
        ConfigError: If the size or the masks do not fit.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        clip: ClipConfig,
        size: int,
        mask: MaskConfig,
        grid: TokenGrid,
        seed: int,
        device: torch.device,
    ) -> None:
        draw_masks(mask, grid, batch=1, generator=torch_generator(seed))  # raises now, not in a worker
        self.manifest = manifest
        self.clip = clip
        self.size = size
        self.mask = mask
        self.grid = grid
        self.seed = seed
        self.drawn_here = device.type != "cuda"
        source_seed = procedural_seed(manifest.root)
        assert source_seed is not None, "a manifest of procedural clips"
        where = torch.device("cpu") if self.drawn_here else device
        self.videos: ProceduralVideos | None = ProceduralVideos(
            source_seed, num_frames=clip.num_frames, size=size, device=where
        )

    def __getstate__(self) -> dict[str, object]:
        """Leave what is on the GPU out of the copies that workers get."""
        return {**self.__dict__, "videos": self.videos if self.drawn_here else None}

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def __getitem__(self, key: SampleKey) -> ClipSample | BadVideo:
        """Draw one sample; what it holds depends on the key and the seeds alone."""
        clip = torch.empty(0, dtype=torch.uint8)
        if self.drawn_here:
            clip = self.clips_of(torch.tensor([key.index]), epoch=key.epoch)[0]
        generator = torch_generator(self.seed, key.epoch, key.index, "mask")
        masks = draw_masks(self.mask, self.grid, batch=1, generator=generator)
        return ClipSample(clip, NO_LABEL, masks.visible[0], masks.decoded[0], key.index)

    def siblings(self, key: SampleKey, *, repeats: int) -> list[ClipSample] | BadVideo:
        """Draw one sample; there are no repeats, for what is not decoded is not decoded once for several."""
        assert repeats == 1, "train/pretrain.py refuses others"
        found = self[key]
        return found if isinstance(found, BadVideo) else [found]

    def blank(self, index: int) -> ClipSample:
        """Never called: every clip can be drawn."""
        raise AssertionError(f"clip {index} could not be drawn")

    def clips_of(self, indices: Tensor, *, epoch: int) -> Tensor:
        """Draw the clips of rows in an epoch.

        Args:
            indices: `[B]` int64, rows of the manifest.
            epoch: Pass over the data set, from 0.

        Returns:
            `[B, T, 3, S, S]` uint8 on the device.
        """
        assert self.videos is not None, "in the main process, or drawn on the CPU"
        return self.videos.clips(indices + epoch * len(self))
