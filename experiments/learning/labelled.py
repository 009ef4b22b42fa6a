"""Labelled clips in device memory: the motion set and packed real videos, and the views that are taken of them."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.learning.settings import NUM_FRAMES, SIZE

MOTION_TRAIN, MOTION_VAL, MOTION_TEST = 60, 20, 64  # clips of each class
FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Row numbers of one split, int64 on the CPU."""

    train: Tensor
    val: Tensor
    test: Tensor


@dataclass(frozen=True)
class Labelled:
    """A labelled data set."""

    name: str
    clips: Tensor
    """`[n, F, 3, S, S]` uint8; F may be more than a clip needs."""
    frames: Tensor
    """`[n]` int64, frames that each clip really has."""
    labels: Tensor
    """`[n]` int64."""
    classes: tuple[str, ...]
    splits: tuple[Split, ...]
    """One, or one for each fold."""
    crops: bool
    """Whether training views are cropped and mirrored."""

    def views(self, rows: Tensor, *, augment: bool) -> Tensor:
        """Return clips `[B, 16, 3, 64, 64]` float32 in 0..255: the middle and the whole frame, or random ones."""
        device = self.clips.device
        B = len(rows)
        spare = (self.frames[rows] - NUM_FRAMES).clamp_min(0)
        moment = torch.rand(B, device=device) if augment else torch.full((B,), 0.5, device=device)
        start = (moment * (spare + 1)).long().clamp_max(spare)
        times = start[:, None] + torch.arange(NUM_FRAMES, device=device)
        times = torch.minimum(times, self.frames[rows][:, None] - 1)
        clips = self.clips[rows[:, None], times].float()  # [B, T, 3, S, S]
        if clips.shape[-1] == SIZE and not (augment and self.crops):
            return clips
        scale = torch.ones(B, device=device)
        flip = torch.ones(B, device=device)
        shift = torch.zeros(2, B, device=device)
        if augment and self.crops:
            scale = 0.7 + 0.3 * torch.rand(B, device=device)
            flip = 1.0 - 2.0 * torch.randint(2, (B,), device=device)
            shift = (torch.rand(2, B, device=device) * 2 - 1) * (1 - scale)
        zero = torch.zeros_like(scale)
        theta = torch.stack((scale * flip, zero, shift[0], zero, scale, shift[1]), dim=1).view(B, 2, 3)
        grid = F.affine_grid(theta, [B, 1, SIZE, SIZE], align_corners=False)
        flat = clips.flatten(1, 2)
        seen = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)
        views: Tensor = seen.unflatten(1, (NUM_FRAMES, 3))
        return views


def motion_set(path: Path, device: torch.device) -> Labelled:
    """Read the motion set that `make_motion.py` wrote."""
    with np.load(path) as file:
        clips, labels, roles = file["clips"], file["labels"], file["roles"]
        classes = tuple(map(str, file["classes"]))
    split = Split(*(torch.from_numpy(np.flatnonzero(roles == role)) for role in range(3)))
    return Labelled(
        "motion",
        torch.from_numpy(clips).permute(0, 1, 4, 2, 3).contiguous().to(device),
        torch.full((len(clips),), clips.shape[1], device=device),
        torch.from_numpy(labels.astype(np.int64)).to(device),
        classes,
        (split,),
        crops=False,
    )


def packed_set(path: Path, device: torch.device) -> Labelled:
    """Read what `prepare_clips.py` wrote; of five folds one is to test, the next to choose, three are to train on."""
    from PIL import Image

    with np.load(path) as file:
        data, lengths, frames = file["data"], file["lengths"], file["frames"].astype(np.int64)
        labels, folds, classes = file["labels"].astype(np.int64), file["folds"], tuple(map(str, file["classes"]))
    starts = np.concatenate([[0], np.cumsum(lengths)])

    def decode(number: int) -> np.ndarray:
        with Image.open(io.BytesIO(data[starts[number] : starts[number + 1]].tobytes())) as image:
            return np.asarray(image)

    with ThreadPoolExecutor(8) as threads:
        images = list(threads.map(decode, range(len(lengths))))
    first = np.concatenate([[0], np.cumsum(frames)])
    clips = np.zeros((len(frames), int(frames.max()), *images[0].shape), np.uint8)
    for number in range(len(frames)):
        clips[number, : frames[number]] = np.stack(images[first[number] : first[number + 1]])
    splits = []
    for fold in range(FOLDS):
        val = (fold + 1) % FOLDS
        roles = (~np.isin(folds, (fold, val)), folds == val, folds == fold)
        splits.append(Split(*(torch.from_numpy(np.flatnonzero(role)) for role in roles)))
    return Labelled(
        path.stem,
        torch.from_numpy(clips).permute(0, 1, 4, 2, 3).contiguous().to(device),
        torch.from_numpy(frames).to(device),
        torch.from_numpy(labels).to(device),
        classes,
        tuple(splits),
        crops=True,
    )


def few(data: Labelled, rows: Tensor, per_class: int | None, *, seed: int) -> Tensor:
    """Choose up to `per_class` rows of each class at random; None: all."""
    if per_class is None:
        return rows
    labels = data.labels.cpu()[rows]
    generator = torch.Generator().manual_seed(1000 + seed)
    chosen = []
    for label in range(len(data.classes)):
        mine = rows[labels == label]
        chosen.append(mine[torch.randperm(len(mine), generator=generator)[:per_class]])
    return torch.cat(chosen)
