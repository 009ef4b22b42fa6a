"""The original authors' numbers: their weights through our layouts give their logits, losses and gradients.

The files in `tests/golden` hold outputs of the published model code on random weights, float32, CPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors import safe_open
from torch import Tensor

from tiny_models import from_original, gradients, relative_error
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import split_by_mask
from videomae.pixel_loss import reconstruction_loss
from videomae.weights.layouts import to_original

GOLDEN = Path(__file__).parents[1] / "golden"
PRETRAINING = ("original_pretrain_tiny", "v2_dual_masking_tiny")
CLASSIFICATION = ("original_finetune_tiny_meanpool_layerscale", "original_finetune_tiny_firsttoken")
LOGITS_TOLERANCE = 2e-5
LOSS_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 1e-4

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")


class Golden(NamedTuple):
    """One golden file."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors of a group, by their original names."""
        return {name.removeprefix(prefix): one for name, one in self.tensors.items() if name.startswith(prefix)}

    @property
    def video(self) -> Tensor:
        """The input as `[B, T, C, H, W]`, a transposed view as the original's loader gives it."""
        return self.tensors["pixel_values_bcthw"].transpose(1, 2)

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks the file has, under the argument names of the model."""
        return {name: self.tensors[name] for name in ("bool_masked_pos", "decode_masked_pos") if name in self.tensors}


def read(name: str) -> Golden:
    """Read a golden file."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        return Golden(config, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118


def load(cls: type[VideoMAEPreTrainedModel], golden: Golden, **settings: Any) -> Any:
    """Return a model with the file's weights; a missing or left-over tensor is an error."""
    model = cls(VideoMAEConfig(**{"use_mean_pooling": False, **golden.config, **settings}))
    model.load_state_dict(from_original(golden.below("weights.")), strict=True)
    return model


@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining_logits_and_loss_are_the_originals(name: str) -> None:
    golden = read(name)
    output = load(VideoMAEForPreTraining, golden)(golden.video, **golden.masks)
    assert output.logits.shape == golden.tensors["logits"].shape
    assert (output.logits - golden.tensors["logits"]).abs().max().item() < LOGITS_TOLERANCE
    assert (output.loss - golden.tensors["loss"][0]).abs().item() < LOSS_TOLERANCE


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", PRETRAINING)
def test_every_pretraining_gradient_is_the_originals(name: str, recompute: bool) -> None:
    golden = read(name)
    model = load(VideoMAEForPreTraining, golden)
    if recompute:
        model.gradient_checkpointing_enable()
    model(golden.video, **golden.masks).loss.backward()
    ours = to_original(gradients(model))
    theirs = golden.below("grad.")
    assert set(ours) == set(theirs)
    assert len(theirs) == 75
    errors = {key: relative_error(ours[key], theirs[key]) for key in theirs}
    assert max(errors.values()) < GRADIENT_TOLERANCE, max(errors.items(), key=lambda item: item[1])


def test_normalised_targets_are_the_originals() -> None:
    golden = read("original_pretrain_tiny")
    model = load(VideoMAEForPreTraining, golden)
    _, hidden = split_by_mask(golden.tensors["bool_masked_pos"])
    targets = model.targets(golden.video, hidden)
    assert (targets - golden.tensors["targets_normalized"]).abs().max().item() < LOGITS_TOLERANCE
    loss = reconstruction_loss(golden.tensors["logits"], targets)
    assert (loss - golden.tensors["loss"][0]).abs().item() < LOSS_TOLERANCE


def test_the_loss_on_plain_pixels_is_the_originals() -> None:
    golden = read("original_pretrain_tiny")
    model = load(VideoMAEForPreTraining, golden, norm_pix_loss=False)
    output = model(golden.video, **golden.masks)
    assert (output.loss - golden.tensors["loss_unnormalized_targets"][0]).abs().item() < LOSS_TOLERANCE


def test_the_encoders_visible_output_is_the_originals() -> None:
    golden = read("original_pretrain_tiny")
    model = load(VideoMAEForPreTraining, golden)
    states = model.videomae(golden.video, golden.tensors["bool_masked_pos"]).last_hidden_state
    assert (states - golden.tensors["encoder_visible_output"]).abs().max().item() < LOGITS_TOLERANCE


def test_with_decoder_masking_the_loss_leaves_out_what_the_encoder_saw() -> None:
    golden = read("v2_dual_masking_tiny")
    model = load(VideoMAEForPreTraining, golden)
    decoded, _ = split_by_mask(golden.tensors["decode_masked_pos"])
    unseen = golden.tensors["bool_masked_pos"].gather(1, decoded)
    assert 0 < unseen.sum() < unseen.numel(), "the file must decode some tokens that the encoder saw"
    targets = model.targets(golden.video, decoded)
    weighted = reconstruction_loss(golden.tensors["logits"], targets, unseen)
    assert (weighted - golden.tensors["loss"][0]).abs().item() < LOSS_TOLERANCE
    assert (reconstruction_loss(golden.tensors["logits"], targets) - weighted).abs().item() > 1e-3


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classifier_features_and_logits_are_the_originals(name: str) -> None:
    golden = read(name)
    model = load(VideoMAEForVideoClassification, golden).eval()
    tokens = model.videomae(golden.video).last_hidden_state
    features = model.features(tokens)
    assert (features - golden.tensors["features"]).abs().max().item() < LOGITS_TOLERANCE
    logits = model(golden.video).logits
    assert (logits - golden.tensors["logits"]).abs().max().item() < LOGITS_TOLERANCE


def test_transformers_epsilon_before_the_head_would_be_noticed() -> None:
    golden = read("original_pretrain_tiny")
    model = load(VideoMAEForPreTraining, golden, head_layer_norm_eps=1e-5)
    ours = model(golden.video, **golden.masks).logits
    right = load(VideoMAEForPreTraining, golden)(golden.video, **golden.masks).logits
    theirs = golden.tensors["logits"]
    assert (ours - theirs).norm() > 3 * (right - theirs).norm()


def test_every_golden_network_has_biases_that_matter() -> None:
    for name in (*PRETRAINING, *CLASSIFICATION):
        biases = {key: one for key, one in read(name).below("weights.").items() if key.endswith("_bias")}
        assert len(biases) >= 6
        assert all(one.abs().max() > 1e-3 for one in biases.values()), name
