"""Synthetic motion videos: sprites over a moving background, in classes that only motion tells apart.

A model that reads single frames stays at chance on them, so an accuracy above chance proves that time is used.
That holds by construction: the frame is a torus, every sprite starts at a uniform position on it, and its trajectory
is a displacement that does not depend on that position. Hence every single frame of every class has the same
distribution, whatever the trajectory. Sprites (shape, size, angle, stripes, colors) and background (texture,
direction and speed of its drift) are drawn without looking at the class. With the same generator state, frame 0 of
all classes is the very same image.

The files are ordinary H.264 videos, one folder per class.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomae.engine.seeding import numpy_generator
from videomae.errors import ConfigError, ManifestError
from videomae.video.probe import VIDEO_SUFFIXES
from videomae.video.write import write_video

MOTION_CLASSES = (
    "clockwise",
    "counterclockwise",
    "down",
    "horizontal_shake",
    "left",
    "right",
    "up",
    "vertical_shake",
)
"""Class names in alphabetical order, which is the label order of a scanned folder."""

FRAME_RATE = 25.0
NUM_SPRITES = 2
NUM_WAVES = 6  # plane waves of one background: enough to look like cloth, few enough to draw in a millisecond
MAX_WAVES_PER_FRAME = 4  # highest spatial frequency of a background, in periods per frame side
MIN_SIZE = 16  # below this a sprite is smaller than its own soft edge and stripes

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class _Trajectory:
    """How one sprite moves. Lengths in frame sides, times in frames; every class draws all of them, uses some."""

    start: tuple[float, float]
    speed: float
    radius: float
    period: float
    phase: float


@dataclass(frozen=True)
class _Appearance:
    """One sprite's appearance. Lengths in frame sides, angles in radians, colors in 0..255."""

    num_sides: int
    radius: float
    angle: float
    stripe_angle: float
    stripe_length: float
    stripe_phase: float
    colors: FloatArray


def motion_frames(class_name: str, *, size: int, num_frames: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one video of a class.

    Args:
        class_name: One of `MOTION_CLASSES`: how the sprites move. Directions are those on the screen.
        size: Height and width in pixels, at least 16.
        num_frames: T, at least 1.
        rng: Source of all randomness. It is used in the same way for every class.

    Returns:
        uint8 `[T, size, size, 3]` RGB.

    Raises:
        ConfigError: If the class is unknown or a number out of range.
    """
    if class_name not in MOTION_CLASSES:
        raise ConfigError(f"motion class {class_name!r} is unknown: use one of {', '.join(MOTION_CLASSES)}")
    if size < MIN_SIZE:
        raise ConfigError(f"size is {size} pixels; motion videos need at least {MIN_SIZE}")
    if num_frames < 1:
        raise ConfigError(f"num_frames is {num_frames}; a video has at least 1 frame")
    frames = _background(size, num_frames, rng)
    times = np.arange(num_frames, dtype=np.float64)
    for _ in range(NUM_SPRITES):
        appearance, trajectory = _draw_appearance(rng), _draw_trajectory(rng)
        centers = np.asarray(trajectory.start) + _displacement(class_name, trajectory, times)  # [T, 2]
        _paint(frames, appearance, centers * size)
    return np.rint(frames).clip(0, 255).astype(np.uint8)


def write_motion_videos(
    folder: str | os.PathLike[str],
    *,
    videos_per_class: int,
    size: int = 64,
    num_frames: int = 32,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `folder/<class>/<class>_<number>.mp4` for all of `MOTION_CLASSES`.

    Video `i` of a class is a function of (seed, class, i) alone, so asking for more keeps the first ones. Files
    that the same call would write are replaced; any other video in the folder is an error, so that two sets
    never mix.

    Args:
        folder: Where to write; made if missing.
        videos_per_class: At least 1.
        size: Height and width in pixels, even (H.264) and at least 16.
        num_frames: Frames of each video.
        seed: Another seed, other videos.
        on_progress: Called after each video with (written, total).

    Raises:
        ConfigError: If a number is out of range.
        ManifestError: If the folder holds other videos.
    """
    if videos_per_class < 1:
        raise ConfigError(f"videos_per_class is {videos_per_class}; it must be at least 1")
    if size < MIN_SIZE or size % 2:
        raise ConfigError(f"size is {size} pixels; motion videos need an even size of at least {MIN_SIZE}")
    root = Path(folder)
    # Round-robin over the classes: an interrupted call leaves a balanced set.
    plan = {
        root / name / f"{name}_{index:04d}.mp4": (name, index)
        for index in range(videos_per_class)
        for name in MOTION_CLASSES
    }
    refuse_other_videos(root, set(plan))
    for number, (path, (name, index)) in enumerate(plan.items(), start=1):
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = numpy_generator(seed, "motion", name, index)
        frames = motion_frames(name, size=size, num_frames=num_frames, rng=rng)
        write_video(path, frames, frame_rate=FRAME_RATE)
        if on_progress is not None:
            on_progress(number, len(plan))


def refuse_other_videos(root: Path, planned: set[Path]) -> None:
    """Raise if the folder holds a video that is not in the plan."""
    present = (path for path in sorted(root.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES)
    for path in present:
        if path not in planned:
            raise ManifestError(
                f"{root} already holds another video, {path.relative_to(root).as_posix()}: "
                "choose an empty folder or delete this one"
            )


def _draw_trajectory(rng: np.random.Generator) -> _Trajectory:
    """Draw where a sprite starts and how far and fast it goes.

    At 64 pixels: 1.4 to 2.6 pixels per frame for the straight classes, circles and shakes of 7 to 10 pixels to
    each side. Periods of 12 to 18 frames keep a shake readable at every second or fourth frame.
    """
    return _Trajectory(
        start=(float(rng.uniform()), float(rng.uniform())),
        speed=float(rng.uniform(0.022, 0.040)),
        radius=float(rng.uniform(0.11, 0.16)),
        period=float(rng.uniform(12.0, 18.0)),
        phase=float(rng.uniform(0.0, 2.0 * math.pi)),
    )


def _displacement(class_name: str, trajectory: _Trajectory, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the displacement since frame 0, `[T, 2]` as (x, y) in frame sides, y downwards."""
    angles = trajectory.phase + 2.0 * math.pi * times / trajectory.period  # [T]
    along = trajectory.radius * (np.cos(angles) - math.cos(trajectory.phase))
    across = trajectory.radius * (np.sin(angles) - math.sin(trajectory.phase))
    straight = trajectory.speed * times
    rest = np.zeros_like(times)
    match class_name:
        case "right":
            x, y = straight, rest
        case "left":
            x, y = -straight, rest
        case "down":
            x, y = rest, straight
        case "up":
            x, y = rest, -straight
        case "clockwise":  # y points down, so growing angles turn clockwise on the screen
            x, y = along, across
        case "counterclockwise":
            x, y = along, -across
        case "horizontal_shake":
            x, y = along, rest
        case _:
            x, y = rest, along
    return np.stack([x, y], axis=1)


def _draw_appearance(rng: np.random.Generator) -> _Appearance:
    """Draw a sprite's appearance: a regular polygon or a disc with stripes of two opposite, vivid colors."""
    corner = rng.integers(0, 2, size=3) * 205.0  # a corner of the color cube, softened by up to 50
    softness = rng.uniform(0.0, 50.0, size=3)
    vivid = corner + softness
    return _Appearance(
        num_sides=int(rng.choice([0, 3, 4, 5, 6])),  # 0: a disc
        radius=float(rng.uniform(0.24, 0.32)),
        angle=float(rng.uniform(0.0, 2.0 * math.pi)),
        stripe_angle=float(rng.uniform(0.0, 2.0 * math.pi)),
        stripe_length=float(rng.uniform(0.30, 0.60)),
        stripe_phase=float(rng.uniform(0.0, 2.0 * math.pi)),
        colors=np.stack([vivid, 255.0 - vivid]).astype(np.float32),
    )


def _background(size: int, num_frames: int, rng: np.random.Generator) -> FloatArray:
    """Draw a soft texture that drifts over the torus, float32 `[T, size, size, 3]`.

    It is a sum of plane waves with whole numbers of periods per side, so it has no seam. A drift only turns the
    waves' phases, so it is exact at any fraction of a pixel.
    """
    periods = rng.integers(-MAX_WAVES_PER_FRAME, MAX_WAVES_PER_FRAME + 1, size=(NUM_WAVES, 2))
    phases = rng.uniform(0.0, 2.0 * math.pi, size=NUM_WAVES)
    colors = rng.normal(0.0, 7.0, size=(NUM_WAVES, 3))
    base = rng.uniform(80.0, 175.0, size=3)
    direction = rng.uniform(0.0, 2.0 * math.pi)
    speed = rng.uniform(0.003, 0.012)  # 0.2 to 0.8 pixels per frame at 64 pixels: slower than the sprites

    ramp = 2.0 * math.pi * np.arange(size) / size  # [S]
    angles = periods[:, 0, None, None] * ramp + periods[:, 1, None, None] * ramp[:, None]
    angles = angles + phases[:, None, None]  # [K, S, S]
    drift = speed * np.asarray([math.cos(direction), math.sin(direction)])
    turns = -2.0 * math.pi * np.outer(np.arange(num_frames), periods @ drift)  # [T, K]
    # cos(angle + turn) = cos(turn) cos(angle) - sin(turn) sin(angle): 2K images, weighted anew for each frame
    images = np.concatenate([np.cos(angles), np.sin(angles)])  # [2K, S, S]
    colored = images[..., None] * np.concatenate([colors, colors])[:, None, None]  # [2K, S, S, 3]
    weights = np.concatenate([np.cos(turns), -np.sin(turns)], axis=1).astype(np.float32)  # [T, 2K]
    # einsum, not matmul: a matrix multiplication this thin is not worth the threads of a linear algebra library.
    waves = np.einsum("tk,kp->tp", weights, colored.reshape(2 * NUM_WAVES, -1).astype(np.float32))
    frames: FloatArray = waves.reshape(num_frames, size, size, 3) + base.astype(np.float32)
    return frames


def _paint(frames: FloatArray, appearance: _Appearance, centers: NDArray[np.float64]) -> None:
    """Lay a sprite over all frames, in place.

    Args:
        frames: float32 `[T, S, S, 3]`.
        appearance: The sprite.
        centers: `[T, 2]` (x, y) in pixels, any fraction; outside the frame they wrap around.
    """
    size = frames.shape[1]
    pixels = np.arange(size)
    offsets = (pixels - centers[..., None] + size / 2) % size - size / 2  # [T, 2, S], nearest way round
    x = offsets[:, 0, None, :].astype(np.float32)  # [T, 1, S]
    y = offsets[:, 1, :, None].astype(np.float32)  # [T, S, 1]
    radius = appearance.radius * size
    if appearance.num_sides == 0:
        outside = np.sqrt(x * x + y * y) - radius  # [T, S, S] signed distance to the edge
    else:
        inner = radius * math.cos(math.pi / appearance.num_sides)  # center to the middle of a side
        outside = np.full(frames.shape[:3], -np.inf, dtype=np.float32)
        for side in range(appearance.num_sides):
            normal = appearance.angle + 2.0 * math.pi * side / appearance.num_sides
            np.maximum(outside, x * math.cos(normal) + y * math.sin(normal) - inner, out=outside)
    cover = np.clip(0.5 - outside, 0.0, 1.0)[..., None]  # one pixel of soft edge carries the fraction of a pixel
    frequency = 2.0 * math.pi / (appearance.stripe_length * size)
    along = x * (frequency * math.cos(appearance.stripe_angle)) + y * (frequency * math.sin(appearance.stripe_angle))
    stripes = np.clip(0.5 + 2.0 * np.sin(along + np.float32(appearance.stripe_phase)), 0.0, 1.0)[..., None]
    first, second = appearance.colors
    frames += cover * (second + stripes * (first - second) - frames)
