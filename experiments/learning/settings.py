"""What the experiments share: sizes of the model, ways of pre-training, data sets, budgets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from videomae.masking import MaskConfig
from videomae.model.config import VideoMAEConfig
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD, VideoMAEForPreTraining
from videomae.train.lookup import initialize_lookup

SIZE = 64  # pixels of a training clip
POOL_SIZE = 72  # pixels of a generated clip, from which training clips are cropped
NUM_FRAMES = 16


@dataclass(frozen=True)
class Pretraining:
    """One way of pre-training."""

    name: str = "full"
    lookup: bool = True
    """Decoder initialized as a look-up of neighbors."""
    muon: bool = True
    """Muon for the matrices, AdamW for the rest."""
    pattern_weight: float = 0.5
    """Pixel targets and the pattern loss; 0 with `normalized`: the paper's targets."""
    normalized: bool = False
    mask_ratio: float = 0.75
    mask_kind: str = "tube"
    decode_fraction: float = 0.5
    """Fraction of the hidden tokens that is decoded."""
    batch_size: int = 96
    lr: float = 2e-3
    """AdamW's."""
    muon_lr: float = 0.02
    weight_decay: float = 0.02
    warmup: float = 0.03
    """Fraction of the time."""
    cooldown: float = 0.3
    """Fraction of the time at the end in which the rate falls linearly to zero."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """Fields of VideoMAEConfig that differ from `model_config`."""

    @property
    def mask(self) -> MaskConfig:
        """Which tokens are hidden."""
        return MaskConfig(kind=self.mask_kind, ratio=self.mask_ratio)  # type: ignore[arg-type]


PAPER = Pretraining(
    name="paper", lookup=False, muon=False, normalized=True, pattern_weight=0.0, decode_fraction=1.0, lr=1e-3
)
ABLATIONS = {
    one.name: one
    for one in (
        Pretraining(),
        replace(PAPER),
        Pretraining(name="no_lookup", lookup=False),
        Pretraining(name="adamw", muon=False),
        Pretraining(name="normalized_targets", normalized=True, pattern_weight=0.0),
        Pretraining(name="mask_90", mask_ratio=0.9),
        Pretraining(name="muon_high", muon_lr=0.05, lr=4e-3),
        Pretraining(name="batch_256", batch_size=256),
        Pretraining(name="muon_low", muon_lr=0.007, lr=1e-3),
        Pretraining(name="pixels_only", pattern_weight=0.0),
        Pretraining(name="random_90", mask_kind="random", mask_ratio=0.9),
    )
}


def model_config(settings: Pretraining, **changes: Any) -> VideoMAEConfig:
    """Return the configuration of the small model: 5.3 million parameters with its decoder."""
    sizes: dict[str, Any] = dict(  # noqa: C408
        image_size=SIZE,
        patch_size=8,
        num_frames=NUM_FRAMES,
        tubelet_size=2,
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=1024,
        decoder_hidden_size=128,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=512,
        layer_norm_eps=1e-6,
        use_mean_pooling=False,
        norm_pix_loss=settings.normalized,
    )
    return VideoMAEConfig(**{**sizes, **settings.sizes, **changes})


def new_model(settings: Pretraining, *, seed: int) -> VideoMAEForPreTraining:
    """Return an untrained model on the CPU; it depends on the settings and the seed alone."""
    torch.manual_seed(seed)
    model = VideoMAEForPreTraining(model_config(settings))
    if settings.lookup:
        initialize_lookup(model)
    return model


def normalized(clips: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn uint8 clips `[B, T, C, H, W]` into what the model reads."""
    mean, std = _pixel_statistics(clips.device)
    return ((clips - mean) / std).to(dtype)


@lru_cache
def _pixel_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation `[3, 1, 1]`; kept, for a copy to the device cannot be part of a graph."""
    mean, std = (torch.tensor(one, device=device).view(-1, 1, 1) * 255.0 for one in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std
