"""A small labelled data set of generated videos, and a tiny encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videomae.data.synthetic import write_motion_videos
from videomae.model.config import VideoMAEConfig
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos of two motions, with a list that puts two of each class into a group. Never change it."""
    folder = tmp_path_factory.mktemp("probe") / "clips"
    every = folder.with_name("every")
    write_motion_videos(every, videos_per_class=6, size=32, num_frames=16)
    folder.mkdir()
    for name in ("left", "right"):
        (every / name).rename(folder / name)
    lines = [
        f"{path.relative_to(folder).as_posix()},{path.parent.name},{path.parent.name}{number // 2},"
        f"{'test' if number < 2 else 'train'}"
        for name in ("left", "right")
        for number, path in enumerate(sorted((folder / name).glob("*.mp4")))
    ]
    (folder / "labels.csv").write_text("\n".join(["path,label,group,split", *lines]) + "\n")
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained encoder with its decoder, saved."""
    folder = tmp_path_factory.mktemp("probe") / "encoder"
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
        use_mean_pooling=False,
    )
    record = {"clip": {"kind": "dense", "num_frames": 8, "stride": 2}, "licence": "cc-by-nc-4.0"}
    processor = VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    VideoMAEForPreTraining(config).save_pretrained(folder, processor=processor, record=record)
    return folder
