"""Videos in whatever form a caller has them, brought to tensors `[T, C, H, W]`.

PIL is never imported: a caller who has PIL images has imported it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Frame: TypeAlias = "Image | NDArray[Any] | Tensor"
Videos: TypeAlias = "Frame | Sequence[Frame] | Sequence[Sequence[Frame]]"

CHANNELS_FIRST, CHANNELS_LAST = "channels_first", "channels_last"
USUAL_CHANNELS = (1, 3, 4)  # numbers of channels that transformers, too, tells from heights and widths
SHAPES = (
    "give a frame as [H, W, C] or [C, H, W], a video as a list of frames, [T, H, W, C] or [T, C, H, W], a batch as "
    "a list of videos or with one more dimension in front"
)


def collect_videos(
    videos: Videos, *, num_channels: int | None = None, input_data_format: str | None = None
) -> list[list[Tensor]]:
    """Bring one video or a batch of videos, in any accepted form, to tensors.

    Args:
        videos: A frame (PIL image, array or tensor; `[H, W]`, `[H, W, C]` or `[C, H, W]`), a video (list of frames,
            or one dimension more), or a batch (list of videos, or two dimensions more). Integers or floats.
        num_channels: C, where the caller knows it; settles which dimension holds the channels.
        input_data_format: "channels_first" or "channels_last", for arrays and tensors; None: judged from the shape.

    Returns:
        For each video its runs of equally shaped consecutive frames, `[t, C, H, W]` each, on the device of the
        input: uint8 for uint8 and for other integers in 0..255, float32 for the rest. Frames of video in one
        array are not copied.

    Raises:
        ValueError: If the input is a path, is empty, has another shape or type, or does not show which dimension
            holds the channels.
    """
    layout = _layout(input_data_format)
    collected = []
    for number, frames in enumerate(_split_batch(videos)):
        if len(frames) == 0:
            raise ValueError(f"video {number} has no frames: leave it out or give it at least one")
        collected.append(_runs(frames, num_channels, layout))
    return collected


def _layout(input_data_format: str | None) -> str | None:
    layout: str | None = getattr(input_data_format, "value", input_data_format)  # transformers has an enum for it
    if layout not in (None, CHANNELS_FIRST, CHANNELS_LAST):
        raise ValueError(f"input_data_format is {layout!r}; choose {CHANNELS_FIRST!r}, {CHANNELS_LAST!r} or None")
    return layout


def _split_batch(videos: Any) -> list[Any]:
    """Return the videos of a batch: each a 4-D array or tensor, or a list of frames."""
    if not isinstance(videos, list | tuple):
        num_dims = _num_dims(videos)
        if num_dims == 5:
            return list(_filled(videos))
        return [videos] if num_dims == 4 else [[videos]]
    depths = {_depth(item) for item in _filled(videos)}
    if len(depths) > 1:
        raise ValueError(f"the list mixes {' and '.join(sorted(depths))}: {SHAPES}")
    if depths == {"frames"}:
        return [videos]
    if depths == {"lists"}:
        for item in videos:
            if any(_depth(frame) != "frames" for frame in item):
                raise ValueError(f"a list of videos holds a list of something else than frames: {SHAPES}")
    return list(videos)


def _filled(videos: Sequence[Any]) -> Sequence[Any]:
    if len(videos) == 0:
        raise ValueError("there are no videos: give at least one frame")
    return videos


def _depth(item: Any) -> str:
    if isinstance(item, list | tuple):
        return "lists"
    num_dims = _num_dims(item)
    if num_dims == 5:
        raise ValueError(f"a list holds an item with 5 dimensions, a batch of its own: {SHAPES}")
    return "videos of 4 dimensions" if num_dims == 4 else "frames"


def _num_dims(item: Any) -> int:
    if isinstance(item, str | os.PathLike):
        _refuse_path(item)
    if _is_pil(item):
        return 3
    if not isinstance(item, np.ndarray | Tensor):
        raise ValueError(f"a {type(item).__name__} is no frame: a frame is a PIL image, a numpy array or a tensor")
    if not 2 <= item.ndim <= 5 or 0 in item.shape[-3:]:
        raise ValueError(f"the input has shape {list(item.shape)}: {SHAPES}")
    return item.ndim


def _refuse_path(path: str | os.PathLike[str]) -> NoReturn:
    raise ValueError(
        f"{os.fspath(path)!r} is a path, and this processor takes frames: give the path to VideoMAEVideoProcessor, "
        "or read the frames first with videomae.VideoReader"
    )


def _is_pil(item: object) -> TypeGuard[Image]:
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(item, module.Image)


def _runs(frames: Any, num_channels: int | None, layout: str | None) -> list[Tensor]:
    if isinstance(frames, np.ndarray | Tensor):
        return [_channels_first(_tensor(frames), num_channels, layout)]
    known = [
        (_tensor(_pil_array(frame, num_channels)), CHANNELS_LAST) if _is_pil(frame) else (_tensor(frame), layout)
        for frame in frames
    ]
    runs = []
    for (_, _, its_layout), group in groupby(known, key=lambda pair: (pair[0].shape, pair[0].dtype, pair[1])):
        stacked = torch.stack([tensor for tensor, _ in group])  # before any permute: reads memory in order
        runs.append(_channels_first(stacked, num_channels, its_layout))
    return runs


def _pil_array(image: Image, num_channels: int | None) -> NDArray[Any]:
    if image.has_transparency_data and not (image.mode == "RGBA" and num_channels == 4):
        raise ValueError(
            f"a frame is a PIL image of mode {image.mode} with transparency: decide what shows through, for example "
            'with frame.convert("RGB")'
        )
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("P", "CMYK", "YCbCr", "HSV", "LAB"):  # as an array, P holds numbers of colours
        image = image.convert("RGB")
    return np.array(image)


def _tensor(frames: NDArray[Any] | Tensor) -> Tensor:
    if isinstance(frames, np.ndarray):
        if frames.dtype.kind not in "uif":
            raise ValueError(f"the frames are of dtype {frames.dtype}: give integers in 0..255 or floats")
        if not frames.flags.writeable or any(stride < 0 for stride in frames.strides):
            frames = frames.copy()  # torch shares memory with neither
        frames = torch.from_numpy(frames)
    if frames.dtype == torch.bool or frames.is_complex():
        raise ValueError(f"the frames are of dtype {frames.dtype}: give integers in 0..255 or floats")
    if frames.dtype == torch.uint8:
        return frames
    exact = frames.to(torch.float32)
    if not frames.is_floating_point() and exact.min() >= 0 and exact.max() <= 255:
        return exact.to(torch.uint8)
    return exact


def _channels_first(frames: Tensor, num_channels: int | None, layout: str | None) -> Tensor:
    if frames.ndim == 3:
        return frames[:, None]  # [t, H, W] -> [t, 1, H, W]
    if layout is None:
        layout = _judged_layout(list(frames.shape[1:]), num_channels)
    return frames.permute(0, 3, 1, 2) if layout == CHANNELS_LAST else frames  # [t, C, H, W]


def _judged_layout(shape: list[int], num_channels: int | None) -> str:
    for counts in ((num_channels,), USUAL_CHANNELS):
        first, last = shape[0] in counts, shape[2] in counts
        if first and last:
            raise ValueError(
                f"a frame has shape {shape}, and its first or its last dimension may be the channels: give "
                f"input_data_format {CHANNELS_FIRST!r} or {CHANNELS_LAST!r}"
            )
        if first or last:
            return CHANNELS_FIRST if first else CHANNELS_LAST
    raise ValueError(
        f"a frame has shape {shape}, in which neither end is a number of channels: {SHAPES}; of grey frames "
        "with C = 1"
    )
