"""The contenders of a comparison: our models and transformers', with equal weights, and what each is asked to do.

Each is called as its users call it, ours as the training loops do, and once more with its blocks compiled. Knows
nothing of clocks.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.flops import classification_flops, pretraining_flops
from videomae.engine.compiled import compile_each
from videomae.engine.optim import OptimConfig, build_optimizer, param_groups
from videomae.engine.precision import autocast
from videomae.inference.flops import pretraining_flops as flops_of
from videomae.inference.int8 import in_int8, multiplies_exactly
from videomae.inference.openvino_blocks import in_openvino
from videomae.masking import MaskConfig, MaskIndices, draw_masks
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import membership
from videomae.train.compiled import compile_parts
from videomae.train.decoding import decode_in_parts
from videomae.weights.layouts import to_transformers

Compiled = Literal["none", "blocks", "whole"]
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
    "laptop": VideoMAEConfig(
        image_size=64,
        patch_size=8,
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=1024,
        decoder_hidden_size=128,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=512,
    ),
    "S": VideoMAEConfig.preset("small"),
    "B": VideoMAEConfig.preset("base"),
    "L": VideoMAEConfig.preset("large"),
    "H": VideoMAEConfig.preset("huge"),
    "g": VideoMAEConfig.preset("giant"),
}
"""Sizes by name: the published models, that of the recipes laptop and demo, a tiny one for tests. Large and huge have
decoders of 12 blocks."""


@dataclass(frozen=True)
class Contender:
    """One way of doing a task."""

    name: str
    """Whose it is, and what is compiled."""
    is_ours: bool
    """Whether it is this package's."""
    run: Callable[[], Tensor]
    """Do the task once; returns the loss, or the logits."""
    flops_per_clip: int
    """What the task takes, from `benchmarks.flops`."""


@dataclass(frozen=True)
class Task:
    """What all are asked to do, on equal inputs with equal weights."""

    name: str
    """What is done."""
    batch: int
    """Clips per call."""
    contenders: tuple[Contender, ...]
    """Ours and theirs."""
    difference: float
    """Relative difference of ours from theirs in the losses, or logits, before the first step."""


@dataclass(frozen=True)
class Setting:
    """Where and how all contenders of a task compute."""

    device: torch.device
    dtype: torch.dtype
    """Of the matrix multiplications."""
    compiled: tuple[Compiled, ...] = ("none",)
    """What of each model is compiled: a contender for each."""


def pretraining_task(size: str, setting: Setting, *, batch: int, mask: MaskConfig | None = None) -> Task:
    """Build the pre-training step of both sides.

    Args:
        size: A key of `SIZES`.
        setting: Where and how.
        batch: B.
        mask: Ours, such as with decoder masking, which transformers has not: it then predicts every hidden token.

    Raises:
        AssertionError: If the two losses differ by more than rounding; with decoder masking they are not compared.
    """
    config, device = SIZES[size].replace(use_mean_pooling=False), setting.device
    torch.manual_seed(0)
    weights = VideoMAEForPreTraining(config).state_dict()
    pixels, masks = random_batch(config, batch=batch, device=device)
    hidden = ~membership(masks.visible, native_grid(config).num_tokens)
    is_same = mask is None or mask.decoder_kind == "all"
    if mask is not None:
        _, masks = random_batch(config, batch=batch, device=device, mask=mask)
    counts = {"visible": masks.visible.shape[1], "decoded": masks.decoded.shape[1]}
    contenders, losses = [], []
    for what in setting.compiled:
        for is_ours in (True, False):
            model = _model("VideoMAEForPreTraining", config, weights, is_ours=is_ours).to(device).train()
            inputs = {"pixel_values": pixels}
            if is_ours:
                inputs |= {"visible_indices": masks.visible, "decoded_indices": masks.decoded}
                flops = flops_of(config, **counts).step
            else:
                inputs |= {"bool_masked_pos": hidden}
                flops = pretraining_flops(config, variant="naive", ratio=MASK_RATIO).step
            forward = compile_model(model, what)
            if isinstance(model, VideoMAEForPreTraining):
                decode_in_parts(model)

            def loss_of(forward: Callable[..., Any] = forward, inputs: dict[str, Tensor] = inputs) -> Tensor:
                loss: Tensor = forward(**inputs).loss
                return loss

            run = _training_step(model, loss_of, setting)
            contenders.append(Contender(_name(is_ours, what), is_ours, run, flops))
            if what == "none" and is_same:
                with torch.no_grad(), autocast(device, setting.dtype):
                    losses.append(loss_of())
    name = "pretrain" if is_same else "pretrain, half decoded"
    return Task(name, batch, tuple(contenders), _difference(losses, LOSS_TOLERANCE, what=f"{size} losses"))


def finetuning_task(size: str, setting: Setting, *, batch: int) -> Task:
    """Build the fine-tuning step of both sides; arguments as for `pretraining_task`."""
    labels = torch.randint(NUM_LABELS, (batch,), generator=torch.Generator().manual_seed(1)).to(setting.device)

    def step(model: nn.Module, forward: Callable[..., Any], pixels: Tensor) -> Callable[[], Tensor]:
        model.train()
        return _training_step(model, lambda: F.cross_entropy(forward(pixels).logits.float(), labels), setting)

    return _classifiers("finetune", size, setting, batch=batch, make=step)


def classification_task(size: str, setting: Setting, *, batch: int) -> Task:
    """Build the classification forward pass of both sides; arguments as for `pretraining_task`.

    Raises:
        AssertionError: If the two sides' logits differ by more than rounding.
    """

    def step(model: nn.Module, forward: Callable[..., Any], pixels: Tensor) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.inference_mode(), autocast(pixels.device, setting.dtype):
                logits: Tensor = forward(pixels).logits
            return logits.float()

        return run

    return _classifiers("classify", size, setting, batch=batch, make=step)


def _classifiers(
    name: str,
    size: str,
    setting: Setting,
    *,
    batch: int,
    make: Callable[[nn.Module, Callable[..., Any], Tensor], Callable[[], Tensor]],
) -> Task:
    config = SIZES[size].replace(num_labels=NUM_LABELS)
    torch.manual_seed(0)
    weights = VideoMAEForVideoClassification(config).state_dict()
    pixels, _ = random_batch(config, batch=batch, device=setting.device)
    flops = classification_flops(config)
    contenders, logits = [], []
    for what in setting.compiled:
        for is_ours in (True, False):
            model = _model("VideoMAEForVideoClassification", config, weights, is_ours=is_ours)
            model.to(setting.device).eval()
            if what == "none":
                with torch.no_grad(), autocast(setting.device, setting.dtype):
                    logits.append(model(pixels).logits.float())
            run = make(model, compile_model(model, what), pixels)
            operations = flops.step if name == "finetune" else flops.forward
            contenders.append(Contender(_name(is_ours, what), is_ours, run, operations))
            plain = is_ours and what == "none" and setting.device.type == "cpu"
            if name == "classify" and plain:
                for label, other in _other_ways(model, setting, config):
                    contenders.append(Contender(f"ours, {label}", is_ours, make(other, other, pixels), operations))
    return Task(name, batch, tuple(contenders), _difference(logits, LOGITS_TOLERANCE, what=f"{size} logits"))


def _other_ways(model: nn.Module, setting: Setting, config: VideoMAEConfig) -> Iterator[tuple[str, nn.Module]]:
    """Yield our other ways to classify on a CPU, by name; ranges of integers are found on other pixels."""
    if multiplies_exactly():
        yield "int8", in_int8(model)
    if importlib.util.find_spec("openvino") is None:
        return
    yield "openvino", in_openvino(model, setting.dtype)
    if multiplies_exactly():
        clips, _ = random_batch(config, batch=4, device=setting.device, seed=1)
        yield "openvino int8", in_openvino(model, setting.dtype, clips.split(1))


def compile_model(model: nn.Module, what: Compiled) -> Callable[..., Any]:
    """Compile a model of either side, and return what calls it."""
    match what:
        case "none":
            return model
        case "whole":
            return torch.compile(model, dynamic=False)
    if compile_parts(model) == 0:
        compile_each(one for one in model.modules() if type(one).__name__ == "VideoMAELayer")
    return model


def transformers_model(name: str, config: VideoMAEConfig, *, attention: str = "sdpa") -> nn.Module:
    """Return transformers' model of our configuration."""
    import transformers

    known = transformers.VideoMAEConfig()
    fields = {key: value for key, value in config.to_dict().items() if hasattr(known, key)}
    settings = transformers.VideoMAEConfig(**fields)
    settings._attn_implementation = attention
    model: nn.Module = getattr(transformers, name)(settings)
    return model


def random_batch(
    config: VideoMAEConfig, *, batch: int, device: torch.device, mask: MaskConfig | None = None, seed: int = 0
) -> tuple[Tensor, MaskIndices]:
    """Return pixels `[B, T, C, H, W]`, standard normal and never zero inputs, and masks, the same every time."""
    generator = torch.Generator().manual_seed(seed)
    height, width = config.image_height_width
    shape = (batch, config.num_frames, config.num_channels, height, width)
    pixels = torch.randn(shape, generator=generator)
    wanted = MaskConfig(ratio=MASK_RATIO) if mask is None else mask
    masks = draw_masks(wanted, native_grid(config), batch=batch, generator=generator)
    return pixels.to(device), MaskIndices(masks.visible.to(device), masks.decoded.to(device))


def _name(is_ours: bool, what: Compiled) -> str:
    suffix = {"none": "", "blocks": ", blocks compiled", "whole": ", compiled whole"}[what]
    return ("ours" if is_ours else "transformers") + suffix


def _model(name: str, config: VideoMAEConfig, weights: dict[str, Tensor], *, is_ours: bool) -> nn.Module:
    if is_ours:
        cls = VideoMAEForPreTraining if name == "VideoMAEForPreTraining" else VideoMAEForVideoClassification
        ours = cls(config)
        ours.load_state_dict(weights)
        return ours
    theirs = transformers_model(name, config)
    # In memory transformers 5 calls the biases query.bias and value.bias; its files say q_bias and v_bias.
    theirs.load_state_dict(
        {
            key.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias"): tensor
            for key, tensor in to_transformers(weights).items()
        }
    )
    return theirs


def _training_step(model: nn.Module, loss_of_batch: Callable[[], Tensor], setting: Setting) -> Callable[[], Tensor]:
    spared = [name for name, _ in model.named_parameters() if name.endswith("mask_token")]
    groups = param_groups(model.named_parameters(), weight_decay=OPTIMIZER.weight_decay, no_decay=spared)
    optimizer = build_optimizer(groups, OPTIMIZER)

    def run() -> Tensor:
        with autocast(setting.device, setting.dtype):
            loss = loss_of_batch()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return run


def _difference(found: Sequence[Tensor], tolerance: float, *, what: str) -> float:
    if len(found) != 2:
        return float("nan")
    ours, theirs = found
    difference = float((ours - theirs).norm() / theirs.norm())
    if not difference <= tolerance:
        raise AssertionError(
            f"the {what} of the two sides differ by {difference:.2g} relatively, more than {tolerance:g}: they do "
            "not compute the same thing, so their times say nothing"
        )
    return difference
