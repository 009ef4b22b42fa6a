"""The processor of the published models, for models that have none beside them."""

from __future__ import annotations

from videomae.presets import IMAGENET_MEAN, IMAGENET_STD
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.weights.configs import ModelConfig


def default_processor(config: ModelConfig) -> VideoMAEImageProcessor | None:
    """Return the processor of the published models at a configuration's size: ImageNet's mean and std.

    Returns:
        None unless the model takes RGB frames, or their mean.
    """
    if config.num_channels not in (1, len(IMAGENET_MEAN)):
        return None
    height, width = config.image_height_width
    crop = {"height": height, "width": width}
    return VideoMAEImageProcessor(
        size={"shortest_edge": height} if height == width else crop,
        crop_size=crop,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )
