"""Which frames and which crop make a clip: index arithmetic only.

Every function is pure: frame counts and a generator in, frame indices out. `n` is the number of frames of the video,
`T` the frames of a clip, `s` its stride, `S` the views.

Dense clips have the stride that is asked for, to the frame. The original's loaders are a frame off here and there;
the published models have seen clips of that kind, so there is a kind `original`, index for index theirs.

Everything that reads a trained model's clip from a video file (the video processor, `Predictor`, the pipeline,
features, reconstruction, evaluation) takes its frames from `clip_indices`, so that one file gives one clip whoever
asks. A file shorter than a clip repeats a frame at its end; see `centre_clip`. Frames that a caller
holds in memory are a video as well, unless there are exactly T of them; see `clip_indices_of_frames`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from videomae.errors import ConfigError

IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class ClipConfig:
    """How many frames a clip has and how they lie in the video."""

    num_frames: int = 16
    """Frames per clip (T)."""
    stride: int = 4
    """Distance between consecutive frames of a dense clip, in frames of the video; ignored for segment clips."""
    kind: Literal["dense", "segment", "original"] = "dense"
    """dense: frames `stride` apart; segment: one frame from each of `num_frames` equal parts of the video; original:
    dense clips as in the original VideoMAE's data loaders, whose rules for windows and short videos are off by one
    frame in some cases, for the published models."""
    fps: float | None = None
    """Frame rate at which videos are read before sampling, so that videos with 15 and 60 frames per second give
    similar clips; `stride` then counts these frames. null: the frames of the file."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in (("num_frames", self.num_frames), ("stride", self.stride)):
            if value < 1:
                raise ConfigError(f"clip.{name} is {value}; it is a number of frames, at least 1")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ConfigError(f"clip.fps is {self.fps}; it is a number of frames a second, above 0, or null")
        if self.kind not in ("dense", "segment", "original"):
            raise ConfigError(f"clip.kind is {self.kind!r}; it is 'dense', 'segment' or 'original'")

    @property
    def span(self) -> int:
        """Frames of the video from the first to the last frame of a dense clip, both included."""
        return (self.num_frames - 1) * self.stride + 1


class CropOffset(NamedTuple):
    """Upper left corner of a square crop, in pixels."""

    top: int
    left: int


def pretraining_clip(total_frames: int, clip: ClipConfig, *, rng: np.random.Generator) -> IntArray:
    """Draw the frames of one pre-training clip.

    A dense clip starts at a random frame. Where the video ends early, the last frame that the stride reaches is
    repeated. In the original the step onto the very last frame of the video is not taken (37 frames at stride 4 end
    with 32, and a stride of 1 repeats the last but one), and no clip ends with the last `s - 1` frames.

    Args:
        total_frames: n, at least 1.
        clip: Length, stride and kind.
        rng: Source of the start, or of the position in each segment.

    Returns:
        `[T]` int64, ascending, in `[0, n)`.

    Raises:
        ValueError: If the video has no frames.

    Source: the original VideoMAE pre-training loader; for segments the Something-Something loader.
    """
    _check_total(total_frames)
    if clip.kind == "segment":
        return _segment_clip(total_frames, clip.num_frames, rng=rng)
    if clip.kind == "dense":
        return _strided(total_frames, clip, start=int(rng.integers(max(total_frames - clip.span, 0) + 1)))
    num_starts = total_frames - clip.num_frames * clip.stride + 1
    start = int(rng.integers(num_starts)) if num_starts > 0 else 0
    num_advances = max((total_frames - 2 - start) // clip.stride, 0)
    return start + clip.stride * np.minimum(np.arange(clip.num_frames), num_advances)


def finetuning_clip(total_frames: int, clip: ClipConfig, *, rng: np.random.Generator) -> IntArray:
    """Draw the frames of one training clip for classification.

    A dense clip is drawn as in pre-training. The original spreads T frames evenly over a random window of `T * s`
    frames, both ends included, so that they lie slightly further apart than s; a video of at most `T * s` frames it
    reads at about stride s, and repeats its last frame.

    Args:
        total_frames: n, at least 1.
        clip: Length, stride and kind.
        rng: Source of the window, or of the position in each segment.

    Returns:
        `[T]` int64, ascending, in `[0, n)`.

    Raises:
        ValueError: If the video has no frames.

    Source: the original VideoMAE fine-tuning loaders.
    """
    _check_total(total_frames)
    if clip.kind != "original":
        return pretraining_clip(total_frames, clip, rng=rng)
    window = clip.num_frames * clip.stride
    if total_frames <= window:
        return _short_window(total_frames, clip)
    return _window(int(rng.integers(window, total_frames)), clip)


def centre_clip(total_frames: int, clip: ClipConfig) -> IntArray:
    """Return the validation clip: the middle of the video, deterministic.

    A video that is shorter than a dense clip is read from its beginning at stride s, and the last frame on the stride
    is repeated: 16 frames give 0, 4, 8, 12, 12, ... for T = 16 and s = 4; the original gives 0, 5, 10, 15, 15. It is
    not read frame by frame, not even where n = T: the model learned motion at stride s.

    Args:
        total_frames: n, at least 1.
        clip: Length, stride and kind.

    Returns:
        `[T]` int64, ascending, in `[0, n)`.

    Raises:
        ValueError: If the video has no frames.

    Source: for the original, the validation loader of VideoMAE V2, whose rule for short videos is that of both
    versions' fine-tuning loaders; the first version validates on random clips.
    """
    _check_total(total_frames)
    if clip.kind == "segment":
        return _segment_clip(total_frames, clip.num_frames, rng=None)
    if clip.kind == "dense":
        return _strided(total_frames, clip, start=max(total_frames - clip.span, 0) // 2)
    window = clip.num_frames * clip.stride
    if total_frames <= window:
        return _short_window(total_frames, clip)
    return _window((window + total_frames) // 2, clip)


def view_clips(total_frames: int, clip: ClipConfig, *, num_views: int) -> IntArray:
    """Return the clips of the published test protocols.

    Dense views start at even distances, the first at the first frame and the last so that it ends with the last
    frame; a single view starts at the first frame. In the original all views are on one stride from the first frame,
    and the last ends with the last frame on it. Segment views interleave: view k takes the k-th of S evenly spaced
    frames of each segment.

    Args:
        total_frames: n, at least 1.
        clip: Length, stride and kind.
        num_views: S, at least 1.

    Returns:
        `[S, T]` int64, each row ascending, in `[0, n)`.

    Raises:
        ValueError: If the video has no frames or no view is asked for.

    Source: the test loaders of VideoMAE (original) and VideoMAE V2 (segment; for S = 2 it equals the first version).
    """
    _check_total(total_frames)
    if num_views < 1:
        raise ValueError(f"num_views is {num_views}; at least one view is needed")
    if clip.kind == "segment":
        part = total_frames / clip.num_frames  # frames of the video in one segment
        view, segment = np.arange(num_views)[:, None], np.arange(clip.num_frames)[None, :]
        frames = (view * part / num_views + part * segment).astype(np.int64)  # [S, T], truncated
        return np.sort(frames, axis=None).reshape(clip.num_frames, num_views).T.copy()  # [S, T]
    if clip.kind == "dense":
        firsts = np.linspace(0, max(total_frames - clip.span, 0), num_views).round().astype(int).tolist()
        return np.stack([_strided(total_frames, clip, start=start) for start in firsts])  # [S, T]
    strided = np.arange(0, total_frames, clip.stride, dtype=np.int64)
    if len(strided) < clip.num_frames:
        strided = np.pad(strided, (0, clip.num_frames - len(strided)), mode="edge")
    spare = len(strided) - clip.num_frames
    starts = np.array([int(view * (spare / max(num_views - 1, 1))) for view in range(num_views)])  # [S]
    return strided[starts[:, None] + np.arange(clip.num_frames)]  # [S, T]


def clip_indices(total_frames: int, clip: ClipConfig, *, num_views: int = 1) -> IntArray:
    """Return the frames of every clip that is read from a video to be classified or encoded.

    Args:
        total_frames: n, at least 1.
        clip: Length, stride and kind.
        num_views: S: 1 gives the middle of the video (`centre_clip`), more the test protocol (`view_clips`).

    Returns:
        `[S, T]` int64, each row ascending, in `[0, n)`.

    Raises:
        ValueError: If the video has no frames or no view is asked for.
    """
    if num_views == 1:
        return centre_clip(total_frames, clip)[None]
    return view_clips(total_frames, clip, num_views=num_views)


def clip_indices_of_frames(num_given: int, clip: ClipConfig, *, num_views: int = 1) -> IntArray:
    """Return the frames of every clip of a video that a caller holds in memory.

    Exactly T frames are a clip that was sampled already and are taken as they are, as every model input of T frames
    is; any other number is sampled like a file of so many frames.

    Args:
        num_given: Frames in memory, at least 1.
        clip: Length, stride and kind.
        num_views: S, as for `clip_indices`.

    Returns:
        `[S, T]` int64; `[1, T]` for exactly T frames, which have only one view.

    Raises:
        ValueError: If there are no frames or no view is asked for.
    """
    if num_given == clip.num_frames:
        return np.arange(num_given, dtype=np.int64)[None]
    return clip_indices(num_given, clip, num_views=num_views)


def sliding_clips(total_frames: int, clip: ClipConfig, *, step_frames: int) -> IntArray:
    """Return dense clips that start every `step_frames` frames and together cover the whole video.

    The last clip is moved back so that it ends with the last frame of the video; a video shorter than one clip
    gives one clip whose last frame is repeated.

    Args:
        total_frames: n, at least 1.
        clip: Length and stride; the kind must not be segment.
        step_frames: Distance of neighbouring starts, in frames of the video, at least 1.

    Returns:
        `[W, T]` int64, starts ascending, in `[0, n)`.

    Raises:
        ValueError: If the video has no frames or the step is below 1.
        ConfigError: If the clip is of segments.
    """
    _check_total(total_frames)
    if step_frames < 1:
        raise ValueError(f"step_frames is {step_frames}; windows must move on by at least 1 frame")
    if clip.kind == "segment":
        raise ConfigError(f"clip.kind is {clip.kind!r}, but sliding clips lie at a fixed stride: use clip.kind dense")
    last_start = max(total_frames - clip.span, 0)
    starts = np.append(np.arange(0, last_start, step_frames, dtype=np.int64), last_start)  # [W]
    return np.stack([_strided(total_frames, clip, start=int(start)) for start in starts])  # [W, T]


def crop_views(height: int, width: int, *, size: int, num_crops: int) -> tuple[CropOffset, ...]:
    """Return the square crops of the published test protocols.

    Several crops lie at even distances along the longer side, from end to end; one crop lies in the centre. Along
    the shorter side every crop is centred, which is offset 0 where that side was resized to `size`.

    Args:
        height: Rows of the frame, at least `size`.
        width: Columns of the frame, at least `size`.
        size: Side of the crop, pixels.
        num_crops: Number of crops, at least 1.

    Returns:
        One offset for each crop, top to bottom or left to right.

    Raises:
        ValueError: If the frame is smaller than the crop or no crop is asked for.

    Source: the original VideoMAE test and validation loaders.
    """
    if min(height, width) < size:
        raise ValueError(
            f"the frame is {width}x{height}, smaller than the crop of {size}x{size}: resize it before cropping"
        )
    if num_crops < 1:
        raise ValueError(f"num_crops is {num_crops}; at least one crop is needed")
    centre = CropOffset(round((height - size) / 2), round((width - size) / 2))
    if num_crops == 1:
        return (centre,)
    step = (max(height, width) - size) / (num_crops - 1)
    starts = [int(crop * step) for crop in range(num_crops)]
    if height >= width:
        return tuple(CropOffset(start, centre.left) for start in starts)
    return tuple(CropOffset(centre.top, start) for start in starts)


def _strided(total_frames: int, clip: ClipConfig, *, start: int) -> IntArray:
    """Take T frames from `start` on, s apart; where the video ends, the last one on the stride is repeated."""
    return start + clip.stride * np.minimum(np.arange(clip.num_frames), (total_frames - 1 - start) // clip.stride)


def _window(end: int, clip: ClipConfig) -> IntArray:
    """Spread T frames over the `T * s` frames before `end`; `end` itself is clipped away."""
    start = end - clip.num_frames * clip.stride
    points = np.linspace(start, end, clip.num_frames)
    return np.clip(points, start, end - 1).astype(np.int64)


def _short_window(total_frames: int, clip: ClipConfig) -> IntArray:
    """Read a video of at most `T * s` frames at about stride s and repeat its last frame."""
    points = np.linspace(0, total_frames, total_frames // clip.stride)
    points = np.pad(points, (0, clip.num_frames - len(points)), constant_values=total_frames)
    return np.clip(points, 0, total_frames - 1).astype(np.int64)


def _segment_clip(total_frames: int, num_frames: int, *, rng: np.random.Generator | None) -> IntArray:
    """Take one frame of each of T segments: a random one, or the middle one without a generator.

    A video of fewer than T frames repeats its first frame and then gives every frame once, as VideoMAE V2 does
    (the first version repeats the first frame T times and never sees the rest).
    """
    length = total_frames // num_frames
    if length == 0:
        return np.maximum(np.arange(total_frames - num_frames, total_frames, dtype=np.int64), 0)
    offsets = np.full(num_frames, length // 2) if rng is None else rng.integers(length, size=num_frames)
    return np.arange(num_frames, dtype=np.int64) * length + offsets


def _check_total(total_frames: int) -> None:
    if total_frames < 1:
        raise ValueError(f"total_frames is {total_frames}; a clip needs a video of at least 1 frame")
