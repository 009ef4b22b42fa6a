"""Videos as callers of transformers give them, files or frames, and which of their frames are taken."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.errors import ConfigError
from videomae.inference.clips import frames_in_parts
from videomae.processing.frames import Videos
from videomae.sharing.record import PUBLISHED_CLIP
from videomae.video.opening import Reader, ResampledReader, open_reader, stored_frames
from videomae.video.sampling import ClipConfig, IntArray, clip_indices, clip_indices_of_frames


@dataclass(frozen=True)
class VideoMetadata(Mapping[str, Any]):
    """Where frames come from; fields by name or by key. The names are transformers'."""

    total_num_frames: int
    """Frames of the whole video."""
    fps: float | None = None
    """Its frame rate."""
    width: int | None = None
    """Its width in pixels."""
    height: int | None = None
    """Its height in pixels."""
    duration: float | None = None
    """Its length in seconds."""
    video_backend: str | None = None
    """What decoded it."""
    frames_indices: list[int] | None = None
    """`[T]` indices of the frames that were taken."""
    timestamps: list[float] | None = None
    """`[T]` times of these frames from the first of the video, in seconds, as the file tells them."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in fields(self))

    def __len__(self) -> int:
        return len(fields(self))


class Sampling(NamedTuple):
    """Which frames of a video are wanted: all, where `wanted` is False, else as one of the others says."""

    wanted: bool
    num_frames: int | None
    fps: float | None
    clip: ClipConfig | None


def sampled_indices(
    total_frames: int,
    sampling: Sampling,
    *,
    frame_rate: float | None,
    clip_rule: Callable[[int, ClipConfig], IntArray],
) -> IntArray:
    """Return `[T]` indices of the frames that are taken from a video, ascending.

    `num_frames` and `fps` are spread evenly over the whole video by transformers' rule; where they are more than the
    video has, frames are repeated.

    Args:
        total_frames: Frames of the video.
        sampling: What is wanted.
        frame_rate: Frames per second, where it is known.
        clip_rule: Where neither a number nor a rate is given: `clip_indices` for a file, `clip_indices_of_frames` for
            frames in memory.

    Raises:
        ValueError: If `fps` is asked for and the frame rate is not known.
    """
    if not sampling.wanted:
        return np.arange(total_frames, dtype=np.int64)
    count = sampling.num_frames
    if sampling.fps is not None:
        if not frame_rate:
            raise ValueError(
                "fps is given, but the frame rate of the video is not known: give it in video_metadata, or num_frames"
            )
        count = max(1, int(total_frames / frame_rate * sampling.fps))
    if count is not None:
        return np.arange(count, dtype=np.int64) * total_frames // count
    clip = sampling.clip
    if clip is None:
        clip = PUBLISHED_CLIP
        warnings.warn(
            f"no sampling is given and none came with the processor: taking {clip.num_frames} frames, stride "
            f"{clip.stride}, from the middle, as for the published Kinetics models; give num_frames, fps, or clip",
            UserWarning,
            stacklevel=6,
        )
    indices: IntArray = clip_rule(total_frames, clip)[0]
    return indices


def check_counts(num_frames: Any, fps: Any) -> None:
    """Raise ConfigError if one of the two is out of range, or both are given."""
    if num_frames is not None and fps is not None:
        raise ConfigError(f"num_frames is {num_frames} and fps is {fps}: give one of them")
    if num_frames is not None and (isinstance(num_frames, bool) or int(num_frames) != num_frames or num_frames < 1):
        raise ConfigError(f"num_frames is {num_frames!r}; it must be a whole number, at least 1")
    if fps is not None and (isinstance(fps, bool) or not 0 < float(fps) < float("inf")):
        raise ConfigError(f"fps is {fps!r}; it must be a positive number of frames per second")


def listed_paths(videos: Any) -> list[str] | None:
    """Return the files or addresses that are meant, or None where the input is frames.

    Raises:
        ValueError: If it is both, or nested.
    """
    one = isinstance(videos, str | os.PathLike)
    items: list[Any] = [videos] if one else list(videos) if isinstance(videos, list | tuple) else []
    are_paths = [isinstance(item, str | os.PathLike) for item in items]
    if not any(are_paths):
        nested = [part for item in items if isinstance(item, list | tuple) for part in item]
        if any(isinstance(part, str | os.PathLike) for part in nested):
            raise ValueError(
                "a list holds lists of paths: give one list of paths of videos, and images opened, as frames"
            )
        return None
    if not all(are_paths):
        raise ValueError("the list mixes paths and frames: give a list of paths, or read the files first")
    return [os.fspath(item) for item in items]


def read_video(
    path: str, sampling: Sampling, prepare: Callable[[NDArray[np.uint8]], Tensor]
) -> tuple[Tensor, VideoMetadata]:
    """Read the frames that a sampling takes from a file, and what is known of them.

    Args:
        path: The file or address.
        sampling: Which frames.
        prepare: Makes pixel values `[m, C, h, w]` of frames, uint8 `[m, H, W, 3]`; called for a few at a time.

    Returns:
        Pixel values `[T, C, h, w]`, and the facts.

    Raises:
        VideoReadError: If the file cannot be read.
    """
    with open_reader(path) as stored:
        by_clip = sampling.wanted and sampling.num_frames is None and sampling.fps is None
        fps = sampling.clip.fps if by_clip and sampling.clip is not None else None
        reader: Reader = stored if fps is None else ResampledReader(stored, fps)
        info, times = stored.info, stored.timestamps_seconds
        total = len(stored)
        rate = info.frame_rate
        if not rate and total > 1 and times[-1] > 0:
            rate = float((total - 1) / times[-1])
        indices = sampled_indices(len(reader), sampling, frame_rate=rate, clip_rule=clip_indices)
        frames = frames_in_parts(reader.frames_in_order, indices, prepare)
        indices = stored_frames(reader, indices)
    duration = info.duration_seconds or (total / rate if rate else None)
    facts = VideoMetadata(
        total, rate, info.width, info.height, duration, "pyav", indices.tolist(), times[indices].tolist()
    )
    return frames, facts


def sample_videos(
    videos: Videos, given: Any, sampling: Sampling, *, wanted: bool
) -> tuple[Videos, list[VideoMetadata]]:
    """Sample videos given as frames, and put together what is known of them.

    Args:
        videos: One video or a batch of them, in a form that `videomae.processing.frames.collect_videos` takes.
        given: What the caller knows of them: a mapping, or one for each.
        sampling: Which frames are taken.
        wanted: Whether the second result is used.

    Returns:
        The videos, and a `VideoMetadata` for each where it is wanted or they are sampled.

    Raises:
        ValueError: If what is given does not fit the videos, or does not tell a frame rate that is needed.
    """
    if not (sampling.wanted or wanted):
        return videos, []
    batch = _split(videos)
    known = [given] if isinstance(given, Mapping) else list(given) if given is not None else [{}] * len(batch)
    if len(known) != len(batch):
        raise ValueError(f"video_metadata is for {len(known)} videos, and {len(batch)} are given: give one for each")
    taken, metadata = [], []
    for number, (frames, entry) in enumerate(zip(batch, known, strict=True)):
        total = len(frames)
        if total == 0:
            raise ValueError(f"video {number} has no frames: remove it or give it at least one")
        if sampling.wanted and entry.get("total_num_frames") not in (None, total):
            raise ValueError(
                f"video_metadata says that video {number} has {entry['total_num_frames']} frames, but {total} are "
                "given: give all its frames, or leave the sampling out"
            )
        indices = sampled_indices(total, sampling, frame_rate=entry.get("fps"), clip_rule=clip_indices_of_frames)
        names = VideoMetadata.__dataclass_fields__
        facts = {name: value for name, value in dict(entry).items() if name in names}
        facts.setdefault("total_num_frames", total)
        if sampling.wanted or facts.get("frames_indices") is None:
            facts["frames_indices"] = indices.tolist()
        metadata.append(VideoMetadata(**facts))
        taken.append(_taken(frames, indices) if sampling.wanted else frames)
    return cast("Videos", taken), metadata


def _split(videos: Any) -> list[Any]:
    """Return the videos of a batch, each a list of frames or an array of them."""
    if isinstance(videos, list | tuple):
        is_batch = isinstance(videos[0], list | tuple) or getattr(videos[0], "ndim", 3) == 4 if videos else False
        return list(videos) if is_batch else [list(videos)]
    num_dims = getattr(videos, "ndim", 3)
    return list(videos) if num_dims == 5 else [videos] if num_dims == 4 else [[videos]]


def _taken(frames: Any, indices: IntArray) -> Any:
    if isinstance(frames, Tensor):
        return frames[torch.from_numpy(indices).to(frames.device)]
    return frames[indices] if isinstance(frames, np.ndarray) else [frames[index] for index in indices.tolist()]
