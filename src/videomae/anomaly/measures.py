"""What a pre-trained model measures of each window of a video: its feature, and the reconstruction error by position.

The error of a token is that of pre-training, the mean squared error of its prediction from visible tokens, averaged
over the masks that hide it. It is summed up over time, since a window is short: what is left is a picture `[h, w]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.anomaly.configs import AnomalyConfig
from videomae.engine.seeding import torch_generator
from videomae.inference.clips import normalized
from videomae.inference.loaded import LoadedModel
from videomae.inference.windows import open_as_far_as_whole, plan_windows, window_batches
from videomae.masking import draw_masks
from videomae.model.encoder import encode
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import complement
from videomae.video.encoded import EncodedVideo

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class VideoPlan(NamedTuple):
    """What is known of a video before its windows are measured."""

    seconds: float
    """Where its last window ends."""
    fault: str | None
    """Why it is read in part; None: nothing known."""


class WindowMeasures(NamedTuple):
    """What is measured of some windows of one video."""

    starts: Float64
    """`[n]`, seconds."""
    ends: Float64
    """`[n]`, seconds."""
    features: Float32
    """`[n, D]`, the mean of the tokens of the unmasked window."""
    errors: Float32
    """`[n, h, w]`, reconstruction error at each position."""

    @classmethod
    def joined(cls, parts: list[WindowMeasures]) -> WindowMeasures:
        """Put measures together, in order."""
        return cls(*(np.concatenate(values) for values in zip(*parts, strict=True)))


@torch.inference_mode()
def measure_clips(
    loaded: LoadedModel[VideoMAEForPreTraining], clips: Tensor, config: AnomalyConfig
) -> tuple[Float32, Float32]:
    """Measure clips.

    Args:
        loaded: A pre-trained model with its decoder.
        clips: uint8 `[b, T, C, h, w]`, resized and cropped.
        config: Number and seed of the masks; all clips get the same ones.

    Returns:
        Features `[b, D]` and errors `[b, h, w]`.
    """
    model, b = loaded.model, len(clips)
    pixel_values = normalized(
        clips, loaded.processor, device=model.device, num_channels=model.config.num_channels
    )  # [b, T, C, H, W]
    grid = model.videomae.embeddings.grid_of(pixel_values)
    first = 1 if model.config.use_cls_token else 0
    features = encode(model.videomae, pixel_values).last_hidden_state[:, first:].mean(dim=1)  # [b, D]
    total = torch.zeros(b, grid.num_tokens, device=model.device)
    count = torch.zeros(grid.num_tokens, device=model.device)
    for number in range(config.masks):
        generator = torch_generator(config.seed, f"anomaly {number}")
        visible = draw_masks(loaded.mask, grid, batch=1, generator=generator).visible.to(model.device)  # [1, V]
        hidden = complement(visible, grid.num_tokens)[0]  # [M]
        repeated = visible.expand(b, -1)
        logits = model(pixel_values, visible_indices=repeated).logits.float()  # [b, M, P]
        targets = model.targets(pixel_values, hidden.expand(b, -1))
        total[:, hidden] += (logits - targets).square().mean(dim=2)
        count[hidden] += 1
    # A position that no mask has hidden takes the mean of the others: it says nothing.
    mean = total / count.clamp_min(1)
    mean[:, count == 0] = mean[:, count > 0].mean(dim=1, keepdim=True)
    errors = mean.view(b, grid.frames, grid.height, grid.width).mean(dim=1)
    return features.float().cpu().numpy(), errors.cpu().numpy()


def measure_video(
    loaded: LoadedModel[VideoMAEForPreTraining], video: EncodedVideo, config: AnomalyConfig, *, first: int = 0
) -> Iterator[VideoPlan | WindowMeasures]:
    """Measure the windows of a video in one pass, some at a time.

    Args:
        loaded: A pre-trained model with its decoder.
        video: The video.
        config: Windows and masks.
        first: Window to begin with, a multiple of the batch size.

    Yields:
        What is known of it, and then measures, in order.

    Raises:
        VideoReadError: If it cannot be read; the measures before have been given.
        ConfigError: If the window does not fit it.
    """
    with open_as_far_as_whole(video, fps=loaded.clip.fps) as (reader, fault):
        plan = plan_windows(reader, loaded.clip, window_seconds=config.window, step_seconds=config.step)
        yield VideoPlan(float(plan.end_seconds[-1]), fault)
        for batch in window_batches(reader, plan, loaded.processor, batch_size=config.batch_size, first=first):
            features, errors = measure_clips(loaded, batch.clips, config)
            part = slice(batch.first, batch.first + len(features))
            yield WindowMeasures(plan.start_seconds[part], plan.end_seconds[part], features, errors)
