"""Heat maps laid over the frames of a clip."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Frames = NDArray[np.uint8]
# From nothing over violet and orange to pale yellow: brightness rises, so that it can be read without color.
COLORS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float32)
OPACITY = 0.65
SHOWN_PIXELS = 224  # of the short side; smaller frames are enlarged


def overlaid(frames: Frames, heat: Tensor | NDArray[np.float32]) -> Frames:
    """Lay a heat map over frames, which are enlarged where they are small: `[T, H', W', 3]`, see `colored`."""
    return colored(enlarged(frames), heat)


def colored(frames: Frames, heat: Tensor | NDArray[np.float32], *, largest: float | None = None) -> Frames:
    """Lay a heat map over frames of any size.

    Args:
        frames: `[T, H, W, 3]`.
        heat: `[t, h, w]`, at least 0; stretched over time and space.
        largest: What is shown brightest; None: the largest value of `heat`.

    Returns:
        `[T, H, W, 3]`.
    """
    values = torch.as_tensor(heat, dtype=torch.float32)
    smooth = F.interpolate(values[None, None], size=frames.shape[:3], mode="trilinear", align_corners=False)[0, 0]
    top = float(values.max()) if largest is None else largest
    strength = (smooth / max(top, 1e-12)).clamp(0, 1).numpy()  # [T, H, W]
    places = strength * (len(COLORS) - 1)
    below = np.minimum(places.astype(np.int64), len(COLORS) - 2)
    part = (places - below)[..., None].astype(np.float32)
    colors = COLORS[below] * (1 - part) + COLORS[below + 1] * part
    opacity = (OPACITY * np.sqrt(strength))[..., None]
    result: Frames = np.rint(frames * (1 - opacity) + colors * opacity).astype(np.uint8)
    return result


def enlarged(frames: Frames) -> Frames:
    """Enlarge small frames by a whole number, and make height and width even."""
    times = max(1, SHOWN_PIXELS // min(frames.shape[1:3]))
    large = frames.repeat(times, axis=1).repeat(times, axis=2)
    return large[:, : large.shape[1] // 2 * 2, : large.shape[2] // 2 * 2]
