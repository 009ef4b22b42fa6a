"""Pre-training of one way on one thread of a processor, for a number of seconds of its time."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor

from experiments.ablations.clips import views
from experiments.ablations.ways import Way
from experiments.learning.graphs import Adam, Muon
from experiments.learning.pretraining import pixel_loss, rate
from experiments.learning.settings import normalized
from videomae.masking import draw_masks
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import TokenGrid
from videomae.positions import sinusoid_table
from videomae.train.lookup import initialize_lookup

PATTERN_WEIGHT = 0.5  # of normalized targets beside pixels
EMA_FROM = 0.1  # fraction of the budget after which weights are averaged


def new_model(way: Way, *, seed: int) -> VideoMAEForPreTraining:
    """Return an untrained model; it depends on the way and the seed alone."""
    torch.manual_seed(seed)
    model = VideoMAEForPreTraining(way.config())
    if way.positions == "3d":
        grid = native_grid(model.config)
        model.position_embeddings = separable_table(grid, model.config.decoder_hidden_size)
        model.videomae.embeddings.position_embeddings = separable_table(grid, model.config.hidden_size)
    if way.lookup:
        initialize_lookup(model)
    return model


def separable_table(grid: TokenGrid, width: int) -> Tensor:
    """Return sinusoid codes `[1, N, D]` of time, row and column side by side: a quarter, and three eighths each."""
    part = 2 * (3 * width // 16)
    t, h, w = grid.frames, grid.height, grid.width
    times, rows, columns = (sinusoid_table(n, d)[0] for n, d in ((t, width - 2 * part), (h, part), (w, part)))
    whole = torch.cat(
        (
            times[:, None, None].expand(t, h, w, -1),
            rows[None, :, None].expand(t, h, w, -1),
            columns[None, None].expand(t, h, w, -1),
        ),
        dim=-1,
    )
    return whole.reshape(1, t * h * w, width)


def pretrain(
    way: Way, pool: Tensor, *, seed: int, seconds: float, model: VideoMAEForPreTraining | None = None
) -> tuple[VideoMAEForPreTraining, dict[str, Any]]:
    """Pre-train for `seconds * way.budget` seconds of processor time, in float32.

    Args:
        way: How.
        pool: Clips `[n, T, 3, H, W]` uint8.
        seed: Of weights, order, views and masks.
        seconds: Common budget; what other programs of the machine take does not count.
        model: Goes on from it, in place; None: a new one.

    Returns:
        The model, and what the run was.
    """
    model = new_model(way, seed=seed) if model is None else model
    record: dict[str, Any] = {"steps": 0, "views": 0, "loss": None}
    if way.budget == 0:
        return model.eval(), record
    generator = torch.Generator().manual_seed(seed)
    named = dict(model.train().named_parameters())
    in_layers = {
        name for name, one in named.items() if one.ndim == 2 and ("layer" in name or "encoder_to_decoder" in name)
    }
    matrices: list[Tensor] = [one for name, one in named.items() if way.muon and name in in_layers]
    others: list[Tensor] = [one for name, one in named.items() if not (way.muon and name in in_layers)]
    adam = Adam(others, betas=(0.9, 0.95), weight_decay=way.weight_decay, scales=[1.0] * len(others))
    muon = Muon(matrices, weight_decay=way.weight_decay) if matrices else None
    average = copy.deepcopy(model) if way.ema else None
    grid = native_grid(model.config)
    start, budget, loss = time.process_time(), seconds * way.budget, torch.zeros(())
    while (spent := (time.process_time() - start) / budget) < 1.0:
        factor = rate(spent, warmup=way.warmup, cooldown=way.cooldown)
        adam.lr.fill_(way.lr * factor)
        clips = views(pool, way, generator)
        masks = draw_masks(way.mask(spent), grid, batch=len(clips), generator=generator)
        pixels = normalized(clips, torch.float32)
        output = model(pixels, visible_indices=masks.visible, decoded_indices=masks.decoded)
        loss = output.loss
        if way.targets == "both":
            loss = pixel_loss(output.logits, model.targets(pixels, masks.decoded), PATTERN_WEIGHT)
        for one in named.values():
            one.grad = None
        loss.backward()
        adam.step()
        if muon is not None:
            muon.lr.fill_(way.muon_lr * factor)
            muon.step()
        record["steps"] += 1
        if average is not None and spent > EMA_FROM:
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - way.ema)
        elif average is not None:
            average.load_state_dict(model.state_dict())
    record["views"] = record["steps"] * way.batch_size
    record["loss"] = float(loss.detach())
    return (average or model).eval(), record
