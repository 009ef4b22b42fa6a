"""A layout is known by its names, whatever they are wrapped in, and every tensor gets exactly one name of ours."""

from __future__ import annotations

import pytest
import torch

from tiny_models import ALL_CLASSES, make_model
from videomae.errors import WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.weights.layouts import ATTENTION, FUSED, PARTS, assemble, parts_of, to_original, to_transformers
from videomae.weights.recognition import recognise, whole_name

WRAPPERS = [
    "",
    "module.",
    "_orig_mod.",
    "backbone.",
    "encoder.",
    "model.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.backbone.",
    "module.model.backbone.",
]
pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")


def state_of(cls: type[VideoMAEPreTrainedModel]) -> dict[str, torch.Tensor]:
    """Return random tensors of a tiny model, by our names."""
    return dict(make_model(cls).state_dict())


def to_mmaction2(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a classifier as mmaction2 does: what is listed there, and the same names otherwise."""
    renamed = {}
    for name, tensor in to_original(state).items():
        name = name.replace("patch_embed.proj.", "patch_embed.projection.")
        name = name.replace("mlp.fc1.", "mlp.layers.0.0.").replace("mlp.fc2.", "mlp.layers.1.")
        name = f"cls_head.fc_cls.{name[5:]}" if name.startswith("head.") else f"backbone.{name}"
        renamed[name] = tensor
    return renamed


def check(theirs: dict[str, torch.Tensor], ours: dict[str, torch.Tensor], layout: str) -> None:
    """Assert that a file is recognised and gives exactly these tensors."""
    found = recognise(theirs.keys())
    assert found.name == layout
    assert set(found.names) == set(theirs)
    assembled = assemble(theirs, found.names)
    assert set(assembled) == {whole_name(name) for name in ours}
    assert all(torch.equal(assembled[whole_name(name)], one) for name, one in ours.items())


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    ("cls", "layout"),
    [(VideoMAEForPreTraining, "original pre-training"), (VideoMAEForVideoClassification, "original fine-tuning")],
    ids=["pretraining", "classification"],
)
def test_the_original_layouts_are_known_in_every_wrapper(
    cls: type[VideoMAEPreTrainedModel], layout: str, wrapper: str
) -> None:
    state = state_of(cls)
    theirs = {wrapper + name: one for name, one in to_original(state).items()}
    check(theirs, state, layout)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_transformers_layout_is_known_in_every_wrapper(cls: type[VideoMAEPreTrainedModel], wrapper: str) -> None:
    state = state_of(cls)
    check({wrapper + name: one for name, one in to_transformers(state).items()}, state, "transformers")


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_transformers_own_spelling_of_the_biases_is_known(cls: type[VideoMAEPreTrainedModel]) -> None:
    state = state_of(cls)
    theirs = {
        name.replace("attention.q_bias", "attention.query.bias").replace(
            "attention.v_bias", "attention.value.bias"
        ): one
        for name, one in to_transformers(state).items()
    }
    assert any(name.endswith("query.bias") for name in theirs)
    check(theirs, state, "transformers")


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_our_own_modules_are_known(cls: type[VideoMAEPreTrainedModel]) -> None:
    state = state_of(cls)
    check(state, state, "transformers")


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_the_fused_projection_of_this_packages_first_versions_is_known(cls: type[VideoMAEPreTrainedModel]) -> None:
    state, theirs = state_of(cls), {}
    for name, tensor in state.items():
        prefix, found, part = name.rpartition(ATTENTION)
        if part == "query.weight":
            theirs[prefix + FUSED] = torch.cat([state[prefix + found + one] for one in PARTS])
        elif found and part.endswith("bias"):
            theirs[f"{prefix}{found}qkv.{part[0]}_bias"] = tensor
        elif not found:
            theirs[name] = tensor
    check(theirs, state, "videomae")


def test_mmaction2s_names_are_known() -> None:
    state = state_of(VideoMAEForVideoClassification)
    theirs = to_mmaction2(state)
    assert "backbone.blocks.0.mlp.layers.0.0.weight" in theirs
    assert "cls_head.fc_cls.weight" in theirs
    check(theirs, state, "mmaction2")
    check({f"module.{name}": one for name, one in theirs.items()}, state, "mmaction2")
    bare = {name.removeprefix("backbone."): one for name, one in theirs.items()}
    check(bare, state, "mmaction2")


def test_a_pretrained_encoder_without_its_decoder_is_an_encoder() -> None:
    state = to_original(state_of(VideoMAEForPreTraining))
    encoder = {name: one for name, one in state.items() if name.startswith("encoder.")}
    found = recognise(encoder.keys())
    assert found.kind.name == "encoder"
    with_final_norm = make_model(VideoMAEModel, use_mean_pooling=False).state_dict()
    ours = {part for name in found.names.values() for part in parts_of(name)}
    assert ours == {whole_name(name) for name in with_final_norm}


def test_compilation_in_the_middle_of_a_name_is_seen_through() -> None:
    state = state_of(VideoMAEForPreTraining)
    theirs = {name.replace("encoder.", "encoder._orig_mod.", 1): one for name, one in to_original(state).items()}
    check(theirs, state, "original pre-training")


def test_a_head_outside_the_wrapper_is_found() -> None:
    state = state_of(VideoMAEForVideoClassification)
    theirs = {
        (f"module.{name}" if name.startswith(("head", "fc_norm")) else f"module.backbone.{name}"): one
        for name, one in to_original(state).items()
    }
    check(theirs, state, "original fine-tuning")


@pytest.mark.parametrize(
    ("cls", "kind"), list(zip(ALL_CLASSES, ["encoder", "pretraining", "classification"], strict=True)), ids=str
)
def test_the_kind_of_a_file_is_told(cls: type[VideoMAEPreTrainedModel], kind: str) -> None:
    assert recognise(to_transformers(state_of(cls)).keys()).kind.name == kind


def test_names_in_no_table_stay_and_are_left_to_the_caller() -> None:
    keys = [*to_original(state_of(VideoMAEForVideoClassification)), "ema.decay"]
    assert recognise(keys).names["ema.decay"] == "ema.decay"


def test_no_network_and_two_networks_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"none of the 2 tensors is the tubelet projection; the first are a, b$"):
        recognise(["b", "a"])
    keys = list(to_original(state_of(VideoMAEForVideoClassification)))
    with pytest.raises(WeightsError, match="2 models are in it, not one"):
        recognise([*keys, *(f"model.{key}" for key in keys)])


def test_two_spellings_of_one_bias_are_refused() -> None:
    keys = list(to_transformers(state_of(VideoMAEModel)))
    twice = "encoder.layer.0.attention.attention.query.bias"
    with pytest.raises(
        WeightsError, match=r"q_bias and .*query\.bias are the same tensor, .*: one of them is left over"
    ):
        recognise([*keys, twice])
    fused = "encoder.layer.0.attention.attention.qkv.weight"
    with pytest.raises(WeightsError, match="are the same tensor"):
        recognise([*keys, fused])
