"""The two sides of a comparison: our models and transformers', with equal weights, and what each is asked to do.

Each side is called as its users call it, ours as `train/pretrain.py` does. Knows nothing of clocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.flops import classification_flops, pretraining_flops
from videomae.engine.optim import OptimConfig, build_optimizer, param_groups
from videomae.engine.precision import autocast
from videomae.masking import MaskIndices, tube_masks
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import membership
from videomae.weights.layouts import to_transformers

MASK_RATIO = 0.9
NUM_LABELS = 400  # Kinetics-400
# Matrix multiplications round to bfloat16, 8 bits of mantissa, in another order on either side.
LOSS_TOLERANCE = 2e-3
LOGITS_TOLERANCE = 3e-2
OPTIMIZER = OptimConfig(base_lr=1.5e-4, min_lr=1e-5, betas=(0.9, 0.95))  # VideoMAE's pre-training

_TINY = VideoMAEConfig(
    image_size=32,
    patch_size=8,
    num_frames=4,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=128,
    decoder_hidden_size=32,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=1,
    decoder_intermediate_size=64,
)
SIZES: dict[str, VideoMAEConfig] = {
    "tiny": _TINY,
    "S": VideoMAEConfig.preset("small"),
    "B": VideoMAEConfig.preset("base"),
    "L": VideoMAEConfig.preset("large"),
    "H": VideoMAEConfig.preset("huge"),
    "g": VideoMAEConfig.preset("giant"),
}
"""Sizes by letter: the published networks, and a tiny one for tests. Large and huge have decoders of 12 blocks."""


@dataclass(frozen=True)
class Contender:
    """One side of one task."""

    run: Callable[[], Tensor]
    """Do the task once; returns the loss, or the logits."""
    flops_per_clip: int
    """What the task takes on this side, from `benchmarks.flops`."""


@dataclass(frozen=True)
class Task:
    """What both sides are asked to do, on equal inputs with equal weights."""

    name: str
    """pretrain: forward, backward and optimiser step. classify: forward pass without gradients."""
    ours: Contender
    """This package."""
    theirs: Contender
    """Transformers."""
    difference: float
    """Relative difference of the two losses, or of the logits, before the first step."""


def pretraining_task(size: str, *, batch: int, device: torch.device, compiled: bool = False) -> Task:
    """Build the pre-training step of both sides.

    Args:
        size: A key of `SIZES`.
        batch: B.
        device: Where to run.
        compiled: Compile both models with torch.compile.

    Raises:
        AssertionError: If the two losses differ by more than bfloat16's rounding.
    """
    config = SIZES[size].replace(use_mean_pooling=False)
    torch.manual_seed(0)
    ours = VideoMAEForPreTraining(config)
    theirs = _with_weights_of(ours, transformers_model("VideoMAEForPreTraining", config))
    pixels, masks = random_batch(config, batch=batch, device=device)
    hidden = ~membership(masks.visible, native_grid(config).num_tokens)
    ours_loss = _loss(
        ours.to(device).train(),
        {"pixel_values": pixels, "visible_indices": masks.visible, "decoded_indices": masks.decoded},
        compiled=compiled,
    )
    theirs_loss = _loss(
        theirs.to(device).train(), {"pixel_values": pixels, "bool_masked_pos": hidden}, compiled=compiled
    )
    difference = _difference(
        ours_loss().detach(), theirs_loss().detach(), tolerance=LOSS_TOLERANCE, what=f"{size} losses"
    )
    return Task(
        name="pretrain",
        ours=Contender(
            _training_step(ours, ours_loss),
            pretraining_flops(config, variant="exact", ratio=MASK_RATIO).step,
        ),
        theirs=Contender(
            _training_step(theirs, theirs_loss),
            pretraining_flops(config, variant="naive", ratio=MASK_RATIO).step,
        ),
        difference=difference,
    )


def classification_task(size: str, *, batch: int, device: torch.device, compiled: bool = False) -> Task:
    """Build the classification forward pass of both sides; arguments as for `pretraining_task`.

    Raises:
        AssertionError: If the two sides' logits differ by more than bfloat16's rounding.
    """
    config = SIZES[size].replace(num_labels=NUM_LABELS)
    torch.manual_seed(0)
    ours = VideoMAEForVideoClassification(config)
    theirs = _with_weights_of(ours, transformers_model("VideoMAEForVideoClassification", config))
    pixels, _ = random_batch(config, batch=batch, device=device)
    ours_run = _logits(ours.to(device).eval(), pixels, compiled=compiled)
    theirs_run = _logits(theirs.to(device).eval(), pixels, compiled=compiled)
    difference = _difference(ours_run(), theirs_run(), tolerance=LOGITS_TOLERANCE, what=f"{size} logits")
    flops = classification_flops(config).forward
    return Task("classify", Contender(ours_run, flops), Contender(theirs_run, flops), difference)


def transformers_model(name: str, config: VideoMAEConfig, *, attention: str = "sdpa") -> nn.Module:
    """Return transformers' model of our configuration."""
    import transformers

    known = transformers.VideoMAEConfig()
    fields = {key: value for key, value in config.to_dict().items() if hasattr(known, key)}
    settings = transformers.VideoMAEConfig(**fields)
    settings._attn_implementation = attention
    model: nn.Module = getattr(transformers, name)(settings)
    return model


def random_batch(config: VideoMAEConfig, *, batch: int, device: torch.device) -> tuple[Tensor, MaskIndices]:
    """Return pixels `[B, T, C, H, W]`, standard normal and never zero inputs, and tube masks, the same every time."""
    generator = torch.Generator().manual_seed(0)
    height, width = config.image_height_width
    shape = (batch, config.num_frames, config.num_channels, height, width)
    pixels = torch.randn(shape, generator=generator)
    masks = tube_masks(native_grid(config), MASK_RATIO, batch=batch, generator=generator)
    return pixels.to(device), MaskIndices(masks.visible.to(device), masks.decoded.to(device))


def _with_weights_of(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    # In memory transformers 5 calls the biases query.bias and value.bias; its files say q_bias and v_bias.
    theirs.load_state_dict(
        {
            key.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias"): tensor
            for key, tensor in to_transformers(ours.state_dict()).items()
        }
    )
    return theirs


def _loss(model: nn.Module, inputs: dict[str, Tensor], *, compiled: bool) -> Callable[[], Tensor]:
    forward: Callable[..., Any] = torch.compile(model) if compiled else model
    device = inputs["pixel_values"].device

    def run() -> Tensor:
        with autocast(device, torch.bfloat16):
            loss: Tensor = forward(**inputs).loss
        return loss

    return run


def _logits(model: nn.Module, pixels: Tensor, *, compiled: bool) -> Callable[[], Tensor]:
    forward: Callable[..., Any] = torch.compile(model) if compiled else model

    def run() -> Tensor:
        with torch.inference_mode(), autocast(pixels.device, torch.bfloat16):
            logits: Tensor = forward(pixels).logits
        return logits.float()

    return run


def _training_step(model: nn.Module, loss_of_batch: Callable[[], Tensor]) -> Callable[[], Tensor]:
    spared = [name for name, _ in model.named_parameters() if name.endswith("mask_token")]
    groups = param_groups(model.named_parameters(), weight_decay=OPTIMIZER.weight_decay, no_decay=spared)
    optimizer = build_optimizer(groups, OPTIMIZER)

    def run() -> Tensor:
        loss = loss_of_batch()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return run


def _difference(ours: Tensor, theirs: Tensor, *, tolerance: float, what: str) -> float:
    difference = float((ours - theirs).norm() / theirs.norm())
    if not difference <= tolerance:
        raise AssertionError(
            f"the {what} of the two sides differ by {difference:.2g} relatively, more than {tolerance:g}: they do "
            "not compute the same thing, so their times say nothing"
        )
    return difference
