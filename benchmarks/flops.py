"""Floating-point operations of the ways to compute a pre-training step; see `videomae.inference.flops`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from videomae.inference.flops import Flops as Flops
from videomae.inference.flops import block_flops as block_flops
from videomae.inference.flops import classification_flops as classification_flops
from videomae.inference.flops import embedding_flops
from videomae.inference.flops import pretraining_flops as exact_flops
from videomae.masking import hidden_count
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid

Variant = Literal["naive", "exact", "dual"]


def pretraining_flops(config: VideoMAEConfig, *, variant: Variant, ratio: float = 0.9) -> Flops:
    """Return the operations of pre-training on one clip with tube masks.

    Args:
        config: Sizes of the model.
        variant: naive: every tubelet is embedded, every decoder block computes every token (the original and
            transformers). exact: the same loss and gradients, but only visible tubelets are embedded, and the last
            decoder block computes the decoded tokens only (this package). dual: as exact, with half of the hidden
            tokens decoded.
        ratio: Fraction of the tokens hidden from the encoder.
    """
    grid = native_grid(config)
    hidden = hidden_count(grid.tokens_per_frame, ratio) * grid.frames
    visible = grid.num_tokens - hidden
    decoded = hidden // 2 if variant == "dual" else hidden
    exact = exact_flops(config, visible=visible, decoded=decoded)
    if variant != "naive":
        return exact
    every_token = block_flops(
        config.decoder_hidden_size,
        config.decoder_intermediate_size,
        tokens=grid.num_tokens,
        depth=config.decoder_num_hidden_layers,
    )
    return replace(exact, embed=embedding_flops(config, tokens=grid.num_tokens), decoder=every_token)
