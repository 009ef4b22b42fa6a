"""How much of a video is lost by encoding it again: PSNR against the frames that the encoder was given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from videomae.collection.transcode import sized_frames
from videomae.errors import VideoReadError
from videomae.video.opening import open_reader

MAX_VIDEOS = 8
MAX_FRAMES = 30  # of each, from its beginning
LOSSLESS = 100.0  # decibels; where nothing is lost the ratio is infinite


@dataclass(frozen=True)
class Quality:
    """Peak signal-to-noise ratio of the luma, in decibels, of some videos."""

    mean: float
    """Over the videos."""
    lowest: float
    """Of the worst of them."""
    num_videos: int
    """How many were compared."""


def luma_psnr(source: Path, prepared: Path) -> float:
    """Compare the first frames of a prepared video with those of its source, scaled alike.

    Args:
        source: The original.
        prepared: What was written of it, or of its first part.

    Raises:
        VideoReadError: If one cannot be read.
    """
    with open_reader(prepared) as reader:
        size = reader.info.width, reader.info.height
    rate = Fraction(25)  # of no effect: times are not used
    pairs = zip(
        sized_frames(source, size, rate=rate, is_timed=False),
        sized_frames(prepared, size, rate=rate, is_timed=False),
        strict=False,
    )
    errors = []
    for before, after in islice(pairs, MAX_FRAMES):
        one, other = (frame.picture.to_ndarray()[: size[1]].astype(np.float32) for frame in (before, after))
        errors.append(float(np.square(one - other).mean()))
    error = sum(errors) / max(len(errors), 1)
    return LOSSLESS if error == 0 else min(10 * math.log10(255**2 / error), LOSSLESS)


def measure_quality(pairs: Sequence[tuple[Path, Path]]) -> Quality | None:
    """Compare some of the pairs (source, prepared), evenly spread; None where none can be compared."""
    step = max(len(pairs) / MAX_VIDEOS, 1.0)
    values = []
    for number in range(min(len(pairs), MAX_VIDEOS)):
        try:
            values.append(luma_psnr(*pairs[int(number * step)]))
        except VideoReadError:
            continue
    return Quality(sum(values) / len(values), min(values), len(values)) if values else None
