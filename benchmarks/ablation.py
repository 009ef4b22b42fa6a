"""Undo one decision at a time and time our pre-training step with and without it, in turn, in processor time.

    python -m benchmarks.ablation --size S

Each entry of `DECISIONS` replaces a function or a constant of the package by its alternative.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contenders import SIZES, Setting, pretraining_task
from benchmarks.measure import time_in_turn
from videomae import pixel_loss
from videomae.model import cpu_attention, layers, pretraining
from videomae.model.embeddings import VideoMAEEmbeddings
from videomae.model.layers import run_layers
from videomae.model.outputs import VideoMAEDecoderOutput
from videomae.model.pretraining import VideoMAEDecoder
from videomae.patches import NORM_EPS, TubeletSize, gather_tokens, gather_tubelets, patch_statistics
from videomae.presets import IMAGENET_MEAN, IMAGENET_STD

_embed = VideoMAEEmbeddings.forward
_decode = VideoMAEDecoder.forward
Change = tuple[object, str, Any]


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with plain matrix multiplications and autograd, all heads at once."""
    return layers.attention_probabilities(query, key) @ value


def plain_attention_up_to_512_keys(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with plain matrix multiplications where there are few keys, else with the fused kernel."""
    if key.shape[-2] <= 512:
        return plain_attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def embed_in_float32(self: VideoMAEEmbeddings, *args: Any, **options: Any) -> Tensor:
    """Start the encoder's residual stream in float32."""
    return _embed(self, *args, **options).float()


def decode_in_float32(self: VideoMAEDecoder, hidden_states: Tensor, return_token_num: int) -> VideoMAEDecoderOutput:
    """Start the decoder's residual stream in float32."""
    return _decode(self, hidden_states.float(), return_token_num)


def embed_everything(
    self: VideoMAEEmbeddings, pixel_values: Tensor, bool_masked_pos: None, *, visible_indices: Tensor
) -> Tensor:
    """Embed every tubelet and keep the visible ones."""
    return gather_tokens(_embed(self, pixel_values), visible_indices)


def decode_everything(self: VideoMAEDecoder, hidden_states: Tensor, return_token_num: int) -> VideoMAEDecoderOutput:
    """Compute every token of the last decoder layer."""
    decoded = run_layers(self.decoder_layers, hidden_states)[:, -return_token_num:]
    return VideoMAEDecoderOutput(logits=self.head(self.norm(decoded)))


def norm_in_bfloat16(norm: nn.Module, tokens: Tensor) -> Tensor:
    """Normalise the tokens in their own dtype."""
    normalized: Tensor = norm(tokens)
    return normalized


@torch.no_grad()
def plain_targets(pixel_values: Tensor, decoded_indices: Tensor, size: TubeletSize, *, normalized: bool) -> Tensor:
    """Undo the ImageNet normalisation, then normalise each tubelet, not in place, channel fastest throughout."""
    num_channels = pixel_values.shape[2]
    pixels = gather_tubelets(pixel_values, decoded_indices, size).flatten(3).transpose(2, 3)  # [B, M, s, C]
    undone = pixels * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)
    statistics = patch_statistics(undone.flatten(2), num_channels)
    pixels = undone.flatten(2).unflatten(-1, (-1, num_channels))  # [B, N, s, C]
    whitened: Tensor = (pixels - statistics.mean) / (statistics.std + NORM_EPS)
    return whitened.flatten(2)


def plain_loss(logits: Tensor, targets: Tensor, weights: Tensor, count: Tensor | None) -> Tensor:
    """Square and average by autograd's own operations."""
    per_token = (logits.float() - targets).square().mean(dim=-1)
    counted = weights.to(per_token.dtype)
    return (per_token * counted).sum() / (counted.sum() if count is None else count)


def decode_at_once(loss_of: Any, states: Tensor, parameters: Any, *, rows: int) -> tuple[Tensor, Tensor]:
    """Decode all clips together, and leave the backward pass to autograd."""
    loss, logits = loss_of(states, slice(None))
    return loss, logits


DECISIONS: dict[str, tuple[Change, ...]] = {
    "nothing undone": (),
    "torch's fused attention everywhere": ((layers, "blocked_is_faster", lambda query: False),),
    "fused attention above 512 keys, plain matmuls below": (
        (layers, "blocked_attention", plain_attention_up_to_512_keys),
    ),
    "plain matmuls by autograd, all heads at once": ((layers, "blocked_attention", plain_attention),),
    "one head's scores at once": ((cpu_attention, "CHUNK_BYTES", 1),),
    "16 MiB of scores at once": ((cpu_attention, "CHUNK_BYTES", 2**24),),
    "all scores at once, and kept": (
        (cpu_attention, "CHUNK_BYTES", 2**40),
        (cpu_attention, "KEPT_BYTES", 2**40),
    ),
    "no scores kept": ((cpu_attention, "KEPT_BYTES", 0),),
    "one projection instead of three": ((layers, "one_product_is_faster", lambda _: True),),
    "residual stream in float32": (
        (VideoMAEEmbeddings, "forward", embed_in_float32),
        (VideoMAEDecoder, "forward", decode_in_float32),
    ),
    "LayerNorm in bfloat16": ((layers, "normalized", norm_in_bfloat16),),
    "all tubelets embedded": ((VideoMAEEmbeddings, "forward", embed_everything),),
    "all clips decoded at once": ((pretraining, "loss_in_parts", decode_at_once),),
    "last decoder block whole": ((VideoMAEDecoder, "forward", decode_everything),),
    "targets not in place": ((pixel_loss, "pixel_targets", plain_targets),),
    "loss by single operations": ((pixel_loss, "reconstruction_loss", plain_loss),),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: how many times as long the step takes with one decision undone."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="S")
    parser.add_argument("--batch", type=int, default=4, help="clips per step; default 4")
    parser.add_argument("--rounds", type=int, default=6, help="rounds that count; default 6")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    parser.add_argument("--only", default="", help="rows whose name contains this; default all")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cpu = torch.device("cpu")
    task = pretraining_task(options.size, Setting(cpu, torch.bfloat16), batch=options.batch)
    ours, theirs = (one.run for one in task.contenders)
    rows = [(undone, with_changes(ours, changes)) for undone, changes in DECISIONS.items()]
    rows.append(("transformers", theirs))
    rows = [row for row in rows if options.only in row[0]]
    if not rows:
        parser.error(f"--only is {options.only!r}, which no row contains: {', '.join(DECISIONS)}, transformers")
    print("| undone | size | batch | processor seconds, best | step takes x [lowest, highest] |")
    print("|" + " --- |" * 5)
    for undone, changed in rows:
        print(undone, "...", file=sys.stderr, flush=True)
        as_it_is, other = time_in_turn(ours, changed, warmup=1, rounds=options.rounds, device=cpu)
        longer = [b / a for a, b in zip(as_it_is.processor, other.processor, strict=True)]
        figures = f"{statistics.median(longer):.3f} [{min(longer):.3f}, {max(longer):.3f}]"
        print(f"| {undone} | {options.size} | {options.batch} | {min(other.processor):.3f} | {figures} |", flush=True)


def with_changes(run: Callable[[], Tensor], changes: tuple[Change, ...]) -> Callable[[], Tensor]:
    """Return a function that makes the changes, runs, and takes them back."""

    def changed() -> Tensor:
        with ExitStack() as stack:
            for owner, name, value in changes:
                stack.enter_context(patch.object(owner, name, value))
            return run()

    return changed


if __name__ == "__main__":
    main()
