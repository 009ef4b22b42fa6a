"""Failures, planted into runs that would be healthy without them: in the videos, the settings or the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.monitor.settings import ADAMW, PIXELS, VIDEO_FRAMES, XAVIER
from videomae.data import datasets
from videomae.masking import MaskIndices, draw_masks
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import TokenGrid
from videomae.video.decode import VideoReader
from videomae.video.write import write_video

Frames = NDArray[np.uint8]
LONG = ("--schedule.steps", "8000")  # a plateau can be judged after 10,000 clips
Change = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Failure:
    """One planted failure."""

    name: str
    """What is done."""
    alarm: str
    """The alarm that should say so."""
    words: tuple[str, ...] = ()
    """Settings that differ."""
    data: Change | None = None
    """Makes the folder of videos from a sound one."""
    model: type[VideoMAEForPreTraining] = VideoMAEForPreTraining
    """What is trained."""
    overlap: bool = False
    """Let the data set decode tokens that are visible."""


# ---- videos ------------------------------------------------------------------------------------------------------


def rewritten(change: Callable[[Frames, int, np.random.Generator], Frames | None]) -> Change:
    """Return what writes every video of a folder again, changed; None keeps the file as it is."""

    def make(source: Path, target: Path) -> None:
        rng = np.random.default_rng(9)
        for number, path in enumerate(sorted(source.rglob("*.mp4"))):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            with VideoReader(path) as reader:
                frames = change(reader.frames(range(len(reader))), number, rng)
            if frames is None:
                shutil.copyfile(path, place)
            else:
                write_video(place, np.ascontiguousarray(frames))

    return make


def black(frames: Frames, number: int, rng: np.random.Generator) -> Frames | None:
    """Blacken a quarter of the videos."""
    return np.zeros_like(frames) if number % 4 == 0 else None


def frozen(frames: Frames, number: int, rng: np.random.Generator) -> Frames | None:
    """Stop three quarters of the videos at their first frame."""
    return np.repeat(frames[:1], len(frames), axis=0) if number % 4 else None


def shuffled(frames: Frames, number: int, rng: np.random.Generator) -> Frames:
    """Put the frames of every video in a random order."""
    return frames[rng.permutation(len(frames))]


def noise(frames: Frames, number: int, rng: np.random.Generator) -> Frames:
    """Replace every frame by noise in blocks, which compression keeps."""
    small = rng.integers(0, 256, (len(frames), 8, 8, 3), dtype=np.uint8)
    return small.repeat(frames.shape[1] // 8, axis=1).repeat(frames.shape[2] // 8, axis=2)


def barely_moving(frames: Frames, number: int, rng: np.random.Generator) -> Frames:
    """Keep the first frame and a tenth of all changes: enough for no video to stand still."""
    first = frames[:1].astype(np.float32)
    return np.clip(first + 0.1 * (frames - first), 0, 255).astype(np.uint8)


def copied(source: Path, target: Path) -> None:
    """Copy 40 videos eight times."""
    target.mkdir(parents=True)
    paths = sorted(source.rglob("*.mp4"))
    for number, path in enumerate(paths[:: len(paths) // 40][:40]):
        for copy in range(8):
            shutil.copyfile(path, target / f"video{number:03}{chr(97 + copy)}x.mp4")


def compressed_again(source: Path, target: Path) -> None:
    """Write 40 videos eight times, in a slightly different color, so that no two files are equal."""
    target.mkdir(parents=True)
    paths = sorted(source.rglob("*.mp4"))
    for number, path in enumerate(paths[:: len(paths) // 40][:40]):
        with VideoReader(path) as reader:
            frames = reader.frames(range(VIDEO_FRAMES))
        for copy in range(8):
            tint = np.array([copy & 1, copy >> 1 & 1, copy >> 2 & 1], dtype=np.uint8)
            write_video(target / f"video{number:03}{chr(97 + copy)}x.mp4", np.minimum(frames, 254) + tint)


def few(count: int) -> Change:
    """Return what keeps so many videos."""

    def make(source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        paths = sorted(source.rglob("*.mp4"))
        for number, path in enumerate(paths[:: len(paths) // count][:count]):
            shutil.copyfile(path, target / f"{number:04}x.mp4")

    return make


@contextmanager
def overlapping_masks() -> Iterator[None]:
    """Let the data set decode the first visible tokens of each clip too."""

    def drawn(*arguments: Any, **options: Any) -> MaskIndices:
        masks = draw_masks(*arguments, **options)
        count = min(4, masks.visible.shape[1])
        return MaskIndices(masks.visible, torch.cat((masks.visible[:, :count], masks.decoded[:, count:]), dim=1))

    with patch.object(datasets, "draw_masks", drawn):
        yield


# ---- models ------------------------------------------------------------------------------------------------------


class SeesAll(VideoMAEForPreTraining):
    """Gives the decoder the encoded hidden tokens beside the visible ones."""

    def forward(self, pixel_values: Tensor, *arguments: Any, **options: Any) -> Any:
        """Do so."""
        self.seen = pixel_values
        return super().forward(pixel_values, *arguments, **options)

    def decode(self, encoded: Tensor, visible_indices: Tensor, decoded_indices: Tensor, grid: TokenGrid) -> Tensor:
        """Do so."""
        more = self.videomae(self.seen, visible_indices=decoded_indices).last_hidden_state
        both = torch.cat((visible_indices, decoded_indices), dim=1)
        return super().decode(torch.cat((encoded, more), dim=1), both, decoded_indices, grid)


class SwappedTargets(VideoMAEForPreTraining):
    """Predicts the hidden tokens of another clip of the batch."""

    def targets(self, pixel_values: Tensor, decoded_indices: Tensor) -> Tensor:
        """Do so."""
        return super().targets(pixel_values.roll(1, dims=0), decoded_indices)


class ScaledTwice(VideoMAEForPreTraining):
    """Divides normalized pixels by 255."""

    def forward(self, pixel_values: Tensor, *arguments: Any, **options: Any) -> Any:
        """Do so."""
        return super().forward(pixel_values / 255.0, *arguments, **options)


class DeadNorm(VideoMAEForPreTraining):
    """Starts with a final encoder norm whose weights are zero and stay there."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        norm = self.videomae.layernorm
        assert norm is not None
        nn.init.zeros_(norm.weight)
        norm.weight.requires_grad_(False)


class _Line(nn.Module):
    """A norm whose output lies along one line."""

    def __init__(self, norm: nn.Module, width: int) -> None:
        super().__init__()
        self.norm = norm
        self.direction: Tensor
        self.register_buffer("direction", nn.functional.normalize(torch.linspace(-1, 1, width), dim=0) * width**0.5)

    def forward(self, states: Tensor) -> Tensor:
        """Project."""
        along: Tensor = self.norm(states) @ self.direction / self.direction.numel()
        return along[..., None] * self.direction


class OneDirection(VideoMAEForPreTraining):
    """Has an encoder whose features lie along one line."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        assert self.videomae.layernorm is not None
        self.videomae.layernorm = _Line(self.videomae.layernorm, config.hidden_size)  # type: ignore[assignment]


class Blind(VideoMAEForPreTraining):
    """Has an encoder that embeds positions and nothing of the pixels."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        projection = self.videomae.embeddings.patch_embeddings.projection
        nn.init.zeros_(projection.weight)
        projection.weight.requires_grad_(False)


FAILURES = (
    Failure("targets of another clip", "not learning", LONG, model=SwappedTargets),
    Failure(
        "Xavier decoder, AdamW, normalized targets, mask 0.9",
        "not learning",
        (*ADAMW, *XAVIER, *LONG, "--mask.ratio", "0.9"),
    ),
    Failure("the encoder is given the hidden tokens", "leaking mask", model=SeesAll),
    Failure("visible tokens are decoded", "leaking mask", overlap=True),
    Failure(
        "whole slices hidden in clips that barely move",
        "leaking mask",
        ("--mask.kind", "frame", "--mask.ratio", "0.5", *PIXELS),
        rewritten(barely_moving),
    ),
    Failure("a quarter of the videos black", "constant clips", data=rewritten(black)),
    Failure("three quarters of the videos frozen", "constant clips", data=rewritten(frozen)),
    Failure("40 videos, each copied eight times", "duplicated clips", data=copied),
    Failure("40 videos, each compressed eight times", "duplicated clips", data=compressed_again),
    Failure("frames of every video shuffled", "shuffled frames", data=rewritten(shuffled)),
    Failure("noise instead of frames", "shuffled frames", data=rewritten(noise)),
    Failure("Muon, both rates x 30", "learning rate too high", ("--optim.base_lr", "0.9", "--optim.muon_lr", "4.8")),
    Failure("AdamW, rate x 30", "learning rate too high", (*PIXELS, *ADAMW, "--optim.base_lr", "0.96")),
    Failure(
        "Muon, both rates / 1000",
        "learning rate too low",
        ("--optim.base_lr", "3e-5", "--optim.min_lr", "0", "--optim.muon_lr", "1.6e-4"),
    ),
    Failure(
        "AdamW, rate / 1000",
        "learning rate too low",
        (*PIXELS, *ADAMW, "--optim.base_lr", "3.2e-5", "--optim.min_lr", "0"),
    ),
    Failure("pixels scaled twice", "dead normalization", model=ScaledTwice),
    Failure("final norm of the encoder zero", "dead normalization", model=DeadNorm),
    Failure("features along one line", "collapsed features", model=OneDirection),
    Failure("an encoder blind to pixels", "collapsed features", model=Blind),
    Failure(
        "8 videos to train on, 8,000 steps",
        "over-fitting",
        (*LONG, "--monitor.held_out", "0.34", "--augment.crop", "centre"),
        few(12),
    ),
)
