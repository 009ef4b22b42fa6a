"""How many floating-point operations a forward pass or a training step must do, in closed form.

A multiply-add counts 2. Matrix multiplications and the two multiplications of attention count, nothing else does
(normalizations, softmax, activations and additions are under 2 % of a step). The backward pass counts twice the
forward pass, but once for the tubelet projection, whose input needs no gradient. Recomputation, as in fused attention
kernels, counts as nothing: it is how, not what.
"""

from __future__ import annotations

from dataclasses import dataclass

from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid


@dataclass(frozen=True)
class Flops:
    """Operations of the forward pass for one clip, by part."""

    embed: int
    """Tubelet projection."""
    encoder: int
    """Encoder blocks, and the projection to the decoder's width where there is a decoder."""
    decoder: int = 0
    """Decoder blocks."""
    head: int = 0
    """Prediction of pixels, or of classes."""

    @property
    def forward(self) -> int:
        """All of the forward pass."""
        return self.embed + self.encoder + self.decoder + self.head

    @property
    def step(self) -> int:
        """Forward and backward pass."""
        return 3 * self.forward - self.embed


def block_flops(width: int, intermediate: int, *, tokens: int, queries: int | None = None, depth: int = 1) -> int:
    """Return the operations of a stack of blocks whose last one computes the outputs of `queries` tokens only.

    Args:
        width: D.
        intermediate: Width of the MLP.
        tokens: N.
        queries: Q; None means N.
        depth: Number of blocks.
    """
    last = tokens if queries is None else queries

    def one(outputs: int) -> int:
        keys_values = 2 * tokens * width * 2 * width
        per_output = 2 * outputs * (2 * width * width + 2 * width * intermediate)  # query, projection, MLP
        return keys_values + per_output + 2 * 2 * outputs * tokens * width

    return (depth - 1) * one(tokens) + one(last)


def embedding_flops(config: VideoMAEConfig, *, tokens: int) -> int:
    """Return the operations of projecting so many tubelets."""
    return 2 * tokens * config.values_per_tubelet * config.hidden_size


def pretraining_flops(config: VideoMAEConfig, *, visible: int, decoded: int) -> Flops:
    """Return the operations of pre-training on one clip, as this package computes it.

    Only visible tubelets are embedded, and the last decoder block computes the decoded tokens only.

    Args:
        config: Sizes of the model.
        visible: V, tokens that the encoder sees.
        decoded: M, tokens that the decoder predicts.
    """
    width, decoder_width = config.hidden_size, config.decoder_hidden_size
    return Flops(
        embed=embedding_flops(config, tokens=visible),
        encoder=2 * visible * width * decoder_width
        + block_flops(width, config.intermediate_size, tokens=visible, depth=config.num_hidden_layers),
        decoder=block_flops(
            decoder_width,
            config.decoder_intermediate_size,
            tokens=visible + decoded,
            queries=decoded,
            depth=config.decoder_num_hidden_layers,
        ),
        head=2 * decoded * decoder_width * config.values_per_tubelet,
    )


def classification_flops(config: VideoMAEConfig) -> Flops:
    """Return the operations of classifying one clip, every token computed."""
    return merging_flops(config, tokens=native_grid(config).num_tokens, removed=0)


def merging_flops(config: VideoMAEConfig, *, tokens: int, removed: int) -> Flops:
    """Return the operations of classifying one clip of which every block merges tokens between attention and MLP.

    What finds the tokens to merge is left out: under 1 % with the published sizes.

    Args:
        config: Sizes of the model.
        tokens: N, of the clip.
        removed: r, tokens that a block merges into others, or half of them where there are no more.
    """
    D, encoder, count = config.hidden_size, 0, tokens
    for _ in range(config.num_hidden_layers):
        encoder += block_flops(D, 0, tokens=count)  # attention alone
        count = tokens_left(count, removed=removed, depth=1)
        encoder += 2 * count * 2 * D * config.intermediate_size
    head = 2 * D * config.num_labels
    return Flops(embed=embedding_flops(config, tokens=tokens), encoder=encoder, head=head)


def tokens_left(tokens: int, *, removed: int, depth: int) -> int:
    """Return how many tokens are left after so many blocks that merge `removed` each, or half where that is less."""
    for _ in range(depth):
        tokens -= min(removed, tokens // 2)
    return tokens
