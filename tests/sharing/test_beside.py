"""A loaded model owns its memory, and what lay beside its weights goes with it into the folder it is saved to."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch

from tiny_models import ALL_CLASSES, inputs_for, make_model, scalar
from videomae.errors import ConfigError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord, load_record, save_record
from videomae.video.sampling import ClipConfig

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")

# What is handed out.


@pytest.mark.parametrize("held", ALL_CLASSES)
def test_the_model_has_memory_of_its_own(held: type[VideoMAEPreTrainedModel], tmp_path: Path) -> None:
    source = make_model(held)
    source.save_pretrained(tmp_path)
    model = held.from_pretrained(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    with (tmp_path / "model.safetensors").open("rb+") as stream:
        stream.write(bytes(len(content)))  # in place: a tensor that were still mapped would become zero
    assert all(torch.equal(one, source.state_dict()[name]) for name, one in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    assert not model.training
    assert all(not one.is_meta for one in [*model.parameters(), *model.buffers()])


def test_a_loaded_model_trains_copies_and_pickles(tmp_path: Path) -> None:
    make_model(VideoMAEForVideoClassification).save_pretrained(tmp_path)
    model = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    scalar(model.train()(**inputs_for(model))).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.classifier.weight, model.classifier.weight)


def test_the_random_numbers_of_the_caller_decide_fresh_values(tmp_path: Path) -> None:
    make_model(VideoMAEForPreTraining).save_pretrained(tmp_path)
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(VideoMAEForVideoClassification.from_pretrained(tmp_path).classifier.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_complete_load_draws_no_random_numbers(tmp_path: Path) -> None:
    make_model(VideoMAEForPreTraining).save_pretrained(tmp_path)
    before = torch.get_rng_state()
    VideoMAEForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


# What lies beside the weights.


def test_saving_writes_a_processor_that_prepares_frames_as_the_published_models_were_trained(tmp_path: Path) -> None:
    make_model(VideoMAEModel).save_pretrained(tmp_path)
    processor = VideoMAEImageProcessor.from_pretrained(tmp_path)
    assert list(processor.image_mean) == [0.485, 0.456, 0.406]
    assert dict(processor.crop_size) == {"height": 16, "width": 16}


def test_a_model_of_other_channels_gets_no_processor_that_would_be_wrong(tmp_path: Path) -> None:
    make_model(VideoMAEModel, num_channels=4).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()


def test_the_processor_and_the_sampling_travel_with_the_model(tmp_path: Path) -> None:
    source = make_model(VideoMAEForVideoClassification)
    odd = VideoMAEImageProcessor(size=20, crop_size=16, image_mean=[0.1, 0.2, 0.3], image_std=[1.0, 1.0, 1.0])
    record = {"clip": {"num_frames": 4, "stride": 7, "kind": "dense"}, "training": {"steps": 3}}
    source.save_pretrained(tmp_path / "a", processor=odd, record=record)
    assert load_record(tmp_path / "a") == ModelRecord.from_dict(record)
    model = VideoMAEForVideoClassification.from_pretrained(tmp_path / "a")
    model.save_pretrained(tmp_path / "b")
    assert list(VideoMAEImageProcessor.from_pretrained(tmp_path / "b").image_mean) == [0.1, 0.2, 0.3]
    sampling = ModelRecord(sampling=ClipConfig(num_frames=4, stride=7))
    assert load_record(tmp_path / "b") == sampling, "it may have been trained since"


def test_what_lies_in_the_folder_already_is_not_replaced(tmp_path: Path) -> None:
    source = make_model(VideoMAEModel)
    odd = VideoMAEImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[1.0, 1.0, 1.0])
    odd.save_pretrained(tmp_path)
    save_record(tmp_path, {"a": 1})
    source.save_pretrained(tmp_path)
    assert list(VideoMAEImageProcessor.from_pretrained(tmp_path).image_mean) == [0.1, 0.2, 0.3]
    assert load_record(tmp_path).to_dict() == {"a": 1}


def test_a_record_that_is_none_is_refused_before_the_weights_are_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="training is 'long'; it must be an object"):
        make_model(VideoMAEModel).save_pretrained(tmp_path / "a", record={"training": "long"})
    assert not (tmp_path / "a").exists()
