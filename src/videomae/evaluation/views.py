"""The views of one video under the published test protocols: several clips, several crops of each.

Each frame that any view needs is decoded once, resized at once, and kept once, still uint8; a view is a selection of
frames and a rectangle.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from videomae.errors import ConfigError
from videomae.evaluation.configs import ViewsConfig as ViewsConfig
from videomae.inference.clips import resized_frames
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.index_store import IndexStore
from videomae.video.opening import open_reader
from videomae.video.sampling import ClipConfig, CropOffset, clip_indices, crop_views


@dataclass(frozen=True)
class View:
    """One clip and crop of a video."""

    frames: tuple[int, ...]
    """Rows of `VideoViews.frames`, T of them."""
    offset: CropOffset
    """Upper left corner of the crop."""


@dataclass(frozen=True)
class VideoViews:
    """Views of one video: all, or those of some of its clips."""

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


def read_views(
    path: Path,
    *,
    clip: ClipConfig,
    views: ViewsConfig,
    processor: VideoMAEImageProcessor,
    clips: range | None = None,
    store: IndexStore | None = None,
) -> VideoViews:
    """Read the views of a video.

    Args:
        path: The video, or a part of one; see `open_reader`.
        clip: Length, stride and kind of a clip.
        views: How many clips and crops.
        processor: Resizes the frames; see `check_views`. It neither rescales nor normalizes here.
        clips: Which of the clips, so that few frames are in memory at a time; None: all. Numbers beyond the last
            clip mean none.
        store: Keeps what is known of the files of a collection.

    Returns:
        The resized frames and the views.

    Raises:
        VideoReadError: If the video cannot be read.

    Source: the test loaders of VideoMAE (Tong et al. 2022) and VideoMAE V2 (Wang et al. 2023).
    """
    with open_reader(path, store=store, fps=clip.fps) as reader:
        indices = clip_indices(len(reader), clip, num_views=views.num_clips)  # [S, T]
        if clips is not None:
            indices = indices[clips.start : clips.stop]
        needed, rows = np.unique(indices, return_inverse=True)
        own_crop = processor.do_center_crop and views.num_crops == 1
        frames = resized_frames(reader.frames_in_order, needed, processor, center_crop=own_crop)  # [U, C, H', W']
    height, width = frames.shape[-2:]
    offsets: tuple[CropOffset, ...] = (CropOffset(0, 0),)
    crop_size = (height, width)
    if views.num_crops > 1:
        side = processor.crop_size["height"]
        offsets, crop_size = crop_views(height, width, size=side, num_crops=views.num_crops), (side, side)
    chosen = [tuple(int(row) for row in clip_rows) for clip_rows in rows.reshape(indices.shape)]
    counts = Counter(View(frames_of_clip, offset) for frames_of_clip in chosen for offset in offsets)
    return VideoViews(frames, dict(counts), crop_size)
