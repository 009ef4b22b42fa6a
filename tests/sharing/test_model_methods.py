"""What programs call on a model of transformers besides its forward is there, and says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from tiny_models import ALL_CLASSES, TINY, inputs_for, make_model, scalar
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_counts_are_those_of_transformers(cls: type[VideoMAEPreTrainedModel]) -> None:
    ours = make_model(cls)
    theirs = getattr(transformers, cls.__name__)(transformers.VideoMAEConfig(**TINY))
    if cls is VideoMAEForVideoClassification:
        assert ours.get_memory_footprint() == theirs.get_memory_footprint()
    assert ours.get_output_embeddings() is None
    assert ours.tie_weights() is None
    assert isinstance(cls._from_config(ours.config), cls)
    ours.add_model_tags(["one"])
    ours.add_model_tags("two")
    assert ours.model_tags == ("one", "two")


def test_gradients_reach_adapters_behind_frozen_embeddings_and_checkpoints() -> None:
    model = make_model(VideoMAEForVideoClassification).train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    inputs = inputs_for(model)
    assert not scalar(model(**inputs)).requires_grad
    model.enable_input_require_grads()
    model.enable_input_require_grads()
    assert scalar(model(**inputs)).requires_grad
    model.disable_input_require_grads()
    assert not scalar(model(**inputs)).requires_grad


def test_a_model_says_what_it_was_loaded_from(tmp_path: Path) -> None:
    model = make_model(VideoMAEForVideoClassification)
    assert model.name_or_path == ""
    model.config.my_own = {"a": 1}
    model.save_pretrained(tmp_path)
    again = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert again.name_or_path == str(tmp_path)
    assert again.config.my_own == {"a": 1}
    once_more = VideoMAEForVideoClassification.from_pretrained(tmp_path, config=again.config)
    assert once_more.config.my_own == {"a": 1}
    assert torch.equal(once_more.classifier.weight, model.classifier.weight)
