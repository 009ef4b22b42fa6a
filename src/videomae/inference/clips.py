"""Clips of a video as a model takes them: resized while they are decoded, and normalized a batch at a time.

A frame is never held at the video's own size for longer than it takes to resize it: a second of 1080p has 150 MB, the
same frames at 224 pixels 5 MB. What is in memory at a time is bounded by `batch_size`, however many clips are asked
for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.errors import ConfigError
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.sampling import IntArray

DEFAULT_BATCH_SIZE = 8  # clips in one forward pass
FRAMES_AT_ONCE = 4  # resized together: more are no faster, and 16 frames of 4K have 400 MB

ByteArray: TypeAlias = NDArray[np.uint8]
ReadFrames: TypeAlias = Callable[[IntArray], Iterable[ByteArray]]
"""Takes `[n]` ascending frame indices without repeats, gives these frames in order, uint8 `[H, W, 3]` each;
`VideoReader.frames_in_order` is one."""
Prepare: TypeAlias = Callable[[ByteArray], Tensor]
"""Takes uint8 `[m, H, W, 3]`, returns `[m, C, h, w]`."""


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
        indices: `[n]` frame indices, in any order.
        processor: Its size, filter and crop are used.
        center_crop: Whether to crop; None: as the processor does.

    Returns:
        uint8 `[n, C, h, w]`: the frames that the processor would rescale and normalize.

    Raises:
        VideoReadError: If a frame cannot be read.
    """
    return frames_in_parts(read, indices, _resizing(processor, center_crop))


def frames_in_parts(read: ReadFrames, indices: IntArray, prepare: Prepare) -> Tensor:
    """Read frames in one pass and prepare each few before the next are read.

    Args:
        read: Where frames come from.
        indices: `[n]` frame indices, in any order.
        prepare: What is done to them.

    Returns:
        `[n, C, h, w]`, what `prepare` returned, put together.
    """
    needed, rows = np.unique(indices, return_inverse=True)
    frames = torch.cat(list(_parts(iter(read(needed)), len(needed), prepare)))
    return frames if np.array_equal(needed, indices) else frames[torch.from_numpy(rows.ravel())]


def clip_batches(
    read: ReadFrames, indices: IntArray, processor: VideoMAEImageProcessor, *, batch_size: int
) -> Iterator[Tensor]:
    """Iterate over clips in batches; a frame of a batch that a later one needs too is read once for both.

    So windows that overlap, in ascending order, have their frames read once in all, in one pass, and two batches are
    what is in memory.

    Args:
        read: Where frames come from.
        indices: `[S, T]` frame indices, one row a clip.
        processor: Resizes and crops.
        batch_size: Clips of a batch; the last may have fewer.

    Yields:
        uint8 `[b, T, C, h, w]`, for `normalized`.

    Raises:
        VideoReadError: If a frame cannot be read; the batches before it have been given.
    """
    needed, places = np.unique(indices, return_inverse=True)  # [U], and where in it each index is
    places = places.reshape(indices.shape)
    last_batch = np.zeros(len(needed), np.int64)  # the last that needs each frame
    np.maximum.at(last_batch, places, np.arange(len(indices))[:, None] // batch_size)
    frames, prepare = iter(read(needed)), _resizing(processor, None)
    kept: dict[int, Tensor] = {}  # by place, [C, h, w] each
    num_read = 0
    for number, start in enumerate(range(0, len(indices), batch_size)):
        rows = places[start : start + batch_size]  # [b, T]
        count = int(rows.max()) + 1 - num_read
        for part in _parts(frames, count, prepare):
            kept.update(zip(range(num_read, num_read + len(part)), part, strict=True))
            num_read += len(part)
        yield torch.stack([kept[place] for place in rows.ravel().tolist()]).unflatten(0, rows.shape)
        kept = {place: frame for place, frame in kept.items() if last_batch[place] > number}


def _resizing(processor: VideoMAEImageProcessor, center_crop: bool | None) -> Prepare:
    """Return what resizes and crops frames as a processor does."""
    apply = processor.frame_steps(do_center_crop=center_crop, do_rescale=False, do_normalize=False)
    return lambda frames: apply(torch.from_numpy(frames).permute(0, 3, 1, 2))


def _parts(frames: Iterator[ByteArray], count: int, prepare: Prepare) -> Iterator[Tensor]:
    """Prepare the next `count` frames, a few at a time; each few are a tensor of their own, and no view of it."""
    for start in range(0, count, FRAMES_AT_ONCE):
        yield prepare(np.stack(list(islice(frames, min(FRAMES_AT_ONCE, count - start)))))


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
