"""Pre-training on procedural clips drawn on the device, for a given time."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from experiments.learning.graphs import Adam, MasterWeights, Muon, capture, gradients
from experiments.learning.settings import NUM_FRAMES, POOL_SIZE, SIZE, Pretraining, new_model, normalized
from videomae.data.procedural import ProceduralVideos
from videomae.masking import draw_masks
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import VideoMAEForPreTraining

PIXEL_VARIANCE = 0.05  # about the square of the ImageNet std: the error of pixels in [0, 1] in standard units
PATTERN_EPS = 1e-3  # variance below which a tubelet counts as flat, so that noise is not amplified
HELD_OUT = 1 << 40  # first index of clips that are never trained on


class ClipPool:
    """Procedural clips in device memory, replaced one batch at a time by new ones."""

    def __init__(self, *, seed: int, capacity: int, batch: int, device: torch.device) -> None:
        self.videos = ProceduralVideos(seed, num_frames=NUM_FRAMES, size=POOL_SIZE, device=device)
        self.clips = torch.zeros(capacity, NUM_FRAMES, 3, POOL_SIZE, POOL_SIZE, dtype=torch.uint8, device=device)
        self.batch = batch
        self.made = torch.zeros((), dtype=torch.int64, device=device)
        self.offsets = torch.arange(batch, device=device)
        self.total = 0
        self._replay = capture(self._make, device)
        self.made.zero_()

    def _make(self) -> None:
        fresh = self.videos.clips(self.made + self.offsets)
        self.clips.index_copy_(0, (self.made + self.offsets) % len(self.clips), fresh)
        self.made += self.batch

    def make(self) -> None:
        """Draw one more batch."""
        self._replay()
        self.total += self.batch

    def fill(self) -> float:
        """Fill the pool, and return clips per second."""
        start = time.perf_counter()
        before = self.total
        while self.total < len(self.clips):
            self.make()
        synchronize(self.clips.device)
        return (self.total - before) / max(time.perf_counter() - start, 1e-9)

    def sample(self, count: int) -> Tensor:
        """Draw training clips, `[count, T, 3, SIZE, SIZE]` uint8: one crop a batch, perhaps mirrored and reversed."""
        device = self.clips.device
        chosen = self.clips[torch.randint(len(self.clips), (count,), device=device)]
        corner = torch.randint(POOL_SIZE - SIZE + 1, (2,), device=device)
        line = torch.arange(SIZE, device=device)
        flips = torch.randint(2, (2,), device=device)
        columns = corner[1] + torch.where(flips[0] > 0, line.flip(0), line)
        moments = torch.arange(NUM_FRAMES, device=device)
        moments = torch.where(flips[1] > 0, moments.flip(0), moments)
        return chosen[
            :,
            moments[:, None, None, None],
            torch.arange(3, device=device)[:, None, None],
            (corner[0] + line)[:, None],
            columns,
        ]


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def pretrain(
    settings: Pretraining,
    pool: ClipPool,
    *,
    seed: int,
    seconds: float,
    max_steps: int | None = None,
    renew_every: int = 8,
) -> tuple[VideoMAEForPreTraining, dict[str, Any]]:
    """Pre-train for a time.

    Args:
        settings: How.
        pool: Clips; new ones are drawn every `renew_every` steps.
        seed: Of the weights.
        seconds: Wall-clock time, new clips and capture included.
        max_steps: Also stop here.
        renew_every: 0: the pool stays as it is.

    Returns:
        The model in float32 on the device, and the log.
    """
    device = pool.clips.device
    begin = time.perf_counter()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = new_model(settings, seed=seed).to(device)
    masters = MasterWeights(model)
    model = model.to(dtype).train()
    masters.working = list(model.parameters())
    in_blocks = [
        settings.muon and one.ndim == 2 and ("layer" in name or "encoder_to_decoder" in name)
        for name, one in model.named_parameters()
    ]
    matrices = [one for one, chosen in zip(masters.masters, in_blocks, strict=True) if chosen]
    others = [one for one, chosen in zip(masters.masters, in_blocks, strict=True) if not chosen]
    adam = Adam(others, betas=(0.9, 0.95), weight_decay=settings.weight_decay, scales=[1.0] * len(others))
    muon = Muon(matrices, weight_decay=settings.weight_decay) if matrices else None
    grid = native_grid(model.config)
    generator = torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
    losses = torch.zeros((), device=device)
    norms = torch.zeros((), device=device)

    def step() -> None:
        clips = pool.sample(settings.batch_size)
        masks = draw_masks(settings.mask, grid, batch=settings.batch_size, generator=generator)
        kept = max(1, round(settings.decode_fraction * masks.decoded.shape[1]))
        order = torch.rand(masks.decoded.shape, device=device).argsort(dim=1)[:, :kept]
        decoded = masks.decoded.gather(1, order)
        video = normalized(clips, dtype)
        output = model(video, visible_indices=masks.visible, decoded_indices=decoded)
        for one in masters.working:
            one.grad = None
        loss = output.loss
        if not settings.normalized:
            loss = pixel_loss(output.logits, model.targets(video, decoded), settings.pattern_weight)
        loss.backward()
        masters.take_gradients()
        norms.copy_(torch.linalg.vector_norm(torch.stack(list(torch._foreach_norm(gradients(masters.masters))))))
        adam.step()
        if muon is not None:
            muon.step()
        masters.give_weights()
        losses.lerp_(loss.detach(), 0.02)

    torch.manual_seed(seed + 1)
    replay = capture(step, device)  # the warm-up runs at rate 0
    log: list[dict[str, float]] = []
    start, number, last = time.perf_counter(), 0, 0.0
    seconds -= start - begin
    while True:
        if number % 50 == 0 or device.type == "cpu":
            synchronize(device)
            spent = (time.perf_counter() - start) / seconds
            if max_steps is not None:
                spent = number / max_steps
            if spent >= 1.0:
                break
            factor = rate(spent, warmup=settings.warmup, cooldown=settings.cooldown)
            adam.lr.fill_(settings.lr * factor)
            if muon is not None:
                muon.lr.fill_(settings.muon_lr * factor)
            if spent - last > 0.02 or number == 0:
                last = spent
                log.append(
                    {
                        "step": number,
                        "seconds": time.perf_counter() - start,
                        "loss": float(losses),
                        "gradient_norm": float(norms),
                        "lr": settings.lr * factor,
                    }
                )
        if renew_every and number % renew_every == 0:
            pool.make()
        replay()
        number += 1
    elapsed = time.perf_counter() - start
    model = new_model(settings, seed=seed).to(device)
    with torch.no_grad():
        for parameter, master in zip(model.parameters(), masters.masters, strict=True):
            parameter.copy_(master)
    finite = all(bool(torch.isfinite(one).all()) for one in masters.masters)
    return model.eval(), {
        "name": settings.name,
        "seed": seed,
        "steps": number,
        "views": number * settings.batch_size,
        "clips_drawn": pool.total,
        "setup_seconds": start - begin,
        "seconds": elapsed,
        "ms_per_step": 1000 * elapsed / max(number, 1),
        "final_loss": float(losses),
        "finite": finite,
        "log": log,
    }


def pixel_loss(logits: Tensor, targets: Tensor, pattern_weight: float) -> Tensor:
    """Return the error of pixels in standard units, plus that of tubelets without their means, over their variances.

    Args:
        logits: `[B, M, P]` predicted pixels.
        targets: `[B, M, P]` true pixels in [0, 1].
        pattern_weight: Of the second; 0: none.
    """
    error = logits.float() - targets
    loss = error.square().mean() / PIXEL_VARIANCE
    if pattern_weight:
        spread = targets.unflatten(-1, (-1, 3)).var(dim=2, correction=0)  # [B, M, C]
        pattern = error.unflatten(-1, (-1, 3)).var(dim=2, correction=0) / (spread + PATTERN_EPS)
        loss = loss + pattern_weight * pattern.mean()
    return loss


def rate(spent: float, *, warmup: float, cooldown: float) -> float:
    """Return the factor on the learning rate: warm-up, constant, linear cool-down; fractions of the budget."""
    if spent < warmup:
        return spent / warmup + 1e-3
    if spent > 1.0 - cooldown:
        return max((1.0 - spent) / cooldown, 0.0)
    return 1.0


def held_out(pool: ClipPool, count: int) -> Tensor:
    """Return procedural clips that are never trained on, the middle crop: `[count, T, 3, SIZE, SIZE]` uint8."""
    edge = (POOL_SIZE - SIZE) // 2
    parts = torch.arange(HELD_OUT, HELD_OUT + count).split(64)
    clips = torch.cat([pool.videos.clips(part) for part in parts])
    return clips[..., edge : edge + SIZE, edge : edge + SIZE].contiguous()


def cosine(spent: float) -> float:
    """Return the half cosine from 1 to 0, after a warm-up of a tenth."""
    return spent / 0.1 if spent < 0.1 else 0.5 * (1 + math.cos(math.pi * (spent - 0.1) / 0.9))
