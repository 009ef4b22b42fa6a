"""What a step of fine-tuning takes where a part of the weights is frozen: operations, kept activations, states.

Of every matrix multiplication the backward pass computes the gradient of the weights where these are trained, that
of the input where something before it is trained; each takes what the forward pass takes. What stays for the backward
pass follows from the same two questions, see `train/memory.py`. Below the lowest trained weight nothing stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from videomae.inference.flops import embedding_flops, tokens_left
from videomae.inference.token_merging import EXTRA as PADDED
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.embeddings import native_grid
from videomae.model.layers import VideoMAELayer


@dataclass(frozen=True)
class TrainedParts:
    """What a step takes that trains some of the weights."""

    step_flops: int
    """Floating-point operations of the forward and the backward pass for one clip."""
    values: int
    """Values of all trained weights: each has a gradient and optimizer state."""
    copied_values: int
    """Values of matrices whose copies in bf16 stay, for the gradients of their inputs."""
    block_values: tuple[int, ...]
    """Activations that each encoder block keeps of one clip, in values of the compute dtype; 0: nothing is kept."""
    trains_embeddings: bool
    """Whether the tubelets stay, for the gradient of their projection."""


def trained_parts(
    model: VideoMAEForVideoClassification, *, bf16: bool = False, cuda: bool = False, merged: int = 0
) -> TrainedParts | None:
    """Return what a step takes; None where all weights are trained, or the encoder's blocks are not this package's.

    Args:
        model: After `train.adapting.choose_trained`.
        bf16: Whether it is computed in bf16.
        cuda: Whether on a GPU.
        merged: r, tokens that each block merges.
    """
    config = model.config
    blocks = [module for module in model.modules() if isinstance(module, VideoMAELayer)]
    if all(one.requires_grad for one in model.parameters()) or len(blocks) != config.num_hidden_layers:
        return None
    tokens = native_grid(config).num_tokens
    trains_embeddings = _is_trained(model.get_input_embeddings())
    walk = _Walk(tokens, bf16=bf16, cuda=cuda, reached=trains_embeddings)
    walk.flops = embedding_flops(config, tokens=tokens) * (2 if trains_embeddings else 1)
    kept = tuple(walk.block(block, merged=merged) for block in blocks)
    if model.fc_norm is not None:
        walk.norm(model.fc_norm)
    walk.tokens = 1
    walk.linear(model.classifier)
    return TrainedParts(
        step_flops=walk.flops,
        values=sum(one.numel() for one in model.parameters() if one.requires_grad),
        copied_values=walk.copied,
        block_values=kept,
        trains_embeddings=trains_embeddings,
    )


class _Walk:
    """Goes through the forward pass of one clip and counts."""

    def __init__(self, tokens: int, *, bf16: bool, cuda: bool, reached: bool) -> None:
        self.tokens = self.whole = tokens
        self.flops = self.copied = self.kept = 0
        self.reached = reached
        """Whether what is computed so far depends on a trained weight, so that gradients come back to here."""
        self._bf16, self._cuda = bf16, cuda

    def block(self, layer: VideoMAELayer, *, merged: int) -> int:
        """Count a block that merges so many tokens after attention; returns the values that it keeps."""
        self.kept = 0
        below, N = self.reached, self.tokens
        attention = layer.attention.attention
        D = attention.all_head_size
        self.norm(layer.layernorm_before, keeps=D)
        before = self.reached
        parts: list[Any] = [attention.query, attention.key, attention.value]
        reached = []
        for part in parts:
            self.reached = before
            self.linear(part)
            reached.append(self.reached)
        self.inputs(parts, width=D, reached=before)
        of_query, of_key, of_value = reached
        self.reached = any(reached)
        # Scores and what they weigh; the gradients of queries, keys, probabilities and values.
        self.flops += (2 + of_query + of_key + (of_query or of_key) + of_value) * 2 * N * N * D
        self.kept += 4 * N * D if self.reached else 0  # queries, keys, values and the result
        projection: Any = layer.attention.output.dense
        padded = self.whole > N  # by the sizes of merged tokens, and taken out of it again
        self.kept += 4 * N * PADDED * attention.num_attention_heads if padded and self.reached else 0
        if self._cuda or padded or _dropped([projection]):
            self.inputs([projection], width=D, reached=self.reached)
        self.linear(projection)
        self.tokens = N = tokens_left(N, removed=merged, depth=1)
        self.reached = self.reached or below or _has_trained(layer.gamma_1)
        self.norm(layer.layernorm_after, keeps=D)
        below = self.reached
        first: Any = layer.intermediate.dense
        second: Any = layer.output.dense
        self.inputs([first], width=D, reached=self.reached)
        self.linear(first)
        width = _sizes(first)[1]
        self.kept += N * width if self.reached else 0  # what the activation was given
        self.inputs([second], width=width, reached=self.reached)
        self.linear(second)
        self.reached = self.reached or below or _has_trained(layer.gamma_2)
        return self.kept

    def norm(self, norm: nn.Module, *, keeps: int = 0) -> None:
        """Count a LayerNorm; it keeps its input, in float32."""
        self.reached = self.reached or _is_trained(norm)
        self.kept += self.tokens * keeps * (1 + self._bf16) if self.reached else 0

    def linear(self, linear: Any) -> None:
        """Count a linear layer, with its adapter if it has one; what it keeps is counted by the block."""
        base = getattr(linear, "base_layer", linear)
        wide, out = _sizes(linear)
        forward = 2 * self.tokens * wide * out
        trained = base.weight.requires_grad
        self.flops += forward * (1 + trained + self.reached)
        self.copied += wide * out if self.reached else 0
        reached = self.reached or _is_trained(base)
        for rank, is_trained in _ranks(linear):
            down, up = 2 * self.tokens * wide * rank, 2 * self.tokens * rank * out
            through = is_trained or self.reached  # whether what is between its matrices depends on trained weights
            self.flops += down * (1 + is_trained + self.reached) + up * (1 + is_trained + through)
            self.copied += rank * (out * through + wide * self.reached)
            self.kept += self.tokens * rank * is_trained
            reached = reached or is_trained
        self.reached = reached

    def inputs(self, linears: list[Any], *, width: int, reached: bool) -> None:
        """Count the input that some layers share as often as it is kept, for the gradients of their weights.

        In bf16 each layer keeps a copy of its own, but for those that a GPU computes as one; with dropout each
        adapter keeps its own input, and its mask where a gradient goes on from there.
        """
        plain = sum(1 for one in linears if getattr(one, "base_layer", one).weight.requires_grad)
        adapted = [one for one in linears if any(is_trained for _, is_trained in _ranks(one))]
        dropped = _dropped(adapted)
        shared = plain + len(adapted) - dropped
        if not self._bf16 or (self._cuda and not adapted):
            shared = min(shared, 1)
        mask = dropped * reached * (1 if self._cuda else 4) / (2 if self._bf16 else 4)  # bool, or float32
        self.kept += int(self.tokens * width * (shared + dropped + mask))


def _sizes(linear: Any) -> tuple[int, int]:
    """Return the widths of a linear layer's input and output, with or without an adapter."""
    out, wide = getattr(linear, "base_layer", linear).weight.shape
    return int(wide), int(out)


def _ranks(linear: Any) -> list[tuple[int, bool]]:
    """Return the rank of each adapter of a linear layer, and whether it is trained."""
    adapters = getattr(linear, "lora_A", {})
    return [(int(one.weight.shape[0]), one.weight.requires_grad) for one in adapters.values()]


def _dropped(linears: list[Any]) -> int:
    """Return how many of some linear layers have an adapter with dropout that is trained."""
    return sum(
        1
        for one in linears
        if any(is_trained for _, is_trained in _ranks(one))
        and any(getattr(drop, "p", 0.0) > 0 for drop in one.lora_dropout.values())
    )


def _is_trained(module: nn.Module) -> bool:
    return any(one.requires_grad for one in module.parameters())


def _has_trained(parameter: nn.Parameter | None) -> bool:
    return parameter is not None and parameter.requires_grad
