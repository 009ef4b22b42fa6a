"""Initial values with which a decoder starts as a look-up of neighboring visible tokens.

With the published initialization a small model stays at the trivial baseline until attention has found out which
visible tokens are near a hidden one. These values start it there; they change no shape and no layout.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from videomae.model.layers import VideoMAELayer
from videomae.model.pretraining import VideoMAEForPreTraining

SHARPNESS = 1.7  # scale of queries and keys: a hidden token then gives most of its attention to near visible tokens
PROJECTION_SCALE = 0.5  # of the encoder's states, so that positions dominate at first
HEAD_SCALE = 0.3  # of the predictions, which start near zero


@torch.no_grad()
def initialize_lookup(model: VideoMAEForPreTraining) -> None:
    """Overwrite initial values of the decoder in place, with torch's global generator.

    In every head the rows of the query matrix are orthonormal, so that scores measure how alike two position codes
    are. The key matrix is the same behind a reflection of `u`, the direction in which position codes have the least
    energy, and the mask token lies along `u`: mask tokens repel each other and attend to visible ones.

    Source: in the spirit of mimetic initialization (Trockman and Kolter 2023); the values were found by experiment,
    see docs/learning.md.
    """
    codes = model.position_embeddings[0].double().cpu()  # [N, E]
    E = codes.shape[1]
    direction = torch.linalg.eigh(codes.T @ codes).eigenvectors[:, 0].float()  # [E], smallest eigenvalue first
    reflection = torch.eye(E) - 2.0 * torch.outer(direction, direction)
    for layer in model.decoder.decoder_layers:
        attention = cast(VideoMAELayer, layer).attention.attention
        heads, width = attention.num_attention_heads, attention.attention_head_size
        rows = [nn.init.orthogonal_(torch.empty(width, E), gain=SHARPNESS) for _ in range(heads)]  # H times [d, E]
        queries = torch.cat(rows)  # [E, E]
        attention.query.weight.copy_(queries)
        attention.key.weight.copy_(queries @ reflection)
    model.mask_token.copy_(direction * (E**0.5 / 2))
    model.encoder_to_decoder.weight.mul_(PROJECTION_SCALE)
    model.decoder.head.weight.mul_(HEAD_SCALE)
