"""Pre-training: targets, decoder masking, the loss, and how a step behaves on a device."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tiny_models import (
    gradients,
    inputs_for,
    make_model,
    random_mask,
    random_video,
    relative_error,
    tiny_config,
)
from tolerances import assert_near, model_terms
from videomae.model.config import VideoMAEConfig
from videomae.model.pretraining import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VideoMAEForPreTraining,
)
from videomae.patches import NORM_EPS, complement, membership, patch_statistics, patchify, split_by_mask


def make_pretraining(**settings: Any) -> VideoMAEForPreTraining:
    """Return a tiny pre-training model with random parameters."""
    return make_model(VideoMAEForPreTraining, **settings)


def test_logits_cover_the_hidden_tokens_in_raster_order() -> None:
    model = make_pretraining()
    video, hidden = random_video(model.config), random_mask()
    by_mask = model(video, hidden).logits
    assert by_mask.shape == (2, 24, 2 * 4 * 4 * 3)
    visible, decoded = split_by_mask(hidden)
    backwards = model(video, visible_indices=visible, decoded_indices=decoded.flip(1)).logits
    assert_near(backwards.flip(1), by_mask, terms=model_terms(model, tokens=32))


def test_the_loss_is_the_mean_squared_error_over_hidden_tokens_in_float32() -> None:
    model = make_pretraining(norm_pix_loss=False)
    video, hidden = random_video(model.config), random_mask()
    output = model(video, hidden)
    mean, std = (torch.tensor(one).view(1, 1, 3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = patchify(video * std + mean, model.videomae.embeddings.tubelet)[hidden].view(2, 24, -1)
    assert (output.loss - (output.logits - pixels).square().mean()).abs().item() < 1e-6
    assert (output.loss.dtype, output.loss.shape) == (torch.float32, ())


def test_targets_are_pixels_before_the_imagenet_normalisation() -> None:
    model = make_pretraining(norm_pix_loss=False)
    pixels = torch.rand(2, 4, 3, 16, 16)
    mean, std = (torch.tensor(one).view(1, 1, 3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    every = torch.arange(32).expand(2, -1)
    targets = model.targets((pixels - mean) / std, every)
    torch.testing.assert_close(targets, patchify(pixels, model.videomae.embeddings.tubelet), atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_channels", [1, 2, 7])
def test_targets_of_other_channel_counts_are_the_pixels_as_given(num_channels: int) -> None:
    model = make_pretraining(norm_pix_loss=False, num_channels=num_channels)
    video = random_video(model.config)
    every = torch.arange(32).expand(2, -1)
    assert torch.equal(model.targets(video, every), patchify(video, model.videomae.embeddings.tubelet))


def test_targets_do_not_depend_on_the_dtype_of_the_model() -> None:
    model = make_pretraining(norm_pix_loss=False)
    video = random_video(model.config)
    every = torch.arange(32).expand(2, -1)
    expected = model.targets(video, every)
    assert torch.equal(model.to(torch.bfloat16).targets(video, every), expected)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_normalised_targets_are_normalised_patches_of_the_decoded_tokens(num_channels: int) -> None:
    model = make_pretraining(num_channels=num_channels)
    plain = make_pretraining(num_channels=num_channels, norm_pix_loss=False)
    video, (_, decoded) = random_video(model.config), split_by_mask(random_mask())
    pixels = plain.targets(video, decoded)
    statistics = patch_statistics(pixels, num_channels)
    normalized = pixels.unflatten(-1, (-1, num_channels)) - statistics.mean
    expected = (normalized / (statistics.std + NORM_EPS)).flatten(2)
    torch.testing.assert_close(model.targets(video, decoded), expected)
    flat = expected.view(2, 24, -1, num_channels)
    torch.testing.assert_close(flat.mean(2), torch.zeros(2, 24, num_channels), atol=1e-5, rtol=0)


def test_targets_carry_no_gradient() -> None:
    model = make_pretraining()
    video = random_video(model.config).requires_grad_()
    assert not model.targets(video, torch.zeros(2, 1, dtype=torch.int64)).requires_grad


# The decoder.


def test_pruning_the_last_decoder_block_changes_neither_predictions_nor_gradients() -> None:
    model = make_pretraining(init_values=0.5)
    tokens = torch.randn(2, 32, 16)
    whole = tokens
    for block in model.decoder.decoder_layers:
        whole = block(whole)
    expected = model.decoder.head(model.decoder.norm(whole[:, -24:]))
    assert_near(model.decoder(tokens, 24).logits, expected, terms=model_terms(model.decoder, tokens=32))
    results = []
    for predictions in (model.decoder(tokens, 24).logits, expected):
        model.decoder.zero_grad()
        predictions.square().mean().backward()
        results.append(gradients(model.decoder))
    assert max(relative_error(results[0][name], results[1][name]) for name in results[1]) < 1e-5


def test_the_decoder_attends_to_visible_tokens_and_sees_places() -> None:
    model = make_pretraining()
    video, hidden = random_video(model.config), random_mask()
    logits = model(video, hidden).logits
    assert (logits[:, 1:] - logits[:, :1]).abs().amax(-1).min() > 1e-3, "every place is predicted differently"
    other = model(random_video(model.config, seed=1), hidden).logits
    assert (other - logits).abs().max() > 1e-2


def test_predictions_do_not_depend_on_hidden_pixels() -> None:
    model = make_pretraining()
    video, hidden = random_video(model.config), random_mask()
    changed = video.clone()
    visible, decoded = split_by_mask(hidden)
    tubelets = changed.view(2, 2, 2, 3, 4, 4, 4, 4)
    for b, n in itertools.product(range(2), range(24)):
        time, place = divmod(decoded[b, n].item(), 16)
        tubelets[b, time, :, :, place // 4, :, place % 4] += 1.0
    assert not torch.equal(changed, video)
    one, other = model(video, visible_indices=visible), model(changed, visible_indices=visible)
    assert torch.equal(one.logits, other.logits)


# Decoder masking, VideoMAE V2.


def test_decode_mask_and_decoded_indices_are_two_spellings() -> None:
    model = make_pretraining()
    video, hidden, undecoded = random_video(model.config), random_mask(), random_mask(num_hidden=16, seed=1)
    visible, _ = split_by_mask(hidden)
    decoded, _ = split_by_mask(undecoded)
    by_mask = model(video, hidden, decode_masked_pos=undecoded)
    by_indices = model(video, visible_indices=visible, decoded_indices=decoded)
    mixed = model(video, hidden, decoded_indices=decoded)
    assert by_mask.logits.shape == (2, 16, 96)
    for other in (by_indices, mixed):
        assert torch.equal(by_mask.loss, other.loss)
        assert torch.equal(by_mask.logits, other.logits)


def test_decoding_exactly_the_hidden_tokens_equals_no_decoder_mask() -> None:
    model = make_pretraining()
    video, hidden = random_video(model.config), random_mask()
    plain, dual = model(video, hidden), model(video, hidden, decode_masked_pos=~hidden)
    assert torch.equal(plain.logits, dual.logits)
    assert (plain.loss - dual.loss).abs().item() < 1e-6


def test_decoded_tokens_that_the_encoder_saw_carry_no_loss_over_the_whole_batch() -> None:
    model = make_pretraining()
    video = random_video(model.config)
    hidden = random_mask(num_hidden=16)
    # The two videos have different numbers of counted tokens: the mean is over the batch, not over videos.
    decoded = torch.stack((split_by_mask(hidden)[1][0, :12], complement(split_by_mask(hidden)[1], 32)[1, :12]))
    decoded[1, :3] = split_by_mask(hidden)[1][1, :3]
    counted = hidden.gather(1, decoded)
    assert counted.sum(1).tolist() == [12, 3]
    output = model(video, hidden, decoded_indices=decoded)
    per_token = (output.logits - model.targets(video, decoded)).square().mean(-1)
    assert (output.loss - per_token[counted].mean()).abs().item() < 1e-6
    output.loss.backward()
    assert torch.isfinite(output.loss)


# Refusals.


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"pre-training needs a mask: pass bool_masked_pos \[B, N\], True = hidden, or visible_indices"),
        ({"bool_masked_pos": random_mask(num_hidden=0)}, "no token is to be decoded: hide at least one"),
        (
            {"bool_masked_pos": random_mask(), "decode_masked_pos": random_mask(num_hidden=32)},
            "no token is to be decoded",
        ),
        (
            {
                "bool_masked_pos": random_mask(),
                "decode_masked_pos": random_mask(),
                "decoded_indices": torch.zeros(2, 1, dtype=torch.int64),
            },
            "a mask and indices were both given: pass one of them",
        ),
        (
            {"bool_masked_pos": random_mask(), "decode_masked_pos": random_mask().int()},
            r"the mask has shape \[2, 32\] and dtype torch.int32; this video needs \[2, 32\] and torch.bool",
        ),
    ],
    ids=["no mask", "nothing hidden", "nothing decoded", "both spellings", "wrong dtype"],
)
def test_masks_that_make_no_sense_are_refused(inputs: dict[str, Any], message: str) -> None:
    model = make_pretraining()
    with pytest.raises(ValueError, match=message):
        model(random_video(model.config), **inputs)


# Weights as first made.


def test_weights_start_as_the_original_draws_them() -> None:
    model = VideoMAEForPreTraining(
        VideoMAEConfig(num_hidden_layers=2, decoder_num_hidden_layers=2, image_size=64, use_mean_pooling=False)
    )
    state = model.state_dict()
    for prefix, width in (("videomae.encoder.layer.0.", 768), ("decoder.decoder_layers.1.", 384)):
        for part in ("query", "key", "value"):  # Xavier, as the rows of one matrix
            weight = state[f"{prefix}attention.attention.{part}.weight"]
            assert weight.abs().max().item() == pytest.approx((6 / (4 * width)) ** 0.5, rel=3e-2)
        assert state[prefix + "attention.attention.query.bias"].abs().max() == 0
        hidden = state[prefix + "intermediate.dense.weight"]
        assert hidden.abs().max().item() == pytest.approx((6 / (5 * width)) ** 0.5, rel=1e-2)
    bridge = state["encoder_to_decoder.weight"]
    assert bridge.abs().max().item() == pytest.approx(768**-0.5, rel=1e-2)
    mask_token = state["mask_token"]
    assert 0.015 < mask_token.abs().max() <= 0.02
    assert mask_token.std().item() == pytest.approx(0.0108, rel=0.15)  # a normal of 0.02 cut at one deviation
    assert all(bool((one == 1).all()) for name, one in state.items() if "norm" in name and name.endswith("weight"))


def test_training_lowers_the_loss() -> None:
    model = VideoMAEForPreTraining(tiny_config(use_mean_pooling=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    inputs = inputs_for(model)
    losses = []
    for _ in range(30):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dual", [False, True])
def test_a_training_step_on_indices_never_waits_for_the_device(dual: bool) -> None:
    model = make_pretraining().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    hidden = random_mask()
    visible, decoded = (one.cuda() for one in split_by_mask(hidden))
    inputs: dict[str, Any] = {"visible_indices": visible}
    if dual:
        inputs["decoded_indices"] = decoded[:, ::2].contiguous()
    video = random_video(model.config).cuda()
    for number in range(3):
        if number == 1:  # the first step makes the optimiser's state
            torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(video, **inputs).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        finally:
            if number == 2:
                torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss)


def test_membership_and_complement_agree_with_the_mask_given() -> None:
    hidden = random_mask()
    visible, decoded = split_by_mask(hidden)
    assert torch.equal(membership(decoded, 32), hidden)
    assert torch.equal(complement(visible, 32), decoded)
