"""What lies beside the weights in a model folder: the processor's file and the record of sampling and training."""

from __future__ import annotations

import warnings
from pathlib import Path

from videomae.errors import ConfigError, WeightsError
from videomae.processing.defaults import default_processor
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord, read_record, save_record
from videomae.weights.configs import ModelConfig
from videomae.weights.sources import PROCESSOR_FILE, RECORD_FILE, Origin


def save_beside(
    folder: Path,
    config: ModelConfig,
    *,
    origin: Origin | None = None,
    processor: VideoMAEImageProcessor | None = None,
    record: ModelRecord | None = None,
) -> None:
    """Write `preprocessor_config.json` and `videomae.json` where the folder lacks them or they are given.

    Args:
        folder: Of a model that was just saved.
        config: Its configuration.
        origin: Where it was loaded from: its processor, how its clips were sampled, and its thresholds are written
            again. The record of its training is not, since it may have been trained since.
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
            found = read_record(origin.record)
            known = set(config.id2label.values()).issuperset(found.thresholds or ())  # else it has other labels now
            record = ModelRecord(sampling=found.sampling, thresholds=found.thresholds if known else None)
        except WeightsError as error:
            warnings.warn(f"the frame sampling is not written: {error}", UserWarning, stacklevel=4)
    if record is not None and record != ModelRecord():
        save_record(folder, record)


def _processor_of(origin: Origin | None) -> VideoMAEImageProcessor | None:
    if origin is None or origin.processor is None:
        return None
    try:
        return VideoMAEImageProcessor.from_pretrained(origin.processor)
    except (ConfigError, WeightsError) as error:
        warnings.warn(f"the processor of the published models is written: {error}", UserWarning, stacklevel=5)
        return None
