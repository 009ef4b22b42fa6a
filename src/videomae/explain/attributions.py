"""How much each token of a clip has to do with what a model says: three ways, none of which is the truth.

All take normalized pixels of one clip, `[1, T, C, H, W]`, and return float32 `[t, h, w]` on the CPU, at least 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel, encode
from videomae.patches import TokenGrid

OCCLUDED_PARTS = 4  # along each axis of the grid
OCCLUDED_AT_ONCE = 8  # clips in one forward pass


@torch.no_grad()
def rollout(encoder: VideoMAEModel, pixel_values: Tensor) -> Tensor:
    """Return the attention that reaches each token through all layers, averaged over the output tokens.

    Heads are averaged, and half of each layer is its residual connection. The same for every class.

    Source: Abnar and Zuidema 2020, attention rollout.
    """
    attentions = _attentions(encoder, pixel_values)
    size = attentions[0].shape[-1]
    identity = torch.eye(size, device=pixel_values.device)
    flow = identity
    for attention in attentions:
        flow = (attention[0].float().mean(dim=0) + identity) / 2 @ flow
    return _on_grid(_of_output(flow, encoder), encoder, pixel_values)


def gradient_attention(model: VideoMAEForVideoClassification, pixel_values: Tensor, label_id: int) -> Tensor:
    """Return attention times its gradient for a class, positive parts alone, through all layers.

    The layers' part is that of the source. It says which tokens an output token has looked at; which output tokens
    the class is read from, in a model that pools their mean, is told by their value times its gradient. Without that
    the map misses what reaches the output without attention, through the residual connections.

    Needs memory for the attention of all layers and its gradient: 2.8 GB for a base model and 16 frames of 224
    pixels.

    Source: Chefer et al. 2021, "Generic attention-model explainability", equations 5 and 6.
    """
    with torch.enable_grad():
        # A leaf that needs a gradient, so that the attentions are in the graph also where all weights are frozen.
        pixels = pixel_values.detach().clone().requires_grad_()
        output = model(pixels, output_attentions=True, output_hidden_states=True)
        last = output.hidden_states[-1]  # [1, N, D]
        *gradients, of_last = torch.autograd.grad(output.logits[0, label_id], (*output.attentions, last))
    encoder = model.videomae
    relevance = torch.eye(last.shape[1], device=pixel_values.device)
    for attention, gradient in zip(output.attentions, gradients, strict=True):
        positive = (attention.detach()[0].float() * gradient[0].float()).clamp_min(0).mean(dim=0)
        relevance = relevance + positive @ relevance
    read = (last.detach()[0] * of_last[0]).sum(dim=1).float().clamp_min(0)  # [N]
    values = read @ relevance
    return _on_grid(values[1:] if encoder.config.use_cls_token else values, encoder, pixel_values)


@torch.no_grad()
def occlusion(model: VideoMAEForVideoClassification, pixel_values: Tensor, label_id: int) -> Tensor:
    """Return what a class's logit loses where a block of the clip is set to the mean color.

    Blocks are a quarter of the grid along each axis, side by side; a clip whose logit rises without a block has 0
    there. 64 forward passes, in batches.

    Source: Zeiler and Fergus 2014, occlusion sensitivity.
    """
    grid = model.videomae.embeddings.grid_of(pixel_values)
    whole = model(pixel_values).logits[0, label_id].float()
    loss = torch.zeros(grid.frames, grid.height, grid.width)
    scale = [size // cells for size, cells in zip(_sizes(pixel_values), _cells(grid), strict=True)]
    blocks = list(_blocks(grid))
    for start in range(0, len(blocks), OCCLUDED_AT_ONCE):
        some = blocks[start : start + OCCLUDED_AT_ONCE]
        hidden = pixel_values.repeat(len(some), 1, 1, 1, 1)
        for row, block in enumerate(some):
            time, height, width = (slice(one.start * by, one.stop * by) for one, by in zip(block, scale, strict=True))
            hidden[row, time, :, height, width] = 0.0  # normalized pixels: the mean color
        logits = model(hidden).logits[:, label_id].float()
        for block, logit in zip(some, logits, strict=True):
            loss[block] = float((whole - logit).clamp_min(0))
    return loss


def _blocks(grid: TokenGrid) -> Iterator[tuple[slice, slice, slice]]:
    axes = []
    for cells in _cells(grid):
        size = max(1, cells // OCCLUDED_PARTS)
        axes.append([slice(start, min(start + size, cells)) for start in range(0, cells, size)])
    yield from product(*axes)


def _cells(grid: TokenGrid) -> tuple[int, int, int]:
    return grid.frames, grid.height, grid.width


def _sizes(pixel_values: Tensor) -> tuple[int, int, int]:
    _, frames, _, height, width = pixel_values.shape
    return frames, height, width


def _attentions(encoder: VideoMAEModel, pixel_values: Tensor) -> tuple[Tensor, ...]:
    attentions = encode(encoder, pixel_values, output_attentions=True).attentions
    assert attentions is not None
    return attentions


def _of_output(flow: Tensor, encoder: VideoMAEModel) -> Tensor:
    """Return `[N]`, what flows into the pooled output: from the CLS token where there is one, else from all."""
    return flow[0, 1:] if encoder.config.use_cls_token else flow.mean(dim=0)


def _on_grid(values: Tensor, encoder: VideoMAEModel, pixel_values: Tensor) -> Tensor:
    return values.detach().float().cpu().view(*_cells(encoder.embeddings.grid_of(pixel_values)))
