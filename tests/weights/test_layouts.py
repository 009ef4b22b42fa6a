"""Tensor names: every published layout maps to ours and back, and nothing is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny_models import ALL_CLASSES, from_original, from_transformers, make_model
from videomae.errors import WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.weights.layouts import to_original, to_transformers
from videomae.weights.recognition import recognise

GOLDEN = Path(__file__).parents[1] / "golden"
RELEASED: dict[str, dict[str, list[int]]] = {
    name: shapes
    for file in ("original_checkpoint_keys.json", "v2_checkpoint_keys.json")
    for name, shapes in json.loads((GOLDEN / file).read_text(encoding="utf-8")).items()
}
QUERY = "videomae.encoder.layer.0.attention.attention."

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")


def released_model(name: str) -> Any:
    """Return, on the meta device, the model of a released checkpoint by its name."""
    kind, size, last = name.removeprefix("v2-").split("-")
    with torch.device("meta"):
        if kind == "finetune":
            return VideoMAEForVideoClassification(VideoMAEConfig.preset(size, num_labels=int(last)))
        settings = {"decoder_num_hidden_layers": int(last.removeprefix("decoder")), "use_mean_pooling": False}
        return VideoMAEForPreTraining(VideoMAEConfig.preset(size, **settings))


@pytest.mark.parametrize("name", RELEASED)
def test_every_tensor_of_a_released_checkpoint_has_its_place_in_ours(name: str) -> None:
    own = {key: list(one.shape) for key, one in released_model(name).state_dict().items()}
    empty = {key: torch.empty(shape, device="meta") for key, shape in RELEASED[name].items()}
    assert {key: list(one.shape) for key, one in from_original(empty).items()} == own


@pytest.mark.parametrize("name", RELEASED)
def test_our_tensors_go_back_to_the_released_names(name: str) -> None:
    theirs = to_original(released_model(name).state_dict())
    assert {key: list(one.shape) for key, one in theirs.items()} == RELEASED[name]


def test_all_released_checkpoints_are_met() -> None:
    assert len(RELEASED) == 15


@pytest.mark.parametrize("settings", [{}, {"init_values": 0.1}, {"qv_bias": False}, {"use_mean_pooling": False}])
@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_original_names_are_one_to_one(cls: type[VideoMAEPreTrainedModel], settings: dict[str, Any]) -> None:
    state = make_model(cls, **settings).state_dict()
    theirs = to_original(state)
    num_fused = sum(name.endswith(".query.weight") for name in state)
    assert len(theirs) == len(state) - 2 * num_fused
    assert not any(name.startswith("videomae.") for name in theirs)
    assert_equal_states(from_original(theirs), state)


@pytest.mark.parametrize("settings", [{}, {"init_values": 0.1, "use_cls_token": True}, {"qv_bias": False}])
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_transformers_names_are_one_to_one(cls: type[VideoMAEPreTrainedModel], settings: dict[str, Any]) -> None:
    state = make_model(cls, **settings).state_dict()
    assert_equal_states(from_transformers(to_transformers(state)), state)


def assert_equal_states(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Compare two states name by name and bit by bit."""
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_the_authors_fused_projection_is_query_key_value_in_this_order() -> None:
    state = make_model(VideoMAEForPreTraining).state_dict()
    fused = to_original(state)["encoder.blocks.0.attn.qkv.weight"]
    for number, part in enumerate(("query", "key", "value")):
        assert torch.equal(state[f"{QUERY}{part}.weight"], fused[24 * number : 24 * (number + 1)])
    theirs = to_transformers(state)
    assert torch.equal(theirs[QUERY + "q_bias"], state[QUERY + "query.bias"])
    assert torch.equal(theirs[QUERY + "v_bias"], state[QUERY + "value.bias"])


@pytest.mark.parametrize("shape", [(70, 24), (72,), (72, 24, 1)])
def test_a_fused_projection_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    state = to_original(make_model(VideoMAEForPreTraining).state_dict())
    state["encoder.blocks.0.attn.qkv.weight"] = torch.zeros(shape)
    with pytest.raises(WeightsError, match=r"qkv.weight has shape .*; queries, keys and values are \[3 \* D, D\]"):
        from_original(state)


def test_both_spellings_of_the_biases_are_read() -> None:
    published = to_transformers(make_model(VideoMAEModel).state_dict())
    in_memory = {
        key.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias"): one for key, one in published.items()
    }
    assert set(published) != set(in_memory)
    assert_equal_states(from_transformers(in_memory), from_transformers(published))


@pytest.mark.parametrize("name", ["key.bias", "k_bias", "output.bias"])
def test_a_bias_that_no_videomae_has_is_kept_to_be_reported(name: str) -> None:
    state = to_transformers(make_model(VideoMAEForPreTraining).state_dict())
    state[QUERY + name] = torch.ones(24)
    assert torch.equal(from_transformers(state)[QUERY + name], torch.ones(24))


@pytest.mark.parametrize("write", [to_original, to_transformers])
def test_names_in_no_table_are_kept(write: Any) -> None:
    others = {"ema.decay": torch.ones(1), "blocks_of_wood.0.x": torch.ones(1), "normal": torch.ones(1)}
    read = from_original if write is to_original else from_transformers
    known = write(make_model(VideoMAEForVideoClassification).state_dict())
    assert others.items() <= read({**known, **others}).items()


def test_the_two_original_networks_are_told_apart() -> None:
    for name, shapes in RELEASED.items():
        kind = "fine-tuning" if "-finetune-" in name or name.startswith("finetune-") else "pre-training"
        assert recognise(shapes.keys()).name == f"original {kind}"
