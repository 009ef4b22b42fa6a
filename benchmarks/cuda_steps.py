"""The steps that `benchmarks.cuda` times: ours as the training loops take them, and transformers' at its best."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.contenders import MASK_RATIO, NUM_LABELS, OPTIMIZER, SIZES, transformers_model
from benchmarks.flops import classification_flops, pretraining_flops
from videomae.engine.compiled import compiled
from videomae.engine.copying import DeviceCopies
from videomae.engine.optim import build_optimizer, clip_and_norm, param_groups, update_if_finite
from videomae.engine.precision import autocast
from videomae.engine.schedule import set_learning_rate
from videomae.engine.step_graph import StepGraph
from videomae.inference.flops import pretraining_flops as flops_of
from videomae.masking import MaskConfig, MaskIndices, draw_masks
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD, VideoMAEForPreTraining
from videomae.patches import membership
from videomae.processing.pixels import normalize
from videomae.train.compiled import compile_parts

# Clips per step that fill a GPU of 80 GB without running it full.
PRETRAINING_BATCH = {"tiny": 8, "S": 384, "B": 192, "L": 192, "L-12": 96, "H": 128, "g": 96}
DENSE_BATCH = {"tiny": 8, "S": 96, "B": 48, "L": 24, "H": 12, "g": 6}
PEER_BATCH = {"tiny": 8, "B": 64}
MASKED = MaskConfig(ratio=MASK_RATIO, decoder_kind="subset", decoder_ratio=0.5)
WHOLE = MaskConfig(ratio=MASK_RATIO)


@dataclass
class Step:
    """Something that is done again and again."""

    size: str
    batch: int
    flops: int
    """Of one clip."""
    run: Callable[[], Tensor]
    model: nn.Module
    parts: dict[str, Any] = field(default_factory=dict)
    """What a check needs to know of it."""


def configuration(size: str) -> VideoMAEConfig:
    """Return a model's sizes; L has a decoder of 4 blocks, as in VideoMAE V2's scripts, L-12 the published one."""
    config = SIZES[size.removesuffix("-12")].replace(use_mean_pooling=False)
    return config.replace(decoder_num_hidden_layers=4) if size in ("L", "H") else config


def pretraining_step(size: str, device: torch.device, *, scale: float, masked: bool, variant: str) -> Step:
    """Return a pre-training step: one copy to the device, of uint8 clips, and everything else there."""
    config = configuration(size)
    batch = max(1, int(PRETRAINING_BATCH[size] * scale))
    with torch.device(device):
        torch.manual_seed(0)
        model = VideoMAEForPreTraining(config).train()
    forward = prepared(model, variant)
    grid, mask = native_grid(config), MASKED if masked else WHOLE
    generator = torch.Generator(device).manual_seed(0)
    draw = functools.partial(draw_masks, mask, grid, batch=batch, generator=generator)
    clips, to_pixels = host_clips(config, batch, device), pixels_of(device, is_compiled=variant != "none")
    update, copy = updates(model), DeviceCopies(device)

    def loss_of(pixels: Tensor, masks: MaskIndices) -> Tensor:
        with autocast(device, torch.bfloat16):
            loss: Tensor = forward(pixels, visible_indices=masks.visible, decoded_indices=masks.decoded).loss
        return loss

    def run() -> Tensor:
        loss = loss_of(to_pixels(copy(clips)), draw())
        loss.backward()
        update(loss)
        return loss.detach()

    masks = draw()
    flops = flops_of(config, visible=masks.visible.shape[1], decoded=masks.decoded.shape[1]).step
    parts = {"loss_of": loss_of, "draw": draw, "to_pixels": to_pixels, "clips": clips, "update": update}
    return Step(size, batch, flops, run, model, parts)


def peer_step(size: str, device: torch.device, *, scale: float, compiled: str) -> Step:
    """Return transformers' pre-training step: SDPA, bfloat16 autocast, fused AdamW.

    Compiled are its blocks, its whole, or none.
    """
    config = configuration(size)
    batch = max(1, int(PEER_BATCH.get(size, 32) * scale))
    torch.manual_seed(0)
    model = transformers_model("VideoMAEForPreTraining", config).to(device).train()
    forward: Callable[..., Any] = torch.compile(model, dynamic=False) if compiled == "whole" else model
    if compiled == "blocks":
        for stack in (model.videomae.encoder.layer, model.decoder.decoder_layers):  # type: ignore[union-attr]
            for block in stack:  # type: ignore[union-attr]
                block.compile(dynamic=False)
    masks = draw_masks(WHOLE, native_grid(config), batch=batch, generator=torch.Generator(device).manual_seed(0))
    hidden = ~membership(masks.visible, native_grid(config).num_tokens)
    clips, to_pixels = host_clips(config, batch, device), pixels_of(device, is_compiled=compiled != "none")
    update, copy = updates(model), DeviceCopies(device)

    def run() -> Tensor:
        pixels = to_pixels(copy(clips))
        with autocast(device, torch.bfloat16):
            loss: Tensor = forward(pixels, bool_masked_pos=hidden).loss
        loss.backward()
        update(loss)
        return loss.detach()

    return Step(size, batch, pretraining_flops(config, variant="naive", ratio=MASK_RATIO).step, run, model)


def graphed_step(size: str, device: torch.device, *, scale: float, graphed: bool) -> Step:
    """Return a pre-training step on few clips, its forward and backward pass captured as one CUDA graph or not."""
    step = pretraining_step(size, device, scale=scale, masked=False, variant="blocks")
    if device.type != "cuda" or not graphed:
        return step
    parts, copy = step.parts, DeviceCopies(device)

    def loss_of(pixels: Tensor, *masks: Tensor) -> tuple[Tensor, Tensor]:
        loss = parts["loss_of"](pixels, MaskIndices(*masks))
        return loss, loss

    graph = StepGraph(loss_of, list(step.model.parameters()), always=True)

    def run() -> Tensor:
        loss = graph.gradients((parts["to_pixels"](copy(parts["clips"])), *parts["draw"]()))
        parts["update"](loss)
        return loss

    while not graph.is_captured:
        run()
    return Step(step.size, step.batch, step.flops, run, step.model, parts)


def dense_step(size: str, device: torch.device, *, scale: float, variant: str) -> Step:
    """Return a fine-tuning step on whole clips."""
    model, batch, to_logits, clips = classifier(size, device, scale=scale, variant=variant)
    update, copy = updates(model.train()), DeviceCopies(device)
    labels = torch.randint(NUM_LABELS, (batch,), device=device)

    def run() -> Tensor:
        loss = F.cross_entropy(to_logits(copy(clips)), labels)
        loss.backward()
        update(loss)
        return loss.detach()

    return Step(size, batch, classification_flops(model.config).step, run, model)


def classification_step(size: str, device: torch.device, *, scale: float, variant: str) -> Step:
    """Return the classification of whole clips."""
    model, batch, to_logits, clips = classifier(size, device, scale=scale, variant=variant)
    model.eval()
    copy = DeviceCopies(device)

    def run() -> Tensor:
        with torch.inference_mode():
            return to_logits(copy(clips))

    return Step(size, batch, classification_flops(model.config).forward, run, model)


def classifier(
    size: str, device: torch.device, *, scale: float, variant: str
) -> tuple[VideoMAEForVideoClassification, int, Callable[[Tensor], Tensor], Tensor]:
    """Return a classifier, its batch, the way from uint8 clips to float32 logits, and clips."""
    config = SIZES[size].replace(num_labels=NUM_LABELS)
    batch = max(1, int(DENSE_BATCH[size] * scale))
    with torch.device(device):
        torch.manual_seed(0)
        model = VideoMAEForVideoClassification(config)
    forward, to_pixels = prepared(model, variant), pixels_of(device, is_compiled=variant != "none")

    def to_logits(clips: Tensor) -> Tensor:
        pixels = to_pixels(clips)
        with autocast(device, torch.bfloat16):
            logits: Tensor = forward(pixels).logits
        return logits.float()

    return model, batch, to_logits, host_clips(config, batch, device)


def prepared(model: nn.Module, variant: str) -> Callable[..., Any]:
    """Return what calls a model, compiled as the variant says."""
    if variant == "whole":
        return torch.compile(model, dynamic=False)
    if variant == "blocks":
        compile_parts(model)
    return model


def pixels_of(device: torch.device, *, is_compiled: bool) -> Callable[[Tensor], Tensor]:
    """Return the normalization of uint8 clips on the device, as in the training loops."""
    mean, std = (torch.tensor(one, device=device) for one in (IMAGENET_MEAN, IMAGENET_STD))
    function = compiled(normalize) if is_compiled else normalize
    return lambda clips: function(clips, mean, std)


def host_clips(config: VideoMAEConfig, batch: int, device: torch.device) -> Tensor:
    """Return random clips in the host's memory, pinned where a GPU reads them."""
    height, width = config.image_height_width
    shape = (batch, config.num_frames, config.num_channels, height, width)
    if device.type != "cuda":
        return torch.randint(256, shape, dtype=torch.uint8)
    return torch.randint(256, shape, dtype=torch.uint8, device=device).cpu().pin_memory()


def updates(model: nn.Module) -> Callable[[Tensor], None]:
    """Return the end of a step as the training loops do it: norm of the gradients, fused AdamW if all is finite."""
    spared = [name for name, _ in model.named_parameters() if name.endswith("mask_token")]
    groups = param_groups(model.named_parameters(), weight_decay=OPTIMIZER.weight_decay, no_decay=spared)
    optimizer, parameters = build_optimizer(groups, OPTIMIZER), list(model.parameters())

    def update(loss: Tensor) -> None:
        # As `train.step.update_weights`, which cannot be imported where no video can be decoded.
        set_learning_rate(optimizer, 1e-4)
        update_if_finite(optimizer, loss=loss, grad_norm=clip_and_norm(parameters, None))
        optimizer.zero_grad(set_to_none=True)

    return update


def product_rate(device: torch.device) -> dict[str, Any]:
    """Measure bfloat16 matrix multiplications of random numbers."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = best_of(lambda: a @ b, device, times=10)
    return {"tflops": round(2 * side**3 / seconds / 1e12, 2), "side": side}


def attention_times(device: torch.device) -> dict[str, Any]:
    """Time the attention kernels, forward and backward, on the shapes of ViT-B; the best is the sum's."""
    shapes = {"encoder": (128, 12, 160), "decoder": (64, 6, 1568), "half": (64, 6, 864), "dense": (16, 12, 1568)}
    kinds: dict[str, list[SDPBackend] | None] = {"default": None}
    kinds |= {"flash": [SDPBackend.FLASH_ATTENTION], "cudnn": [SDPBackend.CUDNN_ATTENTION]}
    if device.type != "cuda":
        shapes, kinds = {"encoder": (1, 2, 64)}, {"default": None}
    row: dict[str, Any] = {}
    for name, (videos, heads, tokens) in shapes.items():
        packed = torch.randn(videos, tokens, 3, heads, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
        grad = torch.randn(videos, heads, tokens, 64, device=device, dtype=torch.bfloat16)

        def run(packed: Tensor = packed, grad: Tensor = grad) -> Any:
            query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
            return torch.autograd.grad(F.scaled_dot_product_attention(query, key, value), packed, grad)

        row[name] = {}
        for kind, backends in kinds.items():
            try:
                if backends is None:
                    seconds = best_of(run, device)
                else:
                    with sdpa_kernel(backends):
                        seconds = best_of(run, device)
            except RuntimeError as error:
                row[name][kind] = str(error)[:120]
                continue
            operations = 3 * 4 * videos * heads * tokens**2 * 64
            row[name][kind] = {"ms": round(1e3 * seconds, 3), "tflops": round(operations / seconds / 1e12, 1)}
    sums = {
        kind: sum(times[kind]["ms"] for times in row.values())
        for kind in kinds
        if all(isinstance(times[kind], dict) for times in row.values())
    }
    best = min(sums, key=lambda kind: sums[kind])
    # Torch's own choice stays where it loses less than 3 %.
    row["best"] = "default" if sums.get("default", float("inf")) <= 1.03 * sums[best] else best
    return row


def best_of(run: Callable[[], Any], device: torch.device, *, times: int = 5) -> float:
    """Return the seconds of the fastest of several calls."""
    found = []
    for number in range(times + 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        before = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= 2:
            found.append(time.perf_counter() - before)
    return min(found)
