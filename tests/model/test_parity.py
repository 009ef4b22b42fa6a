"""Live against transformers: the same weights give the same states, attentions, logits, losses and gradients.

Weights travel in memory through our layouts and, separately, in folders that either side saved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from tiny_models import (
    TINY,
    from_transformers,
    gradients,
    random_mask,
    random_video,
    randomize,
    relative_error,
    tiny_config,
)
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.embeddings import native_grid
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.weights.layouts import to_transformers

THEIRS: dict[type[VideoMAEPreTrainedModel], Any] = {
    VideoMAEModel: transformers.VideoMAEModel,
    VideoMAEForPreTraining: transformers.VideoMAEForPreTraining,
    VideoMAEForVideoClassification: transformers.VideoMAEForVideoClassification,
}
CLASSES = tuple(THEIRS)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no mean pooling": {"use_mean_pooling": False},
    "no bias": {"qv_bias": False, "use_mean_pooling": False},
    "gray": {"num_channels": 1},
    "seven channels": {"num_channels": 7, "use_mean_pooling": False},
    "wide image": {"image_size": (8, 24)},
    "tubelet of one frame": {"tubelet_size": 1, "num_frames": 3},
    "tubelet of four frames": {
        "tubelet_size": 4,
        "num_frames": 8,
        "layer_norm_eps": 1e-6,
        "head_layer_norm_eps": 1e-5,
    },
    "relu, one head": {"hidden_act": "relu", "num_attention_heads": 1},
    "plain pixel targets": {"norm_pix_loss": False, "use_mean_pooling": False},
}
OURS_ALONE = ("head_layer_norm_eps",)
TOLERANCE = 1e-4

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False", "ignore::FutureWarning")


def make_theirs(cls: type[VideoMAEPreTrainedModel], settings: dict[str, Any]) -> Any:
    """Return transformers' model with random parameters, biases too."""
    upstream = {name: value for name, value in settings.items() if name not in OURS_ALONE}
    config = transformers.VideoMAEConfig(**{**TINY, **upstream}, attn_implementation="eager")
    return randomize(THEIRS[cls](config))


def make_ours(cls: type[VideoMAEPreTrainedModel], theirs: Any, settings: dict[str, Any]) -> Any:
    """Return our model with the weights of theirs."""
    ours = cls(tiny_config(**settings))
    ours.load_state_dict(from_transformers(theirs.state_dict()), strict=True)
    return ours


def make_inputs(ours: Any, seed: int = 0) -> dict[str, Tensor]:
    """Return a video and, as the class needs them, a mask and labels."""
    video = random_video(ours.config, seed=seed)
    num_tokens = native_grid(ours.config).num_tokens
    if isinstance(ours, VideoMAEForPreTraining):
        return {"pixel_values": video, "bool_masked_pos": random_mask(num_tokens, num_tokens // 2, seed=seed)}
    if isinstance(ours, VideoMAEForVideoClassification):
        return {"pixel_values": video, "labels": torch.tensor([1, 3])}
    return {"pixel_values": video}


def assert_same_outputs(ours: Any, theirs: Any) -> None:
    """Compare every field of two outputs."""
    assert list(ours) == list(theirs)
    for name in ours.keys():  # noqa: SIM118
        pairs = zip(_several(ours[name]), _several(theirs[name]), strict=True)
        for mine, other in pairs:
            assert mine.shape == other.shape, name
            assert (mine - other).abs().max().item() < TOLERANCE, name


def _several(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cls", CLASSES)
def test_outputs_equal_transformers(cls: type[VideoMAEPreTrainedModel], variant: str) -> None:
    theirs = make_theirs(cls, VARIANTS[variant])
    ours = make_ours(cls, theirs, VARIANTS[variant])
    wanted = {"output_hidden_states": True, "output_attentions": True}
    inputs = make_inputs(ours)
    mine = ours(**inputs, **wanted)
    assert len(mine.hidden_states) == ours.config.num_hidden_layers + 1
    assert len(mine.attentions) == ours.config.num_hidden_layers
    assert_same_outputs(mine, theirs(**inputs, **wanted))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cls", CLASSES)
def test_gradients_equal_transformers(cls: type[VideoMAEPreTrainedModel], variant: str) -> None:
    theirs = make_theirs(cls, VARIANTS[variant])
    ours = make_ours(cls, theirs, VARIANTS[variant])
    inputs = make_inputs(ours)
    for model in (ours, theirs):
        output = model(**inputs)
        loss = output["last_hidden_state"].square().mean() if cls is VideoMAEModel else output["loss"]
        loss.backward()
    expected = from_transformers(gradients(theirs))
    actual = gradients(ours)
    assert set(actual) == set(expected)
    errors = {name: relative_error(actual[name], expected[name]) for name in expected}
    assert max(errors.values()) < TOLERANCE, max(errors.items(), key=lambda item: item[1])


@pytest.mark.parametrize("num_channels", [1, 7])
def test_plain_targets_of_other_channel_counts_are_the_pixels_where_transformers_refuses(num_channels: int) -> None:
    settings = {"num_channels": num_channels, "norm_pix_loss": False}
    theirs = make_theirs(VideoMAEForPreTraining, settings)
    ours = make_ours(VideoMAEForPreTraining, theirs, settings)
    inputs = make_inputs(ours)
    with pytest.raises(ValueError, match="Can't unnormalize non-RGB images"):
        theirs(**inputs)
    tubelets = inputs["pixel_values"].view(2, 2, 2, num_channels, 4, 4, 4, 4).permute(0, 1, 4, 6, 2, 5, 7, 3)
    pixels = tubelets.reshape(2, 32, -1)[inputs["bool_masked_pos"]].view(2, 16, -1)
    output = ours(**inputs)
    assert (output.loss - (output.logits - pixels).square().mean()).abs().item() < 1e-6


def test_an_encoder_with_a_mask_equals_transformers() -> None:
    theirs = make_theirs(VideoMAEModel, {})
    ours = make_ours(VideoMAEModel, theirs, {})
    inputs = {"pixel_values": random_video(ours.config), "bool_masked_pos": random_mask()}
    assert_same_outputs(ours(**inputs), theirs(**inputs))


@pytest.mark.parametrize("cls", CLASSES)
def test_the_keywords_of_transformers_do_what_they_do_there(cls: type[VideoMAEPreTrainedModel]) -> None:
    theirs = make_theirs(cls, {})
    ours = make_ours(cls, theirs, {})
    inputs = make_inputs(ours)
    for asked in ({}, {"return_dict": False}, {"output_hidden_states": True}, {"output_attentions": True}):
        mine, other = ours(**inputs, **asked), theirs(**inputs, **asked)
        if asked.get("return_dict", True):
            assert_same_outputs(mine, other)
        else:
            assert isinstance(mine, tuple)
            assert len(mine) == len(other)
            torch.testing.assert_close(mine, other, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"num_labels": 1}, torch.tensor([0.5, -1.0])),
        ({"num_labels": 3, "problem_type": "regression"}, torch.tensor([[0.1, 2.0, 0.3], [0.0, 1.0, -1.0]])),
        ({"num_labels": 3}, torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, torch.tensor([[0.0, 1, 1], [1, 0, 0]])),
        ({"num_labels": 3}, torch.tensor([2, 0])),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, torch.tensor([2, 0])),
    ],
)
def test_the_loss_of_every_problem_type_equals_transformers(settings: dict[str, Any], labels: Tensor) -> None:
    theirs = make_theirs(VideoMAEForVideoClassification, settings)
    ours = make_ours(VideoMAEForVideoClassification, theirs, settings)
    video = random_video(ours.config)
    assert_same_outputs(ours(video, labels), theirs(pixel_values=video, labels=labels))


# Folders, both ways.


def biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the query and value biases of a state."""
    return {name: one for name, one in state.items() if "attention.attention" in name and name.endswith("bias")}


@pytest.mark.parametrize("pooling", [True, False])
@pytest.mark.parametrize("cls", CLASSES)
def test_a_folder_that_transformers_saved_gives_equal_outputs(
    cls: type[VideoMAEPreTrainedModel], pooling: bool, tmp_path: Path
) -> None:
    theirs = make_theirs(cls, {"use_mean_pooling": pooling}).eval()
    theirs.save_pretrained(tmp_path)
    ours: Any = cls.from_pretrained(tmp_path)
    assert not ours.training
    inputs = make_inputs(ours)
    assert_same_outputs(ours(**inputs), theirs(**inputs))


@pytest.mark.parametrize("pooling", [True, False])
@pytest.mark.parametrize("cls", CLASSES)
def test_a_folder_that_we_saved_gives_equal_outputs_in_transformers(
    cls: type[VideoMAEPreTrainedModel], pooling: bool, tmp_path: Path
) -> None:
    ours = randomize(cls(tiny_config(use_mean_pooling=pooling))).eval()
    ours.save_pretrained(tmp_path)
    theirs, report = THEIRS[cls].from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    inputs = make_inputs(ours)
    assert_same_outputs(ours(**inputs), theirs.eval()(**inputs))
    assert THEIRS[cls].__name__ in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["architectures"]


@pytest.mark.parametrize("writer", ["ours", "theirs"])
def test_the_file_spells_the_biases_as_published(writer: str, tmp_path: Path) -> None:
    theirs = make_theirs(VideoMAEForPreTraining, {})
    model = theirs if writer == "theirs" else make_ours(VideoMAEForPreTraining, theirs, {})
    model.save_pretrained(tmp_path)
    saved = biases(load_file(tmp_path / "model.safetensors"))
    assert {name.rsplit(".", 1)[1] for name in saved} == {"q_bias", "v_bias"}
    assert len(saved) == 2 * (3 + 2)
    in_memory = biases(theirs.state_dict())
    for name, bias in saved.items():
        part = "query" if name.endswith("q_bias") else "value"
        assert torch.equal(bias, in_memory[name.rsplit(".", 1)[0] + f".{part}.bias"])


def test_the_two_sides_write_the_same_tensors(tmp_path: Path) -> None:
    theirs = make_theirs(VideoMAEForPreTraining, {"use_mean_pooling": False})
    ours = make_ours(VideoMAEForPreTraining, theirs, {"use_mean_pooling": False})
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    one, other = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("spelling", ["q_bias and v_bias", "query.bias and value.bias"])
def test_zeroed_biases_would_be_noticed(spelling: str, tmp_path: Path) -> None:
    # transformers once read every published file with zero biases and reported success.
    theirs = make_theirs(VideoMAEForVideoClassification, {}).eval()
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    if spelling.startswith("query"):
        state = {
            name.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias"): t for name, t in state.items()
        }
    save_file(state, path, metadata={"format": "pt"})
    video = random_video(tiny_config())
    expected = theirs(video).logits
    loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert (loaded(video).logits - expected).abs().max().item() < TOLERANCE
    save_file({n: t * 0 if n in biases(state) else t for n, t in state.items()}, path, metadata={"format": "pt"})
    zeroed = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert (zeroed(video).logits - expected).abs().max().item() > 100 * TOLERANCE


def test_to_transformers_is_what_transformers_holds_on_disk_not_in_memory() -> None:
    theirs = make_theirs(VideoMAEModel, {})
    ours = make_ours(VideoMAEModel, theirs, {})
    published = to_transformers(ours.state_dict())
    assert set(published) == {
        name.replace(".query.bias", ".q_bias").replace(".value.bias", ".v_bias") for name in theirs.state_dict()
    }
