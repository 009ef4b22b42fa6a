"""A built model keeps its structure: what is written into its configuration later changes no output."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tiny_models import ALL_CLASSES, inputs_for, make_model
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining

CHANGES: list[dict[str, Any]] = [
    {"use_mean_pooling": False},
    {"use_mean_pooling": True},
    {"use_cls_token": True},
    {"norm_pix_loss": False},
    {"classifier_dropout": 0.9},
    {"hidden_dropout_prob": 0.9, "drop_path_rate": 0.9},
    {"num_channels": 1},
    {"tubelet_size": 4, "patch_size": 8},
    {"num_labels": 9},
]

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "-".join(changes))
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_updating_its_configuration_does_not_change_a_built_model(
    cls: type[VideoMAEPreTrainedModel], training: bool, changes: dict[str, Any]
) -> None:
    model = make_model(cls).train(training)
    inputs = inputs_for(model)
    before = model(**inputs)
    model.config.update(changes)
    assert all(getattr(model.config, name) == value for name, value in changes.items()), "the update itself is made"
    after = model(**inputs)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_outputs_hold_follows_the_configuration() -> None:
    model = make_model(VideoMAEForVideoClassification)
    model.config.update({"output_hidden_states": True, "return_dict": False})
    output = model(**inputs_for(model))
    assert isinstance(output, tuple)
    assert len(output) == 3, "loss, logits and hidden states"


class PositiveEncoder(VideoMAEModel):
    """An encoder that is not VideoMAE's own: its token states have no sign."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Return the absolute values of the token states."""
        output = super().forward(*arguments, **options)
        output.last_hidden_state = output.last_hidden_state.abs()
        return output


@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_a_subclass_names_another_encoder(cls: Any) -> None:
    other = type("Other", (cls,), {"encoder_class": PositiveEncoder})
    model, plain = make_model(other).eval(), make_model(cls).eval()
    assert isinstance(model.videomae, PositiveEncoder)
    inputs = inputs_for(plain)
    assert not torch.allclose(model(**inputs).logits, plain(**inputs).logits)
