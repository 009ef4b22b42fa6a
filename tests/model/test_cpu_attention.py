"""The CPU's own attention against its formula, its gradients against differences, and when it is chosen."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiny_models import relative_error, tiny_config
from videomae.model import cpu_attention, layers
from videomae.model.cpu_attention import blocked_attention, blocked_is_faster
from videomae.model.layers import VideoMAESelfAttention

CHUNKS = {"one head at a time": 1, "four heads, then two": 4 * 4 * 7 * 8, "all heads at once": 2**20}


def heads(dtype: torch.dtype, *, queries: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of 2 videos, 3 heads, 7 tokens, interleaved in memory as a projection's are."""
    fused = torch.randn(2, 7, 3, 3, 5, dtype=dtype)  # [B, N, 3, H, d]
    query, key, value = fused.permute(2, 0, 3, 1, 4).unbind(0)
    return query[:, :, -queries:].requires_grad_(), key.requires_grad_(), value.requires_grad_()


@pytest.mark.parametrize("kept", [0, 2**20], ids=["not kept", "kept"])
@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
def test_it_is_softmax_attention_whatever_the_chunks(chunk: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(cpu_attention, "KEPT_BYTES", kept)
    inputs = heads(torch.float64)
    expected = F.scaled_dot_product_attention(*inputs)
    torch.testing.assert_close(blocked_attention(*inputs), expected, atol=1e-12, rtol=1e-12)
    assert torch.autograd.gradcheck(blocked_attention, inputs)
    with torch.inference_mode():
        torch.testing.assert_close(blocked_attention(*inputs), expected, atol=1e-12, rtol=1e-12)


def test_bfloat16_costs_no_more_accuracy_than_plain_products_in_bfloat16() -> None:
    exact = [torch.randn(2, 3, 160, 64, requires_grad=True) for _ in range(3)]
    rounded = [one.detach().bfloat16().requires_grad_() for one in exact]
    grad = torch.randn(2, 3, 160, 64)

    def results(context: Tensor, inputs: list[Tensor]) -> list[Tensor]:
        return [context, *torch.autograd.grad(context, inputs, grad.to(context.dtype))]

    expected = results(F.scaled_dot_product_attention(*exact), exact)
    blocked = results(blocked_attention(*rounded), rounded)
    plain = results(layers.attention_probabilities(rounded[0], rounded[1]) @ rounded[2], rounded)
    for one, two, true in zip(blocked, plain, expected, strict=True):
        assert one.dtype == torch.bfloat16
        assert relative_error(one.float(), true) < max(1.2 * relative_error(two.float(), true), 0.01)


@pytest.mark.parametrize("kept", [0, 2**20], ids=["not kept", "kept"])
def test_the_compiler_is_told_the_truth_about_it(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "CHUNK_BYTES", CHUNKS["four heads, then two"])
    monkeypatch.setattr(cpu_attention, "KEPT_BYTES", kept)
    query, key, value = heads(torch.float64)
    together = [one.detach().flatten(0, 1).requires_grad_() for one in (query, key, value)]
    torch.library.opcheck(cpu_attention._attend, together)


def test_it_compiles_without_a_break_and_gives_the_same_gradients() -> None:
    inputs = heads(torch.bfloat16)
    compiled = torch.compile(blocked_attention, backend="aot_eager", fullgraph=True)
    results = []
    for attend in (blocked_attention, compiled):
        context = attend(*inputs)
        results.append((context, *torch.autograd.grad(context.float().square().sum(), inputs)))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_scores_are_kept_for_the_backward_pass_only_where_all_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    together = [one.detach().flatten(0, 1) for one in heads(torch.bfloat16)]
    kept = []
    for num_heads in (1, 5, 6):
        monkeypatch.setattr(cpu_attention, "KEPT_BYTES", num_heads * 4 * 7 * 2)  # 2 bytes a score
        kept.append(cpu_attention._attend(*together)[1].numel())
    assert kept == [0, 0, 6 * 4 * 7]


def test_it_is_for_bfloat16_on_a_cpu_and_not_for_exported_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    half = torch.zeros(1, dtype=torch.bfloat16)
    assert blocked_is_faster(half)
    assert not blocked_is_faster(half.float())
    assert not blocked_is_faster(half.to("meta"))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert not blocked_is_faster(half)


@pytest.mark.parametrize(
    ("dtype", "dropout", "expected"),
    [(torch.bfloat16, 0.0, "blocked"), (torch.bfloat16, 0.5, "fused"), (torch.float32, 0.0, "fused")],
)
def test_attention_takes_it_in_bfloat16_without_dropout(
    dtype: torch.dtype, dropout: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def blocked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        taken.append("blocked")
        return query

    def fused(query: Tensor, key: Tensor, value: Tensor, dropout_p: float) -> Tensor:
        taken.append("fused")
        return query

    monkeypatch.setattr(layers, "blocked_attention", blocked)
    monkeypatch.setattr(F, "scaled_dot_product_attention", fused)
    module = VideoMAESelfAttention(
        tiny_config(hidden_size=12, num_attention_heads=3, attention_probs_dropout_prob=dropout)
    ).to(dtype)
    module(torch.randn(2, 9, 12, dtype=dtype))
    assert taken == [expected]
