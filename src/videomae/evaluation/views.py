"""The views of one video under the published test protocols: several clips, several crops of each.

A video is opened and decoded once, each frame that any view needs is kept once, resized and still uint8; a view is
a selection of frames and a rectangle. Knows nothing of networks and labels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from videomae.errors import ConfigError
from videomae.evaluation.configs import ViewsConfig as ViewsConfig
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.decode import VideoReader
from videomae.video.sampling import ClipConfig, CropOffset, IntArray, centre_clip, crop_views, view_clips

FRAMES_AT_ONCE = 16  # resized together: bounds the float copies that resizing makes of large frames


@dataclass(frozen=True)
class View:
    """One clip and crop of a video."""

    frames: tuple[int, ...]
    """Rows of `VideoViews.frames`, T of them."""
    offset: CropOffset
    """Upper left corner of the crop."""


@dataclass(frozen=True)
class VideoViews:
    """All views of one video."""

    frames: Tensor
    """uint8 `[U, C, H, W]`, each frame that a view needs once, resized."""
    counts: dict[View, int]
    """Each different view, and how many of the protocol's views it is: on a short or square video many coincide."""
    crop_size: tuple[int, int]
    """Height and width of the crops."""

    def pixels(self, view: View) -> Tensor:
        """Return the frames of a view, uint8 `[T, C, height, width]`."""
        height, width = self.crop_size
        top, left = view.offset
        return self.frames[list(view.frames), :, top : top + height, left : left + width]


def check_views(processor: VideoMAEImageProcessor, views: ViewsConfig) -> None:
    """Check that a processor's frames can be cropped as asked, before any video is read.

    Raises:
        ConfigError: If several crops are asked for and the processor leaves no single square size for them.
    """
    if views.num_crops == 1:
        return
    height, width = processor.crop_size["height"], processor.crop_size["width"]
    reason = None
    if not processor.do_center_crop:
        reason = "does not crop"
    elif height != width:
        reason = f"crops to {height}x{width}, which is no square"
    elif not processor.do_resize or min(processor.size.values()) < height:
        resized = f"to {dict(processor.size)}" if processor.do_resize else "nothing"
        reason = f"resizes {resized}, so that frames may be smaller than its crop of {height}"
    if reason is not None:
        raise ConfigError(f"views.num_crops is {views.num_crops}, but the processor {reason}: use views.num_crops 1")


def clip_frames(total_frames: int, clip: ClipConfig, *, num_clips: int) -> IntArray:
    """Return the frame numbers of each clip, `[S, T]`: the middle of the video for one, else the test protocol."""
    if num_clips == 1:
        return centre_clip(total_frames, clip)[None]
    return view_clips(total_frames, clip, num_views=num_clips)


def read_views(path: Path, *, clip: ClipConfig, views: ViewsConfig, processor: VideoMAEImageProcessor) -> VideoViews:
    """Read all views of a video.

    Args:
        path: The video.
        clip: Length, stride and kind of a clip.
        views: How many clips and crops.
        processor: Resizes the frames; see `check_views`. It neither rescales nor normalises here.

    Returns:
        The resized frames and the views.

    Raises:
        VideoReadError: If the video cannot be read.

    Source: the test loaders of VideoMAE (Tong et al. 2022) and VideoMAE V2 (Wang et al. 2023).
    """
    with VideoReader(path) as reader:
        numbers = clip_frames(len(reader), clip, num_clips=views.num_clips)  # [S, T]
        needed, rows = np.unique(numbers, return_inverse=True)
        raw = reader.frames(needed)  # [U, H, W, C]
    own_crop = processor.do_center_crop and views.num_crops == 1
    frames = torch.cat(
        [
            processor(
                raw[start : start + FRAMES_AT_ONCE],
                return_tensors="pt",
                input_data_format="channels_last",
                do_center_crop=own_crop,
                do_rescale=False,
                do_normalize=False,
            ).pixel_values[0]
            for start in range(0, len(raw), FRAMES_AT_ONCE)
        ]
    )  # [U, C, H', W']
    height, width = frames.shape[-2:]
    offsets: tuple[CropOffset, ...] = (CropOffset(0, 0),)
    crop_size = (height, width)
    if views.num_crops > 1:
        side = processor.crop_size["height"]
        offsets, crop_size = crop_views(height, width, size=side, num_crops=views.num_crops), (side, side)
    clips = [tuple(int(row) for row in clip_rows) for clip_rows in rows.reshape(numbers.shape)]
    counts = Counter(View(chosen, offset) for chosen in clips for offset in offsets)
    return VideoViews(frames, dict(counts), crop_size)
