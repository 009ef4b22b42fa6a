"""Tiny saved models of each kind, and tiny videos, for the tests of every package above `model/`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_networks import tiny_network
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD, VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord, save_record
from videomae.video.sampling import ClipConfig
from videomae.video.write import write_video

CLIP = ClipConfig(num_frames=4, stride=3)
CLASSES = ("cut", "jump", "run")


def save_folder(model: VideoMAEPreTrainedModel, folder: Path, *, with_record: bool = True) -> Path:
    """Write a model folder as training does."""
    model.save_pretrained(folder)
    processor = VideoMAEImageProcessor(
        size=32, crop_size=32, image_mean=list(IMAGENET_MEAN), image_std=list(IMAGENET_STD)
    )
    processor.save_pretrained(folder)
    if with_record:
        save_record(folder, ModelRecord(sampling=CLIP))
    return folder


@pytest.fixture
def cls_folder(tmp_path: Path) -> Path:
    """A classifier with a CLS token, which no published model has."""
    torch.manual_seed(3)
    model = VideoMAEForVideoClassification(tiny_network(use_cls_token=True, num_labels=3))
    return save_folder(model, tmp_path / "cls")


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(tiny_network(id2label=dict(enumerate(CLASSES))))
    with torch.no_grad():  # fresh weights give almost equal probabilities, which would hide mistakes
        model.classifier.weight.normal_(std=1.5)
        model.fc_norm.weight.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return save_folder(model, tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def pretraining_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model = VideoMAEForPreTraining(tiny_network(use_mean_pooling=False))
    return save_folder(model, tmp_path_factory.mktemp("pretraining"))


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    model = VideoMAEModel(tiny_network(use_mean_pooling=True))
    return save_folder(model, tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames of 64x48 at 20 frames per second."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (30, 12, 16, 3), dtype=np.uint8)
    write_video(path, noise.repeat(4, axis=1).repeat(4, axis=2), frame_rate=20.0)
    return path


@pytest.fixture
def bad_video(tmp_path: Path) -> Path:
    path = tmp_path / "bad.mp4"
    path.write_bytes(b"nothing that decodes")
    return path
