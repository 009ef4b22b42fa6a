"""Self-attention in bfloat16 on a CPU: plain matrix multiplications, some heads at a time.

Torch's fused CPU kernel multiplies small blocks without the processor's bfloat16 instructions; whole heads given to
the matrix library are 1.15 to 4 times as fast there, the fewer tokens the faster (docs/performance.md has the table).
In float32 the fused kernel is as good.

`B` batch, `H` heads, `Q` queries, `N` keys, `d` width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Scores computed at once. Below the 32 MiB from which glibc maps fresh, zeroed pages for every allocation, and enough
# heads at once for several threads; 1 to 32 MiB make less than 5 % of difference to a pre-training step.
CHUNK_BYTES = 16 * 2**20


def blocked_is_faster(query: Tensor) -> bool:
    """Return whether `blocked_attention` is the faster way; a program being exported keeps to torch's operators."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and not torch.compiler.is_exporting()


def blocked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return `softmax(q k^T / sqrt(d)) v`, with the scores rounded to the dtype of the inputs.

    Memory for scores: one chunk, at least one head of `Q * N` scores, and the same again in the backward pass. They
    are kept for the backward pass only where one chunk holds them all.

    Args:
        query: `[B, H, Q, d]` on the CPU.
        key: `[B, H, N, d]`.
        value: `[B, H, N, d]`.

    Returns:
        `[B, H, Q, d]`.
    """
    B, H, _, d = query.shape
    # As an operator only where one is needed: the first call of one imports torch's compiler, which takes a second.
    plain = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    attend = attend_in_chunks if plain else _attend
    context, _ = attend((query * d**-0.5).flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1))  # [B * H, Q, d]
    return torch.unflatten(context, 0, (B, H))


def attend_in_chunks(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return contexts `[G, Q, d]` of G = B * H heads, and the probabilities if one chunk holds them, else nothing."""
    G, Q, _ = query.shape
    size = _heads_at_once(query, key)
    context = torch.empty_like(query, memory_format=torch.contiguous_format)
    scratch = query.new_empty(min(size, G), Q, key.shape[1])
    for start in range(0, G, size):
        part = slice(start, start + size)
        probabilities = _probabilities(query[part], key[part], out=scratch[: G - start])
        torch.bmm(probabilities, value[part], out=context[part])
    return context, scratch if size >= G else query.new_empty(0)


# Opaque to the compiler, which would write out the loops chunk by chunk.
_attend = torch.library.custom_op("videomae::attend_in_chunks", attend_in_chunks, mutates_args=(), device_types="cpu")


@torch.library.custom_op("videomae::attend_in_chunks_backward", mutates_args=(), device_types="cpu")
def _attend_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value, `[G, Q, d]`, `[G, N, d]` and `[G, N, d]`."""
    G, Q, _ = query.shape
    size = _heads_at_once(query, key)
    of_query, of_key, of_value = (
        torch.empty_like(one, memory_format=torch.contiguous_format) for one in (query, key, value)
    )
    scratch = query.new_empty(min(size, G), Q, key.shape[1])
    again = torch.empty_like(scratch) if kept.numel() == 0 else kept
    for start in range(0, G, size):
        part, probabilities, of_scores = slice(start, start + size), again[: G - start], scratch[: G - start]
        if kept.numel() == 0:
            _probabilities(query[part], key[part], out=probabilities)
        torch.bmm(grad[part], value[part].transpose(1, 2), out=of_scores)
        torch.ops.aten._softmax_backward_data.out(of_scores, probabilities, -1, of_scores.dtype, grad_input=of_scores)
        torch.bmm(probabilities.transpose(1, 2), grad[part], out=of_value[part])
        torch.bmm(of_scores.transpose(1, 2), query[part], out=of_key[part])
        torch.bmm(of_scores, key[part], out=of_query[part])
    return of_query, of_key, of_value


def _heads_at_once(query: Tensor, key: Tensor) -> int:
    return max(1, CHUNK_BYTES // (query.shape[1] * key.shape[1] * query.element_size()))


def _probabilities(query: Tensor, key: Tensor, *, out: Tensor) -> Tensor:
    torch.bmm(query, key.transpose(1, 2), out=out)
    return torch.softmax(out, dim=-1, out=out)


@_attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    G, Q, _ = query.shape
    kept = (G, Q, key.shape[1]) if _heads_at_once(query, key) >= G else (0,)
    return torch.empty_like(query, memory_format=torch.contiguous_format), query.new_empty(kept)


@_attend_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    of_query, of_key, of_value = (
        torch.empty_like(one, memory_format=torch.contiguous_format) for one in (query, key, value)
    )
    return of_query, of_key, of_value


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _grad_of_kept: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor] = _attend_backward(grad.contiguous(), *ctx.saved_tensors)
    return gradients


_attend.register_autograd(_differentiate, setup_context=_save)
