"""Tiny models for the tests of this room: milliseconds to run, and no weight at a value that hides a mistake.

A randomly initialized model has zero biases and unit norms, so that a lost bias or a forgotten norm would change
nothing; `randomize` gives every parameter random values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.weights.layouts import assemble, transformers_names
from videomae.weights.recognition import recognise

ALL_CLASSES = (VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification)
TINY: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 4,
    "num_frames": 4,
    "tubelet_size": 2,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 28,
    "num_labels": 5,
}
NUM_TOKENS = 32  # 2 x 4 x 4
NUM_HIDDEN = 24

Model = TypeVar("Model", bound=nn.Module)


def tiny_config(**settings: Any) -> VideoMAEConfig:
    """Return a tiny configuration; settings win."""
    values = {**TINY, **settings}
    if "id2label" in settings:
        del values["num_labels"]
    return VideoMAEConfig(**values)


def make_model(cls: type[VideoMAEPreTrainedModel], **settings: Any) -> Any:
    """Return a tiny model of a class with random parameters; mean pooling off only for pre-training, as published."""
    settings.setdefault("use_mean_pooling", cls is not VideoMAEForPreTraining)
    return randomize(cls(tiny_config(**settings)))


def randomize(model: Model, *, seed: int = 0) -> Model:
    """Give every parameter random values, biases and norms too, of a size that keeps activations near one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1 and not name.endswith("token"):
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                is_gain = "norm" in name and name.endswith("weight")
                parameter.copy_(0.3 * noise + (1.0 if is_gain else 0.0))
    return model


def random_video(config: VideoMAEConfig, *, batch: int = 2, seed: int = 0) -> Tensor:
    """Return `[B, T, C, H, W]` normal pixels of the configured size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, config.num_frames, config.num_channels, *config.image_height_width, generator=generator)


def random_mask(
    num_tokens: int = NUM_TOKENS, num_hidden: int = NUM_HIDDEN, *, batch: int = 2, seed: int = 0
) -> Tensor:
    """Return a `[B, N]` bool mask, every row another, each with `num_hidden` True."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(num_tokens, generator=generator) < num_hidden for _ in range(batch)])


def inputs_for(model: Any, *, batch: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Return what a model needs for a loss, or for its states if it is the bare encoder."""
    video = random_video(model.config, batch=batch, seed=seed)
    if isinstance(model, VideoMAEForPreTraining):
        return {"pixel_values": video, "bool_masked_pos": random_mask(batch=batch, seed=seed)}
    if isinstance(model, VideoMAEForVideoClassification):
        return {"pixel_values": video, "labels": torch.arange(batch) % model.num_labels}
    return {"pixel_values": video}


def scalar(output: Any) -> Tensor:
    """Return the loss, or a weighted sum of the encoder's states, of which every value has its own weight."""
    if "loss" in output:
        return output["loss"]
    states = output.last_hidden_state.float()
    return (states * torch.linspace(-1, 1, states.numel()).view_as(states)).mean()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradient of every parameter; each must have one."""
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing, f"no gradient: {missing}"
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return `|actual - expected| / |expected|`, in the Euclidean norm."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return ((actual - expected).norm() / expected.norm().clamp_min(1e-12)).item()


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return transformers' tensors by our names."""
    return assemble(state, transformers_names(state.keys()))


def from_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the authors' tensors by our names."""
    return assemble(state, recognise(state.keys()).names)
