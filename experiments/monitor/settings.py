"""What all runs share: small videos, recipes that learn on them within a minute, a reader that keeps frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from videomae.data import datasets
from videomae.data.procedural import ProceduralVideos
from videomae.data.synthetic import write_motion_videos
from videomae.recipes.schema import PretrainRecipe, load_recipe
from videomae.video.decode import VideoReader
from videomae.video.index_store import IndexStore
from videomae.video.probe import VideoInfo
from videomae.video.write import write_video

SIZE = 32  # pixels
VIDEO_FRAMES = 24
RECIPE = """
decoder_init: lookup
model:
  preset: small
  image_size: 32
  overrides:
    patch_size: 8
    hidden_size: 96
    num_hidden_layers: 3
    num_attention_heads: 3
    intermediate_size: 384
    decoder_hidden_size: 64
    decoder_num_hidden_layers: 1
    decoder_num_attention_heads: 2
    decoder_intermediate_size: 256
    norm_pix_loss: true
clip: {num_frames: 8, stride: 2}
mask: {kind: tube, ratio: 0.75, decoder_kind: subset}
augment: {crop: multi_scale}
optim:
  {base_lr: 3.0e-2, min_lr: 1.0e-5, betas: [0.9, 0.95], weight_decay: 0.02, optimizer: muon, muon_lr: 0.16}
schedule: {steps: 800, warmup_fraction: 0.03, shape: constant}
loop: {batch_size: 16, workers: 0, checkpoint_steps: 100000, precision: fp32, log_steps: 50}
"""
PIXELS = (
    *("--model.overrides.norm_pix_loss", "false"),
    *("--optim.muon_lr", "0.1", "--optim.base_lr", "3e-2"),
)
ADAMW = ("--optim.optimizer", "adamw", "--optim.base_lr", "3.2e-2")
XAVIER = ("--decoder_init", "xavier")
# Ways of training that learn, by name.
HEALTHY: dict[str, tuple[str, ...]] = {
    "normalized targets, Muon": (),
    "normalized targets, Muon, random mask": ("--mask.kind", "random"),
    "normalized targets, Muon, all hidden tokens decoded, mask 0.6": (
        *("--mask.decoder_kind", "all"),
        *("--mask.ratio", "0.6"),
    ),
    "pixel targets, Muon": PIXELS,
    "pixel targets, Muon, random mask": (*PIXELS, "--mask.kind", "random"),
}


def recipe(videos: Path, work: Path, words: Sequence[str] = (), *, seed: int) -> PretrainRecipe:
    """Return the recipe of a run."""
    path = work / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return load_recipe(PretrainRecipe, path, ["--data.train", str(videos), "--loop.seed", str(seed), *words])


def write_set(folder: Path, kind: str, *, seed: int, count: int = 320) -> Path:
    """Write `procedural` or `motion` videos, unless they are there."""
    if folder.exists():
        return folder
    if kind == "motion":
        write_motion_videos(folder, videos_per_class=count // 8, size=SIZE, num_frames=VIDEO_FRAMES, seed=seed)
        return folder
    videos = ProceduralVideos(seed, num_frames=VIDEO_FRAMES, size=SIZE)
    folder.mkdir(parents=True)
    for first in range(0, count, 32):
        clips = videos.clips(torch.arange(first, min(first + 32, count)))
        for number, clip in enumerate(clips.permute(0, 1, 3, 4, 2).numpy(), start=first):
            write_video(folder / f"{number:04}.mp4", clip)
    return folder


class KeptReader:
    """A reader of whole videos that decodes each once, so that runs of small models are not all decoding."""

    kept: ClassVar[dict[str, tuple[VideoInfo, NDArray[np.uint8]]]] = {}

    def __init__(
        self, path: str, *, store: IndexStore | None = None, fps: float | None = None, decoder: str = "pyav"
    ) -> None:
        assert fps is None, "kept frames have no times"
        assert decoder == "pyav", "kept frames are PyAV's"
        if path not in self.kept:
            with VideoReader(path) as reader:
                self.kept[path] = reader.info, reader.frames(range(len(reader)))
        self.info, self.video = self.kept[path]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __len__(self) -> int:
        return len(self.video)

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Return frames."""
        return self.video[list(indices)]


def keep_frames() -> None:
    """Let training read from memory what it has read once."""
    setattr(datasets, "open_reader", KeptReader)  # noqa: B010
