"""Model folders of each kind: what is loaded, what is assumed aloud, what is refused."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch

from videomae.errors import ConfigError, WeightsError
from videomae.inference.loaded import (
    load_classifier,
    load_encoder,
    load_pretraining,
    source_kind,
)
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.video.sampling import ClipConfig

CLIP = ClipConfig(num_frames=4, stride=3)


def test_classifier_comes_with_its_names_processor_and_sampling(classifier_folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_classifier(classifier_folder, device="cpu")
    assert loaded.classes == ("cut", "jump", "run")
    assert loaded.clip == CLIP
    assert loaded.processor.crop_size == {"height": 32, "width": 32}
    assert loaded.source == str(classifier_folder)
    assert not loaded.model.training
    saved = VideoMAEForVideoClassification.from_pretrained(classifier_folder).state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.model.state_dict().items())


def test_folder_of_a_finished_run_is_its_model_folder(classifier_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(classifier_folder, tmp_path / "model")
    loaded, expected = load_classifier(tmp_path, device="cpu"), load_classifier(classifier_folder, device="cpu")
    assert loaded.clip == CLIP
    assert torch.equal(loaded.model.classifier.weight, expected.model.classifier.weight)


def test_the_callers_clip_wins_over_the_folders(classifier_folder: Path) -> None:
    clip = ClipConfig(num_frames=2, stride=1)
    assert load_classifier(classifier_folder, clip=clip, device="cpu").clip == clip


def test_folder_without_record_assumes_the_published_stride_aloud(classifier_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "as transformers writes it"
    shutil.copytree(classifier_folder, folder)
    (folder / "videomae.json").unlink()
    with pytest.warns(UserWarning, match="assuming 4 frames, stride 4"):
        assert load_classifier(folder, device="cpu").clip == ClipConfig(num_frames=4, stride=4, kind="original")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_classifier(folder, clip=CLIP, device="cpu").clip == CLIP


def test_kind_is_told_by_the_tensors(classifier_folder: Path, pretraining_folder: Path, encoder_folder: Path) -> None:
    kinds = [source_kind(folder) for folder in (classifier_folder, pretraining_folder, encoder_folder)]
    assert kinds == ["classification", "pretraining", "encoder"]


def test_encoder_of_every_kind_of_folder_can_be_loaded(
    classifier_folder: Path, pretraining_folder: Path, encoder_folder: Path
) -> None:
    assert isinstance(load_encoder(classifier_folder, device="cpu").model, VideoMAEForVideoClassification)
    for folder in (pretraining_folder, encoder_folder):
        assert isinstance(load_encoder(folder, device="cpu").model, VideoMAEModel)
    encoder = load_encoder(pretraining_folder, device="cpu").model
    whole = load_pretraining(pretraining_folder, device="cpu").model.videomae
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in encoder.state_dict().items())


def test_model_of_the_wrong_kind_is_refused_with_a_hint(classifier_folder: Path, pretraining_folder: Path) -> None:
    with pytest.raises(WeightsError, match="holds an encoder and its decoder, without a classifier: fine-tune"):
        load_classifier(pretraining_folder)
    with pytest.raises(WeightsError, match="holds a classifier, without a decoder: give a pre-trained model"):
        load_pretraining(classifier_folder)


def test_missing_and_damaged_weights_are_refused(classifier_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="none is no folder: give the folder of a saved model"):
        load_encoder(tmp_path / "none")
    folder = tmp_path / "folder"
    shutil.copytree(classifier_folder, folder)
    (folder / "model.safetensors").write_bytes(b"0123456789")
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read as safetensors"):
        load_encoder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load_encoder(folder)


def test_clip_that_does_not_fit_the_network_is_refused(classifier_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"clip\.num_frames is 5, .* use a multiple of 2"):
        load_classifier(classifier_folder, clip=ClipConfig(num_frames=5))
