"""Does the shipped model degrade on longer clips and heavier masks than it was trained on?

    python -m experiments.learning.stretched DATA

DATA holds fight.npz and drone_infrared.npz of `experiments/prepare_clips.py`. Prints a table: the error of the model
and of the best Gaussian interpolation, their difference, paired by clip, with a 95 % bootstrap interval. Positions
of longer and shorter clips are interpolated, as everywhere in the package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.learning.labelled import packed_set
from experiments.learning.settings import NUM_FRAMES, SIZE, normalized
from videomae.data.procedural import ProceduralVideos
from videomae.evaluation.uncertainty import group_draws, percentiles
from videomae.masking import MaskConfig, draw_masks
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.monitor.baselines import SIGMAS, gaussian_interpolation
from videomae.patches import (
    complement,
    denormalize_patches,
    gather_tokens,
    interpolated_statistics,
    patchify,
    token_grid,
)

RATIOS = (0.5, 0.75, 0.9, 0.95)
LENGTHS = (8, NUM_FRAMES, 32)
CLIPS = 64
HELD_OUT = 1 << 40  # numbers of procedural clips that were never trained on


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    model = VideoMAEForPreTraining.from_pretrained("default").float().eval()
    sets = {"procedural": procedural(), **{name: real(options.data, name) for name in ("fight", "drone_infrared")}}
    print("set | frames | mask | model | interpolation | difference")
    for name, clips in sets.items():
        for frames, ratio in [(NUM_FRAMES, ratio) for ratio in RATIOS] + [(frames, 0.75) for frames in LENGTHS]:
            own, other = errors(model, middle(clips, frames), MaskConfig(ratio=ratio))
            difference = group_draws((own - other)[None], np.arange(len(own)), rng=np.random.default_rng(0))[:, 0]
            interval = percentiles(difference)
            print(
                f"{name} | {frames} | {ratio} | {own.mean():.3f} | {other.mean():.3f} | "
                f"{(own - other).mean():+.3f} ({interval.low:+.3f} to {interval.high:+.3f})",
                flush=True,
            )


def procedural() -> Tensor:
    """Return unseen generated clips of 32 frames, uint8 `[n, 32, 3, S, S]`."""
    return ProceduralVideos(0, num_frames=max(LENGTHS), size=SIZE).clips(torch.arange(HELD_OUT, HELD_OUT + CLIPS))


def real(folder: Path, name: str) -> Tensor:
    """Return real clips of 32 frames, of those that have as many, uint8."""
    data = packed_set(folder / f"{name}.npz", torch.device("cpu"))
    rows = torch.nonzero(data.frames >= max(LENGTHS))[:, 0]
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:CLIPS]]
    clips = data.clips[rows].float()
    small = torch.nn.functional.interpolate(clips.flatten(0, 1), size=(SIZE, SIZE), mode="area")
    return small.round().to(torch.uint8).view(*clips.shape[:3], SIZE, SIZE)


def middle(clips: Tensor, frames: int) -> Tensor:
    """Return the middle frames."""
    first = (clips.shape[1] - frames) // 2
    return clips[:, first : first + frames]


@torch.no_grad()
def errors(model: VideoMAEForPreTraining, clips: Tensor, mask: MaskConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return `fvu` of each clip: squared error of hidden pixels over that of the clip's mean visible color.

    The first is the model's, with statistics interpolated from visible tubelets; the second that of the Gaussian
    interpolation whose width is best for these clips.
    """
    grid = token_grid(clips.shape[1], SIZE, SIZE, model.tubelet)
    generator = torch.Generator().manual_seed(1)
    own, others = [], {sigma: list[Tensor]() for sigma in SIGMAS}
    for part in clips.split(16):
        visible = draw_masks(mask, grid, batch=len(part), generator=generator).visible
        truth = patchify(part.float() / 255.0, model.tubelet)
        logits = model(normalized(part, torch.float32), visible_indices=visible).logits
        missing = complement(visible, grid.num_tokens)
        predicted = denormalize_patches(logits, interpolated_statistics(truth, visible, missing, grid)).clamp(0, 1)
        hidden = torch.ones(truth.shape[:2], dtype=torch.bool).scatter(1, visible, False)
        mean = gather_tokens(truth, visible).unflatten(-1, (-1, 3)).mean(dim=(1, 2)).repeat(1, truth.shape[-1] // 3)

        def error(guess: Tensor, truth: Tensor = truth, hidden: Tensor = hidden) -> Tensor:
            return (((guess - truth) ** 2).mean(-1) * hidden).sum(1)

        scale = error(mean[:, None].expand_as(truth))
        filled = truth.scatter(1, missing[..., None].expand_as(predicted), predicted)
        own.append(error(filled) / scale)
        for sigma in SIGMAS:
            guess = gaussian_interpolation(truth, hidden, grid, model.tubelet, sigma=sigma)
            others[sigma].append(error(guess) / scale)
    best = min((torch.cat(found) for found in others.values()), key=lambda one: float(one.mean()))
    return torch.cat(own).numpy(), best.numpy()


if __name__ == "__main__":
    main()
