"""A tiny classifier and a folder of tiny videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.sampling import ClipConfig
from videomae.video.write import write_video

CLASSES = ("cut", "jump", "run")


@pytest.fixture
def clip() -> ClipConfig:
    return ClipConfig(num_frames=4, stride=3)


@pytest.fixture
def processor() -> VideoMAEImageProcessor:
    return VideoMAEImageProcessor(size=32, crop_size=32, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])


@pytest.fixture
def model() -> VideoMAEForVideoClassification:
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate(CLASSES)),
    )
    network = VideoMAEForVideoClassification(config).eval()
    with torch.no_grad():  # fresh weights give almost equal probabilities, which would hide mistakes
        network.classifier.weight.normal_(std=2.0)
    return network


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of each class, of several sizes and lengths, with equal file names in all folders."""
    root = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir()
        for video, (height, width, length) in enumerate([(48, 64, 30), (40, 36, 9)]):
            noise = rng.integers(0, 256, (length, height // 4, width // 4, 3), dtype=np.uint8)
            frames = noise.repeat(4, axis=1).repeat(4, axis=2) // 2 + np.uint8(40 * number)
            write_video(root / name / f"{video}.mp4", frames)
    return root
