"""Altered copies of a video, as they turn up: encoded again, smaller, with bars, faster or slower, cut, faded in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Variation:
    """What is done to a video."""

    quality: int
    """H.264's rate factor."""
    scale: float
    """Size."""
    bars: float
    """Height of the black bars above and below, of the picture's; 0: none."""
    speed: float
    """Times as fast."""
    start: float
    """Seconds cut off at the beginning."""
    fade: float
    """Seconds over which it fades in from black."""

    def frames(self, original: Frames, frame_rate: float) -> Frames:
        """Apply it to `[n, H, W, 3]`."""
        first = round(self.start * frame_rate)
        count = int((len(original) - first) / self.speed)
        picked = original[np.minimum(first + (np.arange(count) * self.speed).astype(np.int64), len(original) - 1)]
        height, width = (2 * round(side * self.scale / 2) for side in picked.shape[1:3])
        small = np.stack([np.asarray(Image.fromarray(one).resize((width, height))) for one in picked])
        bar = 2 * round(self.bars * height / 2)
        barred = np.pad(small, ((0, 0), (bar, bar), (0, 0), (0, 0)))
        light = np.minimum(np.arange(count) / max(self.fade * frame_rate, 1e-9), 1.0)
        result: Frames = np.rint(barred * light[:, None, None, None]).astype(np.uint8)
        return result


def draw_variation(rng: np.random.Generator) -> Variation:
    """Draw one: each change is there in half of them, encoding again in all."""

    def maybe(value: float, none: float) -> float:
        return float(value if rng.random() < 0.5 else none)

    return Variation(
        quality=int(rng.integers(24, 36)),
        scale=maybe(rng.uniform(0.5, 1.0), 1.0),
        bars=maybe(rng.uniform(0.08, 0.2), 0.0),
        speed=maybe(rng.uniform(0.9, 1.1), 1.0),
        start=maybe(rng.uniform(0.3, 2.5), 0.0),
        fade=maybe(rng.uniform(0.3, 1.0), 0.0),
    )
