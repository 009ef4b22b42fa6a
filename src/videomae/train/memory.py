"""How much memory a training step needs, in closed form.

Counted is what stays from the forward pass for the backward pass, tensor by tensor as this package computes it
without compilation: of a block, for each token, eight values of its width (input, normalized input, query, key,
value, what attention gives, the state after it, that normalized) and two of the MLP's. Attention's scores do not
stay, nor what the decoder keeps of more clips than it takes at once. Weights and the optimizer's state are float32;
under bf16 a copy of every matrix stays until its gradient is known. The peak is where the backward pass begins, or,
with few clips and many weights, where it ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from videomae.inference.flops import tokens_left
from videomae.inference.token_merging import EXTRA as PADDED
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.train.trained import TrainedParts

FLOAT32 = 4
STATES = 8  # values of the width that a block keeps for each token
GIB = 2.0**30


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step on one device, by what they hold."""

    weights: int
    """Float32 weights."""
    copies: int
    """Of matrices in bf16, until their gradients are known."""
    optimizer: int
    """Two moments of every trained weight, or one of a matrix that Muon updates; and a moving average, if any."""
    gradients: int
    """One of every trained weight, float32."""
    clips: int
    """The batch as uint8 and as what the model reads."""
    activations: int
    """What stays from the forward pass."""
    loss: int
    """Predictions, targets and their gradient, at the beginning of the backward pass."""

    @property
    def peak(self) -> int:
        """The most at one time: gradients grow while activations go, so both are never there in full."""
        always = self.weights + self.optimizer + self.clips
        return always + max(self.copies + self.activations + self.loss, self.gradients)

    def line(self) -> str:
        """Return the sum and its parts for people."""
        parts = ", ".join(
            f"{name} {value / GIB:.2f}"
            for name, value in (
                ("weights", self.weights + self.copies),
                ("optimizer", self.optimizer),
                ("gradients", self.gradients),
                ("clips", self.clips),
                ("activations", self.activations + self.loss),
            )
        )
        return f"memory of a step: {self.peak / GIB:.2f} GiB on each device, without compilation ({parts})"


def step_memory(
    config: VideoMAEConfig,
    *,
    clips: int,
    visible: int,
    decoded: int,
    bf16: bool,
    num_parameters: int,
    num_matrix_values: int,
    cuda: bool = False,
    muon_values: int = 0,
    shards: int = 1,
    averaged: bool = False,
    checkpointed: bool = False,
    trained: TrainedParts | None = None,
    decoded_at_once: int | None = None,
    merged: int = 0,
) -> StepMemory:
    """Return what a step needs.

    Args:
        config: Sizes of the model.
        clips: B, clips that are computed at once on a device.
        visible: V, tokens that the encoder sees; N in fine-tuning.
        decoded: M, tokens that the decoder predicts; 0 in fine-tuning.
        bf16: Whether it is computed in bf16. Norms are computed in float32 then and keep what they read so, a value
            more for each.
        num_parameters: Values of all weights.
        num_matrix_values: Of these, values of matrices, which are copied under bf16.
        cuda: Whether on a GPU, where attention's result is kept once more in the order of the tokens.
        muon_values: Values that Muon updates, with one moment each.
        shards: Devices among which FSDP2 divides weights, moments and gradients; 1 with DDP. The block that is being
            computed, which is whole then, is not counted.
        averaged: Whether a moving average of the weights is kept.
        checkpointed: Whether blocks keep their input alone, and one at a time is computed again.
        trained: Of fine-tuning that trains some of the weights; None: all are trained.
        decoded_at_once: Clips for which the decoder keeps something at one time; None: all.
        merged: r, tokens that each encoder block merges after attention.
    """
    size = 2 if bf16 else FLOAT32
    grid = native_grid(config)
    P, D, E = config.values_per_tubelet, config.hidden_size, config.decoder_hidden_size
    norm, again = int(bf16), int(cuda)  # values that a norm, and attention, keep more
    alone = 2 * int(bf16 and not cuda)  # queries, keys and values are computed alone, each from a copy in bf16
    states = STATES + 2 * norm + again + alone
    counts = [tokens_left(visible, removed=merged, depth=depth) for depth in range(config.num_hidden_layers + 1)]
    blocks = [block_bytes(D, config.intermediate_size, count, size, states=states) for count in counts[:-1]]
    if merged:
        heads, after = config.num_attention_heads, (2 + norm) * D + 2 * config.intermediate_size
        # Fewer tokens after attention; but in the first block sizes pad queries, keys, values and what comes of them,
        # which is then copied.
        blocks = [
            one + size * ((left - count) * after + count * (count < visible) * (4 * PADDED * heads + (1 - again) * D))
            for one, count, left in zip(blocks, counts[:-1], counts[1:], strict=True)
        ]
    kept = visible * P * size  # tubelets, for the gradient of the projection
    if trained is not None:
        blocks = [values * size for values in trained.block_values]
        kept *= int(trained.trains_embeddings)
    kept += sum(
        count * D * FLOAT32 if checkpointed else one for count, one in zip(counts[:-1], blocks, strict=True) if one
    )
    if not config.use_mean_pooling:
        kept += (2 + norm) * counts[-1] * D * size  # the last state, and that normalized
    block = max(blocks)
    loss = 0
    kept_by_decoder = 0
    if decoded:
        tokens, mlp, depth = visible + decoded, config.decoder_intermediate_size, config.decoder_num_hidden_layers
        of_decoder = block_bytes(E, mlp, tokens, size, states=states)
        kept_by_decoder += (depth - 1) * (tokens * E * FLOAT32 if checkpointed else of_decoder)
        block = max(block, of_decoder)
        kept_by_decoder += (4 + norm + alone // 2) * tokens * E * size  # last input, normalized, keys, values
        kept_by_decoder += ((7 + 2 * norm + again) * E + 2 * mlp) * decoded * size  # its outputs, and the last norm's
        kept_by_decoder += 2 * decoded * P * FLOAT32  # predictions and targets in float32
        loss = decoded * P * (FLOAT32 + (2 * size if bf16 else 0))  # the gradient; under bf16 again, with the logits
    kept += block if checkpointed else 0
    in_decoder = clips if decoded_at_once is None else min(clips, decoded_at_once)
    # Where no block keeps anything: two states, and what the MLP computes from and to, of the block at work.
    at_work = (2 * D + 2 * config.intermediate_size) * visible * size
    # Not the tubelet projection: clips have no gradient.
    copied = num_matrix_values - P * D if trained is None else trained.copied_values
    values = num_parameters if trained is None else trained.values
    return StepMemory(
        weights=num_parameters * FLOAT32 // shards,
        copies=(copied * size if bf16 else 0) // shards,
        optimizer=((3 if averaged else 2) * values - muon_values) * FLOAT32 // shards,
        gradients=values * FLOAT32 // shards,
        clips=clips * grid.num_tokens * P * (1 + FLOAT32),
        activations=clips * max(kept, at_work) + in_decoder * kept_by_decoder,
        loss=in_decoder * loss,
    )


def block_bytes(width: int, intermediate: int, tokens: int, size: int, *, states: int = STATES) -> int:
    """Return what a block keeps of one clip.

    Args:
        width: D.
        intermediate: Width of the MLP.
        tokens: N.
        size: Bytes of a value.
        states: Values of the width that it keeps for each token.
    """
    return (states * width + 2 * intermediate) * tokens * size
