"""Outputs read as objects, tuples and dictionaries, and survive what torch does to structures."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.utils import _pytree

from videomae.model.outputs import BaseModelOutput, ImageClassifierOutput, VideoMAEForPreTrainingOutput

LOSS, LOGITS = torch.tensor(0.5), torch.ones(2, 3)


def test_a_field_is_reached_by_name_key_and_number() -> None:
    output = VideoMAEForPreTrainingOutput(loss=LOSS, logits=LOGITS)
    assert output.loss is output["loss"] is output[0] is LOSS
    assert output.logits is output["logits"] is output[1] is output[-1] is LOGITS
    assert output[1:] == (LOGITS,)
    assert output.to_tuple() == (LOSS, LOGITS)


def test_fields_that_are_none_are_left_out() -> None:
    output = ImageClassifierOutput(logits=LOGITS)
    assert list(output.keys()) == ["logits"]
    assert (list(output), len(output), output[0] is LOGITS) == (["logits"], 1, True)
    assert "loss" not in output
    assert "logits" in output
    assert output.loss is None


def test_an_output_unpacks_as_a_dictionary() -> None:
    output = BaseModelOutput(last_hidden_state=LOGITS, attentions=(LOSS,))
    assert dict(**output) == {"last_hidden_state": LOGITS, "attentions": (LOSS,)}


@pytest.mark.parametrize("key", ["loss", "los"])
def test_a_missing_key_is_named_with_those_there(key: str) -> None:
    with pytest.raises(KeyError, match=f"'{key}' is not in this output, which has logits"):
        ImageClassifierOutput(logits=LOGITS)[key]


def test_a_number_out_of_range_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        ImageClassifierOutput(logits=LOGITS)[1]


def test_torch_sees_the_tensors_inside() -> None:
    output = VideoMAEForPreTrainingOutput(loss=LOSS, logits=LOGITS, hidden_states=(LOGITS, LOGITS))
    doubled = _pytree.tree_map(lambda tensor: 2 * tensor, output)
    assert isinstance(doubled, VideoMAEForPreTrainingOutput)
    assert torch.equal(doubled.hidden_states[1], 2 * LOGITS)
    assert doubled.attentions is None


def test_an_output_can_be_copied_and_pickled() -> None:
    output = BaseModelOutput(last_hidden_state=LOGITS)
    for other in (copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
        assert torch.equal(other.last_hidden_state, LOGITS)
