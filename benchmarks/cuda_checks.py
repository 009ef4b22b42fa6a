"""Whether a fast step is right: no waiting for the device, the kernels meant, numbers as in float32."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cuda_steps import Step, configuration, pixels_of, updates
from videomae.engine.compiled import uncompiled
from videomae.engine.precision import autocast
from videomae.masking import MaskConfig, draw_masks
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.train.compiled import compile_parts

ATTENTION_KERNELS = ("flash", "fmha", "cudnn", "sdpa", "attention")


def synchronizations(step: Step, device: torch.device) -> dict[str, Any]:
    """Take a warm step in which torch raises an error wherever the host would wait for the device."""
    if device.type != "cuda":
        step.run()
        return {"synchronizations": "not on this device"}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = step.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"synchronizations": 0, "loss": float(loss)}


def kernels(step: Step, device: torch.device) -> dict[str, Any]:
    """Return where a step's time goes, kernel by kernel, and the attention kernels by name."""
    on_gpu = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities) as profile:
        step.run()
        if device.type == "cuda":
            torch.cuda.synchronize()
    times: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for event in profile.key_averages():
        if on_gpu and event.device_type.name != "CUDA":
            continue  # an operator: its kernels are events of their own
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if spent:
            times[event.key][0] += spent
            times[event.key][1] += event.count
    total = sum(spent for spent, _ in times.values())
    groups: dict[str, float] = defaultdict(float)
    for name, (spent, _) in times.items():
        groups[group_of(name)] += spent
    longest = sorted(times.items(), key=lambda item: -item[1][0])[:40]
    attention = sorted({name[:100] for name in times if group_of(name) == "attention"})
    if on_gpu and not any(
        "flash" in name.lower() or "cudnn" in name.lower() or "fmha" in name.lower() for name in attention
    ):
        raise AssertionError(f"no fused attention kernel ran; those of attention are {attention or 'none'}")
    copies = {name: count for name, (_, count) in times.items() if "HtoD" in name}
    return {
        "total_ms": round(total / 1e3, 2),
        "groups_ms": {name: round(spent / 1e3, 2) for name, spent in sorted(groups.items(), key=lambda g: -g[1])},
        "attention_kernels": attention,
        "copies_to_device": copies,
        "longest": [[name[:110], round(spent / 1e3, 3), count] for name, (spent, count) in longest],
    }


def group_of(name: str) -> str:
    """Return what kind of kernel a name is."""
    lower = name.lower()
    if any(word in lower for word in ATTENTION_KERNELS):
        return "attention"
    if any(word in lower for word in ("gemm", "nvjet", "cutlass", "cublas", "addmm", "aten::mm", "bmm")):
        return "products"
    if "adam" in lower or "multi_tensor" in lower:
        return "optimizer"
    if "memcpy" in lower or "memset" in lower:
        return "copies"
    return "triton" if lower.startswith("triton") else "other"


def numerics(step: Step, device: torch.device, *, at_once: int = 16) -> dict[str, Any]:
    """Compare a compiled bfloat16 step with the same in float32, not compiled: loss and gradients."""
    parts, model = step.parts, step.model
    masks = parts["draw"]()
    pixels = parts["to_pixels"](parts["clips"].to(device))
    loss = parts["loss_of"](pixels, masks)
    loss.backward()
    fast = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad(set_to_none=True)
    exact_loss = 0.0
    with uncompiled():
        chunks = range(0, step.batch, at_once)
        for start in chunks:
            part = slice(start, start + at_once)
            share = len(pixels[part]) / step.batch
            with autocast(device, torch.float32):
                one = model(pixels[part], visible_indices=masks.visible[part], decoded_indices=masks.decoded[part])
            (share * one.loss).backward()
            exact_loss += share * float(one.loss.detach())
        few = slice(0, min(at_once, step.batch))
        logits = {}
        with torch.no_grad():
            for dtype in (torch.float32, torch.bfloat16):
                with autocast(device, dtype):
                    output = model(
                        pixels[few], visible_indices=masks.visible[few], decoded_indices=masks.decoded[few]
                    )
                logits[dtype] = output.logits.float()
    cosines, squares = {}, [0.0, 0.0]
    for name, one in model.named_parameters():
        if one.grad is None:
            continue
        cosines[name] = float(F.cosine_similarity(fast[name].flatten(), one.grad.flatten(), dim=0))
        squares[0] += float((fast[name] - one.grad).square().sum())
        squares[1] += float(one.grad.square().sum())
    model.zero_grad(set_to_none=True)
    lowest = sorted(cosines.items(), key=lambda item: item[1])[:5]
    exact, rough = logits[torch.float32], logits[torch.bfloat16]
    return {
        "loss": float(loss.detach()),
        "loss_float32": exact_loss,
        "loss_difference": abs(float(loss.detach()) - exact_loss) / exact_loss,
        "gradient_difference": (squares[0] / squares[1]) ** 0.5,
        "lowest_cosines": lowest,
        "logits_difference": float((rough - exact).norm() / exact.norm()),
    }


def loss_curves(size: str, device: torch.device, *, steps: int) -> dict[str, Any]:
    """Train on the same smooth random clips in compiled bfloat16 and in float32, and return both curves."""
    config = configuration(size)
    batch = 32 if device.type == "cuda" else 2
    curves: dict[str, list[float]] = {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        with torch.device(device):
            torch.manual_seed(0)
            model = VideoMAEForPreTraining(config).train()
        generator = torch.Generator(device).manual_seed(1)
        update, to_pixels = updates(model), pixels_of(device, is_compiled=False)
        if dtype == torch.bfloat16:
            compile_parts(model)
        losses = []
        for _ in range(steps):
            clips = smooth_clips(config, batch, generator)
            masks = draw_masks(MaskConfig(), native_grid(config), batch=batch, generator=generator)
            with autocast(device, dtype):
                output = model(to_pixels(clips), visible_indices=masks.visible, decoded_indices=masks.decoded)
            output.loss.backward()
            update(output.loss)
            losses.append(output.loss.detach())
        curves[name] = [round(float(one), 5) for one in losses]
    pairs = list(zip(*curves.values(), strict=True))
    apart = [abs(a - b) / b for a, b in pairs]
    return {
        "size": size,
        "batch": batch,
        "steps": steps,
        "largest_difference": max(apart),
        "mean_difference": sum(apart) / len(apart),
        "last": pairs[-1],
        "curves": curves,
    }


def smooth_clips(config: Any, batch: int, generator: torch.Generator) -> Tensor:
    """Return uint8 clips `[B, T, C, H, W]` of smooth random colours that move."""
    height, width = config.image_height_width
    coarse = torch.rand(batch, config.num_channels, 3, 7, 7, generator=generator, device=generator.device)
    size = (config.num_frames, height, width)
    fine = F.interpolate(coarse, size=size, mode="trilinear", align_corners=False)
    return fine.mul(255).to(torch.uint8).transpose(1, 2)


def draw_curves(row: dict[str, Any], path: Path) -> None:
    """Draw what `loss_curves` returned: both curves over each other, and how far they are apart."""
    from matplotlib.figure import Figure

    bfloat16, float32 = row["curves"]["bfloat16"], row["curves"]["float32"]
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    above, beside = figure.subplots(1, 2)
    above.plot(float32, color="#b0b0b0", linewidth=4, label="float32")
    above.plot(bfloat16, color="#c03020", linewidth=1, label="bfloat16, compiled")
    above.set(xlabel="step", ylabel="loss", title=f"ViT-{row['size']}, {row['batch']} clips a step")
    above.legend(frameon=False)
    apart = [1e6 * abs(one - other) / other for one, other in zip(bfloat16, float32, strict=True)]
    beside.plot(apart, color="#c03020", linewidth=1)
    beside.set(xlabel="step", ylabel="difference, millionths", title="relative difference", ylim=(0, None))
    for one in (above, beside):
        one.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
