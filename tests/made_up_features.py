"""Features of videos that do not exist, for tests of what is made of features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from videomae.data.manifest import Manifest, VideoRow
from videomae.probing.extraction import Features
from videomae.probing.videos import ProbeVideos


def made_up(
    pooled: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[Features, ProbeVideos]:
    """Return features of videos that do not exist; the tokens are the pooled ones, the same at all times."""
    count = len(labels)
    tokens = torch.from_numpy(pooled).half()[:, None, None].expand(count, 4, 1, -1)
    names = tuple(f"class {label}" for label in range(int(labels.max()) + 1))
    rows = tuple(VideoRow(Path("videos") / f"{number}.mp4", int(label)) for number, label in enumerate(labels))
    videos = ProbeVideos(Manifest(Path("videos"), rows, names), tuple(map(str, groups)), has_groups=True)
    return Features(pooled, tokens, np.ones(count, np.bool_), (), 0), videos
