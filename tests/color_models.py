"""A classifier whose right answer is known: the color that fills most of a clip, by weights set by hand.

Its blocks pass their input on unchanged, its patch embedding takes the mean of each color channel, and its last layer
tells which is largest. Two colors that share a clip half and half have a probability of one half each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord, save_record
from videomae.video.sampling import ClipConfig
from videomae.video.write import write_video

COLORS = {"blue": (20, 20, 230), "green": (20, 230, 20), "red": (230, 20, 20)}
CLASSES = tuple(COLORS)
CLIP = ClipConfig(num_frames=4, stride=2)
RATE = 10.0  # frames a second of the videos


def save_color_classifier(folder: Path, *, clip: ClipConfig = CLIP, sharpness: float = 2.0) -> Path:
    """Save the classifier; returns its folder."""
    config = VideoMAEConfig(
        image_size=16,
        patch_size=8,
        num_frames=clip.num_frames,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        decoder_hidden_size=8,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=1,
        decoder_intermediate_size=8,
        id2label=dict(enumerate(CLASSES)),
    )
    model = VideoMAEForVideoClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        projection = model.videomae.embeddings.patch_embeddings.projection
        for channel in range(3):  # red, green, blue in the units of those names
            projection.weight[channel, channel] = 1000.0 / projection.weight[0, 0].numel()
        for label, channel in enumerate((2, 1, 0)):
            model.classifier.weight[label, channel] = sharpness
    model.save_pretrained(folder)
    VideoMAEImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)
    save_record(folder, ModelRecord(sampling=clip))
    return folder


def color_frames(segments: list[tuple[str, float]], *, size: int = 32, rate: float = RATE) -> np.ndarray:
    """Return uint8 `[T, size, size, 3]`: colors, each for some seconds, with a little noise."""
    rng = np.random.default_rng(0)
    parts = [np.full((round(seconds * rate), size, size, 3), COLORS[name], np.uint8) for name, seconds in segments]
    frames = np.concatenate(parts)
    noise: np.ndarray = rng.integers(0, 12, frames.shape, dtype=np.uint8)
    return frames + noise


def write_color_video(path: Path, segments: list[tuple[str, float]], *, rate: float = RATE) -> Path:
    """Write such frames as a video; returns its path."""
    write_video(path, color_frames(segments, rate=rate), frame_rate=rate)
    return path
