"""Clips in memory: generated ones to pre-train on, labelled ones to measure with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.ablations.ways import NUM_FRAMES, POOL_SIZE, SIZE, Way
from experiments.learning.labelled import Labelled, Split, packed_set
from videomae.data.procedural import ProceduralVideos

POOL_CLIPS = 6144
FIXED_CLIPS = 320
HELD_OUT = 1 << 40  # first number of the clips that are never trained on
HELD_OUT_CLIPS = 128


@dataclass(frozen=True)
class Set:
    """A labelled set: clips `[n, T, 3, SIZE, SIZE]` uint8, labels `[n]` int64, one split or one for each fold."""

    name: str
    clips: Tensor
    labels: Tensor
    num_classes: int
    splits: tuple[Split, ...]


def procedural_pool(folder: Path) -> Tensor:
    """Return generated clips `[n, T, 3, POOL_SIZE, POOL_SIZE]` uint8; drawn once and kept in a file."""
    path = folder / "procedural.npy"
    if not path.exists():
        np.save(path, _draw(range(POOL_CLIPS)).numpy())
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def held_out(folder: Path) -> Tensor:
    """Return generated clips that are never trained on, their middle: `[n, T, 3, SIZE, SIZE]` uint8."""
    path = folder / "held_out.npy"
    if not path.exists():
        np.save(path, _draw(range(HELD_OUT, HELD_OUT + HELD_OUT_CLIPS)).numpy())
    return middle(torch.from_numpy(np.load(path)))


def _draw(numbers: range) -> Tensor:
    videos = ProceduralVideos(0, num_frames=2 * NUM_FRAMES, size=POOL_SIZE)
    parts = torch.arange(numbers.start, numbers.stop).split(32)
    return torch.cat([videos.clips(part)[:, ::2] for part in parts])


def middle(clips: Tensor) -> Tensor:
    """Crop the middle SIZE x SIZE."""
    edge = (clips.shape[-1] - SIZE) // 2
    return clips[..., edge : edge + SIZE, edge : edge + SIZE].contiguous()


def labelled(folder: Path, name: str) -> Set:
    """Read the motion set or a packed real one; of each video the middle 16 frames, every second one."""
    if name == "motion":
        with np.load(folder / "motion.npz") as file:
            clips = torch.from_numpy(file["clips"][:, 2:18:2]).permute(0, 1, 4, 2, 3).contiguous()
            roles, labels = file["roles"], torch.from_numpy(file["labels"].astype(np.int64))
        split = Split(*(torch.from_numpy(np.flatnonzero(roles == role)) for role in range(3)))
        return Set(name, clips, labels, int(labels.max()) + 1, (split,))
    packed: Labelled = packed_set(folder / f"{name}.npz", torch.device("cpu"))
    parts = [
        packed.views(rows, augment=False)[:, ::2].round().to(torch.uint8)
        for rows in torch.arange(len(packed.labels)).split(64)
    ]
    return Set(name, torch.cat(parts), packed.labels, len(packed.classes), packed.splits)


def pool_of(way: Way, folder: Path, *, fold: int = 0) -> Tensor:
    """Return the clips that a way trains on: of a labelled set only those of the training folds."""
    if way.pool in ("procedural", "fixed"):
        clips = procedural_pool(folder)
        return clips[:FIXED_CLIPS] if way.pool == "fixed" else clips
    data = labelled(folder, way.pool)
    split = data.splits[fold % len(data.splits)]
    return data.clips[torch.cat((split.train, split.val))]


def views(pool: Tensor, way: Way, generator: torch.Generator) -> Tensor:
    """Draw one batch of training views `[B, T', 3, S, S]` uint8: one crop a batch, perhaps mirrored and reversed."""
    chosen = torch.randint(len(pool), (way.batch_size // way.repeats,), generator=generator)
    clips = pool[chosen][:, :: way.frame_step]
    if way.crops:
        spare = clips.shape[-1] - SIZE + 1
        top, left = torch.randint(spare, (2,), generator=generator).tolist()
        clips = clips[..., top : top + SIZE, left : left + SIZE]
        mirrored, reversed_ = torch.randint(2, (2,), generator=generator).tolist()
        clips = clips.flip(-1) if mirrored else clips
        clips = clips.flip(1) if reversed_ else clips
    else:
        clips = middle(clips)
    return resized(clips, way).repeat_interleave(way.repeats, dim=0)


def resized(clips: Tensor, way: Way) -> Tensor:
    """Resize clips to the size of a way's model."""
    factor = clips.shape[-1] // way.pixels
    if factor == 1:
        return clips
    small = F.avg_pool2d(clips.flatten(0, 1).float(), factor).round().to(torch.uint8)
    return small.view(*clips.shape[:3], *small.shape[-2:])
