"""Procedural clips in the place of files: `procedural:` as the source of a pre-training run, and written as videos.

`procedural:` or `procedural:SEED` names an endless set. An epoch is `CLIPS_AN_EPOCH` clips, and every epoch has new
ones: clip `epoch * CLIPS_AN_EPOCH + index` of the seed. On a GPU the clips are drawn there, so that workers hand over
numbers alone; the distribution is the same (`data/procedural.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from videomae.data.configs import GenerateConfig, GeneratedKind
from videomae.data.datasets import NO_LABEL, BadVideo, ClipSample, SampleKey
from videomae.data.manifest import PROCEDURAL, Manifest, procedural_seed
from videomae.data.procedural import ProceduralVideos
from videomae.data.synthetic import MOTION_CLASSES, refuse_other_videos, write_motion_videos
from videomae.engine.progress import TrainingProgress
from videomae.engine.seeding import torch_generator
from videomae.errors import ConfigError
from videomae.masking import MaskConfig, draw_masks
from videomae.patches import TokenGrid
from videomae.video.sampling import ClipConfig
from videomae.video.write import write_video

FRAME_RATE = 15


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


def write_procedural_videos(
    folder: str | os.PathLike[str],
    *,
    videos: int,
    size: int = 64,
    num_frames: int = 32,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `folder/procedural_<number>.mp4`; video `i` is clip `i` of the seed.

    Files that the same call would write are replaced; any other video in the folder is an error.

    Args:
        folder: Where to write; made if missing.
        videos: At least 1.
        size: Height and width in pixels, even (H.264) and at least 16.
        num_frames: Frames of each video, at 15 in a second.
        seed: Another seed, other videos.
        on_progress: Called after each video with (written, total).

    Raises:
        ConfigError: If a number is out of range.
        ManifestError: If the folder holds other videos.
    """
    if videos < 1:
        raise ConfigError(f"videos is {videos}; it must be at least 1")
    if size % 2:
        raise ConfigError(f"size is {size} pixels; a video file needs an even size")
    drawn = ProceduralVideos(seed, num_frames=num_frames, size=size)
    root = Path(folder)
    paths = [root / f"{PROCEDURAL.rstrip(':')}_{number:06d}.mp4" for number in range(videos)]
    refuse_other_videos(root, set(paths))
    root.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        (clip,) = drawn.clips(torch.tensor([number]))  # [T, 3, S, S]
        write_video(path, clip.permute(0, 2, 3, 1).numpy(), frame_rate=FRAME_RATE)
        if on_progress is not None:
            on_progress(number + 1, videos)


def generate_videos(kind: GeneratedKind, folder: str | os.PathLike[str], config: GenerateConfig) -> int:
    """Write generated videos, with a progress line.

    Args:
        kind: Procedural videos, or the motion set, in a folder for each class.
        folder: Where to write; made if missing.
        config: How many, and of what size.

    Returns:
        The number of videos.

    Raises:
        ConfigError: If a number is out of range.
        ManifestError: If the folder holds other videos.
    """
    per_class = -(-config.videos // len(MOTION_CLASSES))
    total = config.videos if kind == "procedural" else per_class * len(MOTION_CLASSES)
    with TrainingProgress("writing videos", total_steps=max(total, 1)) as progress:
        settings: dict[str, Any] = {
            "size": config.size,
            "num_frames": config.num_frames,
            "seed": config.seed,
            "on_progress": lambda number, _: progress.update(number, num_clips=1),
        }
        if kind == "procedural":
            write_procedural_videos(folder, videos=config.videos, **settings)
        else:
            write_motion_videos(folder, videos_per_class=per_class, **settings)
    return total
