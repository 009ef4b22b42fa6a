"""The usual way to pre-train, as a contender: what the original's loader and a plain loop around transformers do.

A worker opens a video with decord, decodes 16 whole frames, makes PIL images of them, crops and resizes each, turns
them into float32 and normalizes them there; float32 goes to the device; the loss is transformers' own. Written anew
from what is known of the original; with PyAV as its documentation shows it where decord2 is not installed.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks.contenders import MASK_RATIO, OPTIMIZER, transformers_model
from benchmarks.readers import plain_pyav
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.presets import IMAGENET_MEAN, IMAGENET_STD

NUM_FRAMES, STRIDE = 16, 4
SCALES = (1.0, 0.875, 0.75, 0.66)  # sides of a crop, of the short side
# Corners in quarters of the free width and height.
CORNERS = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))

Open = Callable[[Path], tuple[int, Callable[[Sequence[int]], NDArray[np.uint8]]]]
"""Opens a video; returns its number of frames, and what reads frames by index, `[T, H, W, 3]` uint8."""


class UsualClips(Dataset[tuple[Tensor, Tensor]]):
    """Clips of videos, `[T, 3, S, S]` float32 normalized, and their masks, `[N]` bool, True = hidden.

    Args:
        videos: Files.
        config: Of the model.
    """

    def __init__(self, videos: Sequence[Path], config: VideoMAEConfig) -> None:
        self.videos = videos
        self.size = config.image_height_width[0]
        self.grid = native_grid(config)
        _, self.open = opener()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        length, read = self.open(self.videos[number])
        first = random.randrange(max(length - NUM_FRAMES * STRIDE + 1, 1))
        frames = read([min(first + STRIDE * place, length - 1) for place in range(NUM_FRAMES)])
        images = multi_scale_crop([Image.fromarray(frame).convert("RGB") for frame in frames], self.size)
        stacked = np.concatenate([np.array(image) for image in images], axis=2)  # [S, S, T * 3]
        clip = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255)
        mean, std = (torch.tensor(one).repeat(NUM_FRAMES)[:, None, None] for one in (IMAGENET_MEAN, IMAGENET_STD))
        clip.sub_(mean).div_(std)
        return clip.view(NUM_FRAMES, 3, self.size, self.size), self.tube_mask()

    def tube_mask(self) -> Tensor:
        """Hide the same places of all frames."""
        places = self.grid.tokens_per_frame
        hidden = np.zeros(places, dtype=bool)
        hidden[: int(MASK_RATIO * places)] = True
        np.random.shuffle(hidden)
        return torch.from_numpy(np.tile(hidden, self.grid.frames))


def multi_scale_crop(images: list[Image.Image], size: int) -> list[Image.Image]:
    """Cut one of four sizes at one of 13 positions out of each image and resize it, bilinear."""
    width, height = images[0].size
    sides = [int(min(width, height) * scale) for scale in SCALES]
    pairs = [(w, h) for i, w in enumerate(sides) for j, h in enumerate(sides) if abs(i - j) <= 1]
    crop_width, crop_height = random.choice(pairs)
    across, down = random.choice(CORNERS)
    left, top = across * ((width - crop_width) // 4), down * ((height - crop_height) // 4)
    cut = [image.crop((left, top, left + crop_width, top + crop_height)) for image in images]
    return [image.resize((size, size), Image.Resampling.BILINEAR) for image in cut]


def opener() -> tuple[str, Open]:
    """Return the reader's name and the reader: decord2's, or PyAV's where that is not installed."""
    try:
        decord: Any = importlib.import_module("decord")
    except (ImportError, OSError):
        return "PyAV", open_with_pyav

    def open_with_decord(path: Path) -> tuple[int, Callable[[Sequence[int]], NDArray[np.uint8]]]:
        reader = decord.VideoReader(str(path), num_threads=1, ctx=decord.cpu(0))
        return len(reader), lambda indices: reader.get_batch(list(indices)).asnumpy()

    return "decord2", open_with_decord


def open_with_pyav(path: Path) -> tuple[int, Callable[[Sequence[int]], NDArray[np.uint8]]]:
    """Count frames by the header, seek to the first one's time and decode forward."""

    def read(indices: Sequence[int]) -> NDArray[np.uint8]:
        return plain_pyav(path, indices, None)

    with av.open(str(path)) as container:
        return container.streams.video[0].frames, read


def train(
    videos: Sequence[Path],
    config: VideoMAEConfig,
    *,
    batch_size: int,
    steps: int,
    workers: int,
    device: torch.device,
    dtype: torch.dtype,
    asked: Callable[[], None],
    got: Callable[[], None],
) -> float:
    """Train as most people do, and return the last loss.

    Args:
        videos: Files.
        config: Of the model.
        batch_size: Clips of a step.
        steps: Of the run.
        workers: Processes that read.
        device: Where the step is computed.
        dtype: bfloat16: under autocast.
        asked: Called before each batch is asked for.
        got: Called when it is there.
    """
    model = transformers_model("VideoMAEForPreTraining", config).to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=OPTIMIZER.base_lr, betas=OPTIMIZER.betas, weight_decay=OPTIMIZER.weight_decay
    )
    clips = UsualClips(videos, config)
    loader = DataLoader(
        clips,
        batch_size=batch_size,
        # One epoch over the run: workers that start anew in each would be a cost that can be avoided.
        sampler=RandomSampler(clips, replacement=True, num_samples=steps * batch_size),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        drop_last=True,
    )
    batches = iter(loader)
    loss = 0.0
    for _ in range(steps):
        asked()
        pixels, hidden = next(batches)
        got()
        pixels, hidden = pixels.to(device, non_blocking=True), hidden.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            error = model(pixels, bool_masked_pos=hidden).loss
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        loss = error.item()
    return loss
