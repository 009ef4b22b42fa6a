"""Clips of a video as a model takes them: resized while they are decoded, and normalized a batch at a time.

A frame is never held at the video's own size for longer than it takes to resize it: a second of 1080p has 150 MB, the
same frames at 224 pixels 5 MB. What is in memory at a time is bounded by `batch_size`, however many clips are asked
for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.errors import ConfigError
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.sampling import IntArray

DEFAULT_BATCH_SIZE = 8  # clips in one forward pass
FRAMES_AT_ONCE = 4  # decoded and resized together: more are no faster, and 16 frames of 4K have 400 MB

ReadFrames: TypeAlias = Callable[[IntArray], NDArray[np.uint8]]
"""Takes `[n]` frame indices, returns uint8 `[n, H, W, 3]`; `VideoReader.frames` is one."""


def check_batch_size(batch_size: int) -> None:
    """Raise ConfigError if a batch size is below 1."""
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it is a number of clips, at least 1")


def resized_frames(
    read: ReadFrames, indices: IntArray, processor: VideoMAEImageProcessor, *, center_crop: bool | None = None
) -> Tensor:
    """Read frames and resize and crop them as the processor does, a few at a time.

    Args:
        read: Where frames come from.
        indices: `[n]` frame indices; ascending ones are decoded in one pass.
        processor: Its size, filter and crop are used.
        center_crop: Whether to crop; None: as the processor does.

    Returns:
        uint8 `[n, C, h, w]`: the frames that the processor would rescale and normalize.

    Raises:
        VideoReadError: If a frame cannot be read.
    """
    return frames_in_parts(
        read,
        indices,
        lambda frames: processor(
            frames,
            return_tensors="pt",
            input_data_format="channels_last",
            do_center_crop=center_crop,
            do_rescale=False,
            do_normalize=False,
        ).pixel_values[0],
    )


def frames_in_parts(read: ReadFrames, indices: IntArray, prepare: Callable[[NDArray[np.uint8]], Tensor]) -> Tensor:
    """Read frames a few at a time and prepare each part before the next is read.

    Args:
        read: Where frames come from.
        indices: `[n]` frame indices.
        prepare: Takes uint8 `[m, H, W, 3]`, returns `[m, C, h, w]`.

    Returns:
        `[n, C, h, w]`, what `prepare` returned, put together.
    """
    starts = range(0, len(indices), FRAMES_AT_ONCE)
    return torch.cat([prepare(read(indices[start : start + FRAMES_AT_ONCE])) for start in starts])


def clip_batches(
    read: ReadFrames, indices: IntArray, processor: VideoMAEImageProcessor, *, batch_size: int
) -> Iterator[Tensor]:
    """Iterate over clips in batches; a frame of a batch that the next one needs too is read once for both.

    So windows that overlap, in ascending order, have their frames decoded once in all, and two batches are what is in
    memory.

    Args:
        read: Where frames come from.
        indices: `[S, T]` frame indices, one row a clip.
        processor: Resizes and crops.
        batch_size: Clips of a batch; the last may have fewer.

    Yields:
        uint8 `[b, T, C, h, w]`, for `normalized`.

    Raises:
        VideoReadError: If a frame cannot be read.
    """
    kept: dict[int, Tensor] = {}  # frames of the batch before, [C, h, w] each
    for start in range(0, len(indices), batch_size):
        rows = indices[start : start + batch_size]  # [b, T]
        missing = [index for index in np.unique(rows).tolist() if index not in kept]
        if missing:
            kept.update(zip(missing, resized_frames(read, np.array(missing, np.int64), processor), strict=True))
        yield torch.stack([kept[index] for index in rows.ravel().tolist()]).unflatten(0, rows.shape)
        following = np.unique(indices[start + batch_size : start + 2 * batch_size]).tolist()
        # Copies, since each is a part of a tensor that holds all frames of its batch.
        kept = {index: kept[index].clone() for index in following if index in kept}


def normalized(
    clips: Tensor, processor: VideoMAEImageProcessor, *, device: torch.device, num_channels: int = 3
) -> Tensor:
    """Rescale and normalize clips on a device; with `clip_batches` this is all that the processor does.

    Args:
        clips: uint8 `[b, T, C, h, w]`, resized and cropped.
        processor: Its rescaling, mean and std are used.
        device: Where to compute.
        num_channels: Of the model; see `as_channels`.

    Returns:
        float32 `[b, T, C, h, w]` on the device, for a model of three channels equal to the processor's `pixel_values`
        to the bit.
    """
    pixel_values: Tensor = processor(
        clips.to(device),
        return_tensors="pt",
        input_data_format="channels_first",
        do_resize=False,
        do_center_crop=False,
    ).pixel_values
    return as_channels(pixel_values, num_channels)


def as_channels(pixel_values: Tensor, num_channels: int) -> Tensor:
    """Return normalized RGB clips as a model of so many channels takes them: of one channel, the mean of the three.

    Args:
        pixel_values: `[..., 3, H, W]`, normalized.
        num_channels: Of the model. Any number but 1 changes nothing: the model then says what it takes.
    """
    return pixel_values.mean(dim=-3, keepdim=True) if num_channels == 1 else pixel_values
