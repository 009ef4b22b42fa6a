"""The frame sampling that a model folder remembers, in the `clip` entry of its `videomae.json`.

A network learns at one distance between frames and is worse at any other, so the distance travels with it. On
this floor because testing and prediction both need it. Knows nothing of weights or pixels.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videomae.errors import ConfigError, WeightsError
from videomae.model.config import VideoMAEConfig
from videomae.model.json_files import read_json
from videomae.model.sources import RECORD_FILE
from videomae.video.sampling import ClipConfig

PUBLISHED_STRIDE = 4  # of the published Kinetics networks, the ones whose folders most often have no record
RGB_CHANNELS = 3


def record_from_clip(clip: ClipConfig) -> dict[str, Any]:
    """Return the record entry of a clip, plain JSON values; `clip_from_record` reads it back equal."""
    return {"clip": dataclasses.asdict(clip)}


def clip_from_record(record: Mapping[str, Any]) -> ClipConfig | None:
    """Read the clip out of the contents of a `videomae.json`.

    Args:
        record: The whole record; entries beside `clip` are left alone.

    Returns:
        The clip, or None where the record has none.

    Raises:
        ConfigError: If the entry is not what `record_from_clip` writes.
    """
    if "clip" not in record:
        return None
    entry = record["clip"]
    names = [one.name for one in dataclasses.fields(ClipConfig)]
    whole_numbers = ("num_frames", "stride")
    if not isinstance(entry, Mapping) or set(entry) != set(names):
        raise ConfigError(f"the clip entry is {entry!r}; it must be an object with {', '.join(names)}")
    for name in whole_numbers:
        if isinstance(entry[name], bool) or not isinstance(entry[name], int):
            raise ConfigError(f"clip.{name} is {entry[name]!r}; it must be a whole number of frames")
    return ClipConfig(**entry)


def stored_clip(record: Path | None, config: VideoMAEConfig, *, name: str) -> ClipConfig:
    """Return the frame sampling that a network was trained with.

    A network without record, such as one that transformers wrote, says nothing about it. Then the configuration's
    number of frames at the published stride of 4 is assumed, with a warning.

    Args:
        record: Its `videomae.json`; None if it has none.
        config: Its configuration.
        name: What to call the network in messages.

    Raises:
        WeightsError: If the record cannot be read.
    """
    try:
        clip = None if record is None else clip_from_record(read_json(record))
    except ConfigError as error:
        raise WeightsError(f"{record}: {error}") from None
    if clip is not None:
        return clip
    warnings.warn(
        f"{name} does not say how its clips were sampled (no clip in {RECORD_FILE}): assuming "
        f"{config.num_frames} frames, stride {PUBLISHED_STRIDE}; give the clip to choose another",
        UserWarning,
        stacklevel=4,
    )
    return ClipConfig(num_frames=config.num_frames, stride=PUBLISHED_STRIDE)


def check_clip(clip: ClipConfig, config: VideoMAEConfig) -> None:
    """Check that a network can take such clips of video.

    Raises:
        ConfigError: If its tubelets do not divide the clip, or it does not take frames of red, green and blue.
    """
    if clip.num_frames % config.tubelet_size:
        raise ConfigError(
            f"clip.num_frames is {clip.num_frames}, which the network's tubelets of {config.tubelet_size} frames do "
            f"not divide: use a multiple of {config.tubelet_size}"
        )
    if config.num_channels != RGB_CHANNELS:
        raise ConfigError(
            f"the network takes frames of {config.num_channels} channel(s), but videos are read as RGB: call the "
            "network with pixel values of your own"
        )
