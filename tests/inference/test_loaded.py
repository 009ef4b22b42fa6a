"""Trained models from every kind of source: complete or refused, and what is assumed is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae.errors import ConfigError, WeightsError
from videomae.inference.loaded import load_encoder, load_trained, source_kind
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import IMAGENET_MEAN, VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord, save_record
from videomae.video.sampling import ClipConfig
from videomae.weights.tensor_files import read_tensors

CLIP = ClipConfig(num_frames=4, stride=3)


def saved(cls: type[VideoMAEPreTrainedModel], folder: Path, **settings: object) -> VideoMAEPreTrainedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    decoder = {f"decoder_{name}": value for name, value in sizes.items()}
    config = VideoMAEConfig(**{"image_size": 32, "num_frames": 4, **sizes, **decoder, **settings})
    model = cls(config).eval()
    model.save_pretrained(folder)
    VideoMAEImageProcessor(size=32, crop_size=32, image_mean=0.25).save_pretrained(folder)
    save_record(folder, ModelRecord(sampling=CLIP))
    return model


@pytest.mark.parametrize("kind", ["folder", "run", "file", "shards"])
def test_network_processor_and_sampling_come_from_every_kind_of_source(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    model = saved(VideoMAEForVideoClassification, folder, num_labels=3)
    if kind == "shards":
        model.save_pretrained(folder, max_shard_size=2000)
        assert len(list(folder.glob("model-*.safetensors"))) > 1
    source = {"run": tmp_path, "file": folder / "model.safetensors"}.get(kind, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_trained(VideoMAEForVideoClassification, source, device="cpu")
    assert loaded.source == str(source)
    assert loaded.clip == CLIP
    assert loaded.processor.image_mean == 0.25
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.model.state_dict().items())


def test_no_head_is_randomly_initialized(tmp_path: Path) -> None:
    saved(VideoMAEForPreTraining, tmp_path / "pre", use_mean_pooling=False)
    saved(VideoMAEForVideoClassification, tmp_path / "cls")
    saved(VideoMAEModel, tmp_path / "enc")
    kinds = [source_kind(tmp_path / name) for name in ("pre", "cls", "enc")]
    assert kinds == ["pretraining", "classification", "encoder"]
    with pytest.raises(
        WeightsError, match="pre holds an encoder and its decoder, without a classifier: fine-tune it first"
    ):
        load_trained(VideoMAEForVideoClassification, tmp_path / "pre")
    with pytest.raises(WeightsError, match="cls holds a classifier, without a decoder: give a pre-trained model"):
        load_trained(VideoMAEForPreTraining, tmp_path / "cls")
    with pytest.raises(WeightsError, match="enc holds a bare encoder, without a classifier"):
        load_trained(VideoMAEForVideoClassification, tmp_path / "enc")
    for name in ("pre", "cls", "enc"):
        assert isinstance(load_trained(VideoMAEModel, tmp_path / name, device="cpu").model, VideoMAEModel)


@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel])
def test_a_checkpoint_is_opened_once(
    cls: type[VideoMAEPreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(cls, tmp_path)
    opened = []

    def counted(paths: Any, **options: Any) -> Any:
        opened.extend(paths)
        return read_tensors(paths, **options)

    monkeypatch.setattr("videomae.weights.sources.read_tensors", counted)
    load_encoder(tmp_path, device="cpu")
    assert opened == [tmp_path / "model.safetensors"]
    load_trained(cls, tmp_path, device="cpu")
    assert len(opened) == 2


def test_missing_processor_is_assumed_aloud(tmp_path: Path) -> None:
    saved(VideoMAEForVideoClassification, tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.warns(
        UserWarning, match=r"has no preprocessor_config\.json next to it: assuming .* 32x32 and ImageNet's"
    ):
        loaded = load_trained(VideoMAEForVideoClassification, tmp_path, device="cpu")
    assert loaded.processor.crop_size == {"height": 32, "width": 32}
    assert loaded.processor.image_mean == IMAGENET_MEAN


def test_missing_record_is_assumed_aloud_and_the_callers_clip_needs_none(tmp_path: Path) -> None:
    saved(VideoMAEForVideoClassification, tmp_path)
    (tmp_path / "videomae.json").unlink()
    with pytest.warns(UserWarning, match="assuming 4 frames, stride 4"):
        assert load_trained(VideoMAEForVideoClassification, tmp_path, device="cpu").clip == ClipConfig(
            4, 4, "original"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_trained(VideoMAEForVideoClassification, tmp_path, clip=CLIP, device="cpu").clip == CLIP


def test_network_that_takes_no_video_is_refused(tmp_path: Path) -> None:
    saved(VideoMAEForVideoClassification, tmp_path, num_channels=4)
    with pytest.raises(ConfigError, match=r"frames of 4 channels, but videos are read as RGB or as grey"):
        load_trained(VideoMAEForVideoClassification, tmp_path, device="cpu")


def test_missing_device_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        load_trained(VideoMAEModel, tmp_path / "none", device="tpu")  # type: ignore[arg-type]
