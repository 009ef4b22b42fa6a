"""A model of another number of channels from one of RGB: what its patch embedding starts from."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from videomae.errors import ConfigError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.presets import IMAGENET_MEAN, IMAGENET_STD

Model = TypeVar("Model", bound=VideoMAEPreTrainedModel)
PROJECTION = "embeddings.patch_embeddings.projection."
RGB = 3


def with_channels(model: Model, num_channels: int) -> Model:
    """Return a model that takes frames of another number of channels, with the values of one of RGB frames.

    One channel, the mean of the normalized three: its weights are such that a grey video gives what it gave as RGB.
    Four and more: the first three are RGB's, the others start at zero, so that they change nothing at first.

    Args:
        model: Of three channels, for frames that are normalized with ImageNet's mean and std.
        num_channels: C, 1 or more than 3.

    Raises:
        ConfigError: If the model has other channels than three, or two are asked for.

    Source: inflating or summing the first layer, as timm's `in_chans`; the correction for the three stds is worked
    out here.
    """
    if model.config.num_channels != RGB or num_channels == 2:
        raise ConfigError(
            f"the model to start from has {model.config.num_channels} channels and {num_channels} are asked for: "
            "from three channels one can be made, or four and more; use random weights with --init null"
        )
    tensors = model.state_dict()
    (name,) = (one for one in tensors if one.endswith(PROJECTION + "weight"))
    bias = name.removesuffix("weight") + "bias"
    weight = tensors[name]  # [D, 3, frames, height, width]
    if num_channels == 1:
        tensors[name], tensors[bias] = _grey(weight, tensors[bias])
    else:
        more = weight.new_zeros(weight.shape[0], num_channels - RGB, *weight.shape[2:])
        tensors[name] = torch.cat([weight, more], dim=1)
    changed = type(model)(model.config.replace(num_channels=num_channels))
    changed.load_state_dict(tensors)
    return changed.train(model.training)


def _grey(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias for the mean of the normalized channels.

    A grey value g is normalized to (g - m_c) / s_c in channel c, whose mean over the channels is A g - B.
    """
    mean, std = (torch.tensor(one, dtype=torch.float64) for one in (IMAGENET_MEAN, IMAGENET_STD))
    slope, offset = (1 / std).mean(), (mean / std).mean()  # A, B
    shape = (1, RGB, 1, 1, 1)
    exact = weight.double().cpu()
    grey = (exact / std.view(shape)).sum(dim=1, keepdim=True) / slope  # [D, 1, frames, height, width]
    lost = (exact * (mean / std).view(shape)).sum(dim=(1, 2, 3, 4))  # [D]
    shift = grey.sum(dim=(1, 2, 3, 4)) * offset - lost
    return grey.to(weight), (bias.double().cpu() + shift).to(bias)
