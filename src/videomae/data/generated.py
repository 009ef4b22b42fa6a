"""Generated videos as files: `videomae data generate`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from videomae.data.configs import GenerateConfig, GeneratedKind
from videomae.data.manifest import PROCEDURAL
from videomae.data.procedural import ProceduralVideos
from videomae.data.synthetic import MOTION_CLASSES, refuse_other_videos, write_motion_videos
from videomae.engine.progress import TrainingProgress
from videomae.errors import ConfigError
from videomae.video.write import write_video

FRAME_RATE = 15


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
