"""Some windows of many videos: to compare two ways of computing on, or to find ranges of values on."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

from torch import Tensor

from videomae.errors import ConfigError, VideoReadError
from videomae.inference.clips import clip_batches
from videomae.inference.window_choice import WindowChoice
from videomae.inference.windows import open_as_far_as_whole
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.index_store import IndexStore
from videomae.video.sampling import ClipConfig

NUM_WINDOWS = 8  # at most: each is computed in float32, too


def spread_windows(
    videos: Sequence[Path | str],
    choice: WindowChoice,
    *,
    clip: ClipConfig,
    processor: VideoMAEImageProcessor,
    store: IndexStore | None = None,
) -> Generator[Tensor, None, None]:
    """Yield some windows, spread evenly over videos: `NUM_WINDOWS`, or as many as there are.

    Videos that cannot be read are left to whoever computes with them, and says so.

    Args:
        videos: Files and addresses.
        choice: Which clips of each.
        clip: How clips are sampled.
        processor: Resizing and cropping.
        store: Keeps what is known of the files of a collection.

    Yields:
        uint8 `[1, T, C, h, w]`, resized and cropped.
    """
    chosen = [videos[number] for number in spread(len(videos), NUM_WINDOWS)]
    for video in chosen:
        try:
            with open_as_far_as_whole(video, store=store, fps=clip.fps) as (reader, _):
                indices = choice.indices(reader, clip)  # [W, T]
                indices = indices[spread(len(indices), NUM_WINDOWS // len(chosen))]
                yield from clip_batches(reader.frames_in_order, indices, processor, batch_size=1)
        except (VideoReadError, ConfigError):
            continue


def spread(num_items: int, num_wanted: int) -> list[int]:
    """Return as many indices as are wanted, or all, at even distances."""
    count = min(num_items, num_wanted)
    return [(2 * number + 1) * num_items // (2 * count) for number in range(count)]
