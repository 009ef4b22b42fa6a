"""What lies beside the weights in a model folder: the processor's file and the record of sampling and training.

Knows nothing of tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videomae.errors import ConfigError, WeightsError
from videomae.model.config import VideoMAEConfig
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.processing.pixels import IMAGENET_MEAN, IMAGENET_STD
from videomae.weights.saving import load_record, save_record
from videomae.weights.sources import PROCESSOR_FILE, RECORD_FILE, Origin


def save_companions(
    folder: Path,
    config: VideoMAEConfig,
    *,
    origin: Origin | None = None,
    processor: VideoMAEImageProcessor | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write `preprocessor_config.json` and `videomae.json` where the folder lacks them or they are given.

    Args:
        folder: Of a model that was just saved.
        config: Its configuration.
        origin: Where it was loaded from: its processor, and how its clips were sampled, are written again. The
            record of its training is not, since it may have been trained since.
        processor: The processor to write.
        record: The record to write.

    Raises:
        WeightsError: If the disk refuses.
    """
    if processor is None and not (folder / PROCESSOR_FILE).exists():
        processor = _processor_of(origin) or default_processor(config)
    if processor is not None:
        processor.save_pretrained(folder)
    if record is None and origin is not None and origin.record is not None and not (folder / RECORD_FILE).exists():
        try:
            record = {name: value for name, value in load_record(origin.record.parent).items() if name == "clip"}
        except WeightsError as error:
            warnings.warn(f"the frame sampling is not written: {error}", UserWarning, stacklevel=4)
    if record:
        save_record(folder, record)


def default_processor(config: VideoMAEConfig) -> VideoMAEImageProcessor | None:
    """Return the processor of the published networks at a configuration's size; None unless it takes RGB frames."""
    if config.num_channels != len(IMAGENET_MEAN):
        return None
    height, width = config.image_height_width
    crop = {"height": height, "width": width}
    return VideoMAEImageProcessor(
        size={"shortest_edge": height} if height == width else crop,
        crop_size=crop,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )


def _processor_of(origin: Origin | None) -> VideoMAEImageProcessor | None:
    if origin is None or origin.processor is None:
        return None
    try:
        return VideoMAEImageProcessor.from_pretrained(origin.processor)
    except (ConfigError, WeightsError) as error:
        warnings.warn(f"the processor of the published networks is written: {error}", UserWarning, stacklevel=5)
        return None
