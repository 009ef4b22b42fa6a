"""Self-attention in bfloat16 on a CPU: plain matrix multiplications, some heads at a time.

Torch's fused CPU kernel multiplies small blocks without the processor's bfloat16 instructions; whole heads given to
the matrix library are 1.3 to 4 times as fast there (docs/performance.md). In float32 the fused kernel is as good.

`B` batch, `H` heads, `Q` queries, `N` keys, `d` width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Scores computed at once: up to 8 MiB stay in the caches between two products, 7 to 15 % faster than 16 or 32.
CHUNK_BYTES = 4 * 2**20
# Probabilities kept for the backward pass; below the 32 MiB from which glibc maps fresh, zeroed pages every time.
KEPT_BYTES = 16 * 2**20


def blocked_is_faster(query: Tensor) -> bool:
    """Return whether `blocked_attention` is the faster way; exported programs keep to torch's operators."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and not torch.compiler.is_exporting()


def blocked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return `softmax(q k^T / sqrt(d)) v`, with the scores rounded to the dtype of the inputs.

    Memory for scores: one chunk, at least one head of `Q * N` scores, and two in the backward pass. All are kept for
    it only where they take `KEPT_BYTES` at most.

    Args:
        query: `[B, H, Q, d]` on the CPU.
        key: `[B, H, N, d]`.
        value: `[B, H, N, d]`.

    Returns:
        `[B, H, Q, d]`.
    """
    B, H, _, d = query.shape
    # As an operator only where one is needed: its first call imports torch's compiler, which takes a second.
    plain = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    heads = (query * d**-0.5).flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)  # [B * H, Q or N, d]
    context, _ = attend_in_chunks(*heads, is_kept=False) if plain else _attend(*heads)
    return torch.unflatten(context, 0, (B, H))


def attend_in_chunks(query: Tensor, key: Tensor, value: Tensor, *, is_kept: bool) -> tuple[Tensor, Tensor]:
    """Return contexts `[G, Q, d]` of G = B * H heads, and the probabilities if they are kept, else nothing."""
    G, Q, _ = query.shape
    size = min(_heads_at_once(query, key), G)
    context = torch.empty_like(query, memory_format=torch.contiguous_format)
    scores = query.new_empty(G if is_kept else size, Q, key.shape[1])
    for start in range(0, G, size):
        part = slice(start, start + size)
        probabilities = _probabilities(query[part], key[part], out=scores[part] if is_kept else scores[: G - start])
        torch.bmm(probabilities, value[part], out=context[part])
    return context, scores if is_kept else query.new_empty(0)


# Opaque to the compiler, which would write out the loops chunk by chunk.
@torch.library.custom_op("videomae::attend_in_chunks", mutates_args=(), device_types="cpu")
def _attend(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return attend_in_chunks(query, key, value, is_kept=_is_kept(query, key))


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
    scratch, again = (query.new_empty(min(size, G), Q, key.shape[1]) for _ in range(2))
    for start in range(0, G, size):
        part, of_scores, probabilities = slice(start, start + size), scratch[: G - start], kept[start : start + size]
        if kept.numel() == 0:
            probabilities = _probabilities(query[part], key[part], out=again[: G - start])
        torch.bmm(grad[part], value[part].transpose(1, 2), out=of_scores)
        torch.ops.aten._softmax_backward_data.out(of_scores, probabilities, -1, of_scores.dtype, grad_input=of_scores)
        torch.bmm(probabilities.transpose(1, 2), grad[part], out=of_value[part])
        torch.bmm(of_scores.transpose(1, 2), query[part], out=of_key[part])
        torch.bmm(of_scores, key[part], out=of_query[part])
    return of_query, of_key, of_value


def _heads_at_once(query: Tensor, key: Tensor) -> int:
    return max(1, CHUNK_BYTES // (query.shape[1] * key.shape[1] * query.element_size()))


def _is_kept(query: Tensor, key: Tensor) -> bool:
    return query.shape[0] * query.shape[1] * key.shape[1] * query.element_size() <= KEPT_BYTES


def _probabilities(query: Tensor, key: Tensor, *, out: Tensor) -> Tensor:
    torch.bmm(query, key.transpose(1, 2), out=out)
    return torch.softmax(out, dim=-1, out=out)


@_attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    G, Q, _ = query.shape
    kept = (G, Q, key.shape[1]) if _is_kept(query, key) else (0,)
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
