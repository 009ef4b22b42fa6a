"""The encoder: only what is visible is read; states, attentions, tuples, refusals, names of its layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from tiny_models import (
    ALL_CLASSES,
    gradients,
    inputs_for,
    make_model,
    random_mask,
    random_video,
    relative_error,
    scalar,
)
from tolerances import assert_near, model_terms
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.embeddings import VideoMAEPatchEmbeddings
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import membership, patchify, split_by_mask, unpatchify

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")


def poison_hidden(model: Any, video: Tensor, hidden: Tensor) -> Tensor:
    """Return the video with NaN in every hidden tubelet."""
    embeddings = model.embeddings.patch_embeddings
    patches = patchify(video, embeddings.tubelet)
    patches = patches.masked_fill(hidden[..., None], float("nan"))
    return unpatchify(patches, embeddings.grid_of(video), embeddings.tubelet)


def test_hidden_pixels_are_never_read() -> None:
    model = make_model(VideoMAEModel)
    video, hidden = random_video(model.config), random_mask()
    poisoned = poison_hidden(model, video, hidden)
    assert poisoned.isnan().sum() == 24 / 32 * video.numel()
    expected = model(video, hidden).last_hidden_state
    assert torch.equal(model(poisoned, hidden).last_hidden_state, expected)
    assert model(poisoned).last_hidden_state.isnan().any()


def test_visible_states_do_not_depend_on_what_else_is_in_the_batch() -> None:
    model = make_model(VideoMAEModel)
    video, hidden = random_video(model.config, batch=3), random_mask(batch=3)
    together = model(video, hidden).last_hidden_state
    for b in range(3):
        alone = model(video[b : b + 1], hidden[b : b + 1]).last_hidden_state
        assert_near(alone[0], together[b], terms=model_terms(model, tokens=32))


@pytest.mark.parametrize("cls", [VideoMAEModel, VideoMAEForPreTraining])
def test_indices_and_mask_are_two_spellings(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls)
    video, hidden = random_video(model.config), random_mask()
    visible, _ = split_by_mask(hidden)
    by_mask, by_indices = model(video, hidden), model(video, visible_indices=visible)
    for name in by_mask.keys():  # noqa: SIM118
        assert torch.equal(by_mask[name], by_indices[name])


def test_states_follow_the_order_of_the_indices() -> None:
    model = make_model(VideoMAEModel)
    video = random_video(model.config)
    visible = torch.tensor([[3, 8, 30], [1, 2, 5]])
    shuffled = model(video, visible_indices=visible[:, [2, 0, 1]]).last_hidden_state
    expected = model(video, visible_indices=visible).last_hidden_state[:, [2, 0, 1]]
    assert_near(shuffled, expected, terms=model_terms(model, tokens=32))


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_attentions_are_probabilities_and_change_no_output(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls).eval()
    inputs = inputs_for(model)
    num_seen = 8 if "bool_masked_pos" in inputs else 32
    with torch.no_grad():
        plain, watched = model(**inputs), model(**inputs, output_attentions=True)
    assert "attentions" not in plain
    assert [one.shape for one in watched.attentions] == [(2, 2, num_seen, num_seen)] * 3
    for one in watched.attentions:
        assert one.min() >= 0
        assert_near(one.sum(-1), torch.ones(2, 2, num_seen), terms=2 * num_seen)
    for name in plain.keys():  # noqa: SIM118
        assert_near(watched[name], plain[name], terms=model_terms(model, tokens=32))


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_hidden_states_are_embeddings_and_then_every_block(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls)
    inputs = inputs_for(model)
    encoder = model if cls is VideoMAEModel else model.videomae
    output = model(**inputs, output_hidden_states=True)
    assert len(output.hidden_states) == 4
    visible = split_by_mask(inputs["bool_masked_pos"])[0] if "bool_masked_pos" in inputs else None
    assert torch.equal(output.hidden_states[0], encoder.embeddings(inputs["pixel_values"], visible_indices=visible))
    for number, block in enumerate(encoder.encoder.layer):
        following = block(output.hidden_states[number])
        assert_near(output.hidden_states[number + 1], following, terms=model_terms(block, tokens=32))


@pytest.mark.parametrize("pooling", [True, False])
def test_the_final_norm_exists_without_mean_pooling_alone(pooling: bool) -> None:
    model = make_model(VideoMAEModel, use_mean_pooling=pooling)
    output = model(random_video(model.config), output_hidden_states=True)
    last = output.hidden_states[-1]
    if pooling:
        assert model.layernorm is None
        assert torch.equal(output.last_hidden_state, last)
    else:
        assert model.layernorm.eps == model.config.layer_norm_eps
        assert torch.equal(output.last_hidden_state, model.layernorm(last))


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_return_dict_false_gives_the_values_in_order(cls: type[VideoMAEPreTrainedModel]) -> None:
    asked = {"output_hidden_states": True, "output_attentions": True}
    model = make_model(cls).eval()
    inputs = inputs_for(model)
    named, plain = model(**inputs, **asked), model(**inputs, **asked, return_dict=False)
    assert isinstance(plain, tuple)
    assert len(plain) == len(named.to_tuple()) == len(named)
    torch.testing.assert_close(plain, named.to_tuple(), atol=0, rtol=0)


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_the_configuration_can_ask_for_what_the_call_can(cls: type[VideoMAEPreTrainedModel]) -> None:
    inputs = inputs_for(make_model(cls))
    model = make_model(cls, output_attentions=True, output_hidden_states=True, return_dict=False)
    asked = model(**inputs)
    assert isinstance(asked, tuple)
    assert [len(one) for one in asked[-2:]] == [4, 3]
    refused = model(**inputs, output_attentions=False, output_hidden_states=False, return_dict=True)
    assert refused.hidden_states is None
    assert refused.attentions is None


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_gradient_checkpointing_changes_neither_output_nor_gradients(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2, drop_path_rate=0.2)
    inputs, results = inputs_for(model), []
    for recompute in (False, True):
        if recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        assert model.is_gradient_checkpointing == recompute
        torch.manual_seed(7)  # the dropouts of the two runs must agree
        model.zero_grad()
        loss = scalar(model(**inputs))
        loss.backward()
        results.append((loss, gradients(model)))
    (loss, expected), (other, actual) = results
    assert torch.equal(loss, other)
    assert max(relative_error(actual[name], expected[name]) for name in expected) < 1e-6
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_gradient_checkpointing_runs_every_block_again(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls)
    runs: list[str] = []
    blocks = [name for name, one in model.named_modules() if type(one).__name__ == "VideoMAELayer"]
    for name in blocks:
        model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: runs.append(name))
    model.gradient_checkpointing_enable()
    scalar(model(**inputs_for(model))).backward()
    assert sorted(runs) == sorted(2 * blocks)


def test_gradient_checkpointing_of_every_second_block_runs_those_again() -> None:
    model = make_model(VideoMAEForPreTraining)
    runs: list[str] = []
    for name, one in model.named_modules():
        if type(one).__name__ == "VideoMAELayer":
            one.register_forward_pre_hook(lambda *_, name=name: runs.append(name))
    model.activation_checkpointing_enable(every_n_layers=2)
    scalar(model(**inputs_for(model))).backward()
    again = {name.removeprefix("videomae.") for name in runs if runs.count(name) == 2}
    assert again == {"encoder.layer.0", "encoder.layer.2", "decoder.decoder_layers.0"}


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_gradient_checkpointing_trains_the_blocks_behind_frozen_embeddings(
    cls: type[VideoMAEPreTrainedModel],
) -> None:
    model = make_model(cls)
    model.get_input_embeddings().requires_grad_(False)  # then the first block's input needs no gradient
    model.gradient_checkpointing_enable()
    scalar(model(**inputs_for(model))).backward()
    encoder = model if cls is VideoMAEModel else model.videomae
    assert min(one.grad.abs().max() for one in encoder.encoder.layer[0].parameters()) > 0


def test_checkpointing_of_other_kinds_is_answered() -> None:
    model = make_model(VideoMAEModel)
    with pytest.warns(UserWarning, match="use_reentrant=True has no effect: non-reentrant checkpointing is used"):
        model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ValueError, match="offload=True is not supported: leave it out"):
        model.activation_checkpointing_enable(offload=True)
    with pytest.raises(ValueError, match="every_n_layers is 0; it must be at least 1"):
        model.gradient_checkpointing_enable(every_n_layers=0)


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_bfloat16_model_and_autocast_run_and_stay_near_float32(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls)
    inputs = inputs_for(model)
    expected = model(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model(**inputs)
    half = make_model(cls).to(torch.bfloat16)(**inputs)
    name = "last_hidden_state" if cls is VideoMAEModel else "logits"
    for output in (cast, half):
        assert output[name].dtype == torch.bfloat16
        assert 0 < relative_error(output[name].float(), expected[name]) < 0.05
        if "loss" in output:
            assert abs(output.loss.item() - expected.loss.item()) < 0.05 * abs(expected.loss.item())
        scalar(output).backward()


def test_the_residual_stream_under_autocast_is_bfloat16() -> None:
    model = make_model(VideoMAEModel)
    with torch.autocast("cpu", torch.bfloat16):
        states = model(random_video(model.config), output_hidden_states=True).hidden_states
    assert {state.dtype for state in states} == {torch.bfloat16}


# The CLS token, which no published model has.


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_cls_token_stands_first_and_learns(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls, use_cls_token=True)
    encoder = model if cls is VideoMAEModel else model.videomae
    inputs = inputs_for(model)
    video = inputs["pixel_values"]
    assert encoder(video).last_hidden_state.shape == (2, 33, 24)
    assert encoder(video, random_mask()).last_hidden_state.shape == (2, 9, 24)
    first = encoder.embeddings(video, None)[:, 0]
    assert torch.equal(first, encoder.embeddings.cls_token[0].expand(2, -1)), "no position code"
    output = model(**inputs, output_attentions=True)
    assert output.attentions[0].shape[-1] == (9 if "bool_masked_pos" in inputs else 33)
    scalar(output).backward()
    assert encoder.embeddings.cls_token.grad.abs().max() > 0


def test_with_a_cls_token_the_classifier_sees_it_alone() -> None:
    model = make_model(VideoMAEForVideoClassification, use_cls_token=True)
    tokens = torch.randn(2, 33, 24)
    assert torch.equal(model.features(tokens), model.fc_norm(tokens[:, 0]))


def test_with_a_cls_token_pretraining_predicts_the_same_places() -> None:
    model = make_model(VideoMAEForPreTraining, use_cls_token=True)
    inputs = inputs_for(model)
    output = model(**inputs)
    assert output.logits.shape == (2, 24, 96)
    # The decoder must add the positions to the visible tokens and not, shifted by one, to the CLS token.
    encoded = model.videomae(inputs["pixel_values"], inputs["bool_masked_pos"]).last_hidden_state
    visible, hidden = split_by_mask(inputs["bool_masked_pos"])
    projected, table = model.encoder_to_decoder(encoded), model.position_embeddings[0]
    tokens = torch.cat((projected[:, :1], projected[:, 1:] + table[visible], model.mask_token + table[hidden]), dim=1)
    assert_near(output.logits, model.decoder(tokens, 24).logits, terms=model_terms(model, tokens=32))


# Refusals.


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 3, 16, 16), r"pixel_values has shape \[4, 3, 16, 16\]; it must be \[B, T, C, H, W\]"),
        (
            (1, 3, 4, 16, 16),
            "pixel_values has 4 channels in .*, but the configuration has num_channels 3: pass frames",
        ),
        ((1, 5, 3, 16, 16), "the video has frames 5, which tubelets of frames 2 do not divide: use a multiple of 2"),
        ((1, 4, 3, 18, 16), "the video has height 18, which tubelets of height 4 do not divide"),
        ((1, 4, 3, 16, 17), "the video has width 17, which tubelets of width 4 do not divide"),
    ],
)
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_video_that_does_not_fit_is_named(
    cls: type[VideoMAEPreTrainedModel], shape: tuple[int, ...], message: str
) -> None:
    model = make_model(cls)
    inputs = {**inputs_for(model), "pixel_values": torch.zeros(shape)}
    with pytest.raises(ValueError, match=message):
        model(**inputs)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            random_mask(31, 8),
            r"the mask has shape \[2, 31\] and dtype torch.bool; this video needs \[2, 32\] and torch",
        ),
        (random_mask(batch=3), r"the mask has shape \[3, 32\] and dtype torch.bool; this video needs \[2, 32\]"),
        (random_mask().long(), r"the mask has shape \[2, 32\] and dtype torch.int64; this video needs \[2, 32\] and"),
        (torch.stack((random_mask()[0], random_mask(num_hidden=20)[0])), r"unequal mask counts \[24, 20\]"),
        (
            membership(torch.arange(32).expand(2, -1), 32),
            "every token is hidden from the encoder: leave at least one",
        ),
    ],
    ids=["tokens", "videos", "dtype", "counts", "all hidden"],
)
@pytest.mark.parametrize("cls", [VideoMAEModel, VideoMAEForPreTraining])
def test_a_mask_that_does_not_fit_is_named(cls: type[VideoMAEPreTrainedModel], mask: Tensor, message: str) -> None:
    model = make_model(cls)
    with pytest.raises(ValueError, match=message):
        model(random_video(model.config), mask)


@pytest.mark.parametrize("cls", [VideoMAEModel, VideoMAEForPreTraining])
def test_a_mask_and_indices_together_are_refused(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls)
    message = "a mask and indices were both given: pass one of them"
    with pytest.raises(ValueError, match=message):
        model(random_video(model.config), random_mask(), visible_indices=torch.tensor([[0], [1]]))


# Layer numbers and weight decay.


def expected_layer(name: str) -> int:
    """Return the layer number by the original's rule, spelled out for the tiny depth of three."""
    table = {"embeddings": 0, "mask_token": 0, "encoder.layer.0": 1, "encoder.layer.1": 2, "encoder.layer.2": 3}
    bare = name.removeprefix("videomae.")
    return next((number for start, number in table.items() if bare.startswith(start)), 4)


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_every_parameter_has_the_layer_number_of_the_original(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls, use_cls_token=True, init_values=0.1, use_mean_pooling=False)
    numbers = {name: model.layer_id(name) for name, _ in model.named_parameters()}
    assert numbers == {name: expected_layer(name) for name in numbers}
    assert model.num_layer_ids == 5
    first_last = {0, 1, 2, 3, 4}
    assert set(numbers.values()) == first_last


def test_the_decoder_is_no_early_layer() -> None:
    model = make_model(VideoMAEForPreTraining)
    heads = {name for name, _ in model.named_parameters() if name.startswith(("decoder.", "encoder_to_decoder"))}
    assert len(heads) > 20
    assert {model.layer_id(name) for name in heads} == {model.num_layer_ids - 1}


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_weight_decay_spares_the_tokens_besides_vectors(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls, use_cls_token=True)
    names = {name for name, one in model.named_parameters() if one.shape[:2] == (1, 1)}
    assert model.no_weight_decay() == names
    assert {name.rsplit(".", 1)[-1] for name in names} <= {"cls_token", "mask_token"}


# What upstream's base class offers.


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_device_dtype_counts_and_input_embeddings(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls)
    total = sum(one.numel() for one in model.parameters())
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert model.num_parameters() == model.num_parameters(only_trainable=True) == total
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, VideoMAEPatchEmbeddings)
    embeddings.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == total - sum(one.numel() for one in embeddings.parameters())
    assert model.to(torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_model_says_of_itself_what_transformers_models_say(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls)
    theirs = getattr(transformers, cls.__name__)
    assert (cls.base_model_prefix, cls.main_input_name) == (theirs.base_model_prefix, theirs.main_input_name)
    assert cls.supports_gradient_checkpointing == theirs.supports_gradient_checkpointing
    assert cls.config_class.model_type == theirs.config_class.model_type
    assert isinstance(model.base_model, VideoMAEModel)
    assert not model.can_generate()
