"""The parts of a transformer stack: attention, MLP, drop path, block.

Shapes: `B` batch, `N` tokens, `Q` tokens whose output is used (the last Q of N), `D` width, `H` heads, `d` width of
a head. Parameter names follow transformers' module tree, except
that queries, keys and values are one matrix `qkv` with the published files' `q_bias` and `v_bias` beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomae.model.config import ACTIVATIONS
from videomae.model.cpu_attention import blocked_attention, blocked_is_faster


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """Return an activation by its name in `ACTIVATIONS`."""
    function, options = ACTIVATIONS[name]
    found: Callable[[Tensor], Tensor] = getattr(F, function)
    return partial(found, **options) if options else found


class QueryKeyValue(nn.Linear):
    """One projection to queries, keys and values; biases on queries and values, none on keys.

    A plain `nn.Linear` to the outside (adapters may wrap it), with the bias in two learnable halves.
    """

    def __init__(self, hidden_size: int, *, qv_bias: bool) -> None:
        super().__init__(hidden_size, 3 * hidden_size, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(hidden_size)) if qv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(hidden_size)) if qv_bias else None

    def bias_vector(self) -> Tensor | None:
        """Return the bias of the whole projection, `[3 * D]`, zero for the keys."""
        if self.q_bias is None or self.v_bias is None:
            return None
        return torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))

    def forward(self, tokens: Tensor) -> Tensor:
        """Project `[B, N, D]` to `[B, N, 3 * D]`."""
        return F.linear(tokens, self.weight, self.bias_vector())

    def project_split(self, tokens: Tensor, num_queries: int) -> tuple[Tensor, Tensor]:
        """Project the last `num_queries` tokens to queries `[B, Q, D]` and all to keys and values `[B, N, 2 * D]`."""
        D = self.in_features
        bias = self.bias_vector()
        query_bias, key_value_bias = (None, None) if bias is None else (bias[:D], bias[D:])
        queries = F.linear(tokens[:, -num_queries:], self.weight[:D], query_bias)
        return queries, F.linear(tokens, self.weight[D:], key_value_bias)


class FusedSelfAttention(nn.Module):
    """Multi-head self-attention without its output projection.

    Args:
        hidden_size: D.
        num_heads: H.
        qv_bias: Whether queries and values have a bias.
        dropout: Dropout on the attention probabilities, in training only.
    """

    def __init__(self, hidden_size: int, num_heads: int, *, qv_bias: bool, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = QueryKeyValue(hidden_size, qv_bias=qv_bias)

    def forward(
        self, tokens: Tensor, num_queries: int | None = None, need_probabilities: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from the last `num_queries` tokens (None: all) to all tokens.

        Args:
            tokens: `[B, N, D]`.
            num_queries: Q.
            need_probabilities: Compute and return the probabilities.

        Returns:
            Contexts `[B, Q, D]` and probabilities `[B, H, Q, N]`, or None.
        """
        query, key, value = self._project(tokens, num_queries)
        dropout = self.dropout if self.training else 0.0
        probabilities = None
        if need_probabilities:
            probabilities = attention_probabilities(query, key, dropout=dropout)
            context = probabilities @ value
        elif dropout == 0.0 and blocked_is_faster(query):
            context = blocked_attention(query, key, value)
        else:
            context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return context.transpose(1, 2).flatten(2), probabilities  # [B, H, Q, d] -> [B, Q, D]

    def _project(self, tokens: Tensor, num_queries: int | None) -> tuple[Tensor, Tensor, Tensor]:
        B, N, D = tokens.shape
        d = D // self.num_heads  # not left to `view`, which could not tell it where the token counts are symbols
        if num_queries is None or num_queries == N or not isinstance(self.qkv, QueryKeyValue):
            fused = self.qkv(tokens).view(B, N, 3, self.num_heads, d)  # [B, N, 3, H, d]
            query, key, value = fused.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, N, d]
            return (query if num_queries is None else query[:, :, -num_queries:]), key, value
        queries, keys_values = self.qkv.project_split(tokens, num_queries)
        query = queries.view(B, num_queries, self.num_heads, d).transpose(1, 2)  # [B, H, Q, d]
        key, value = keys_values.view(B, N, 2, self.num_heads, d).permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value


def attention_probabilities(query: Tensor, key: Tensor, *, dropout: float = 0.0) -> Tensor:
    """Return `softmax(q k^T / sqrt(d))`, `[B, H, Q, N]`, dropped out as in training."""
    # The query is scaled before the product, as in the original; in bf16 that also keeps the scores small.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    probabilities: Tensor = scores.softmax(dim=-1)
    if dropout > 0.0:
        probabilities = F.dropout(probabilities, dropout)
    return probabilities.to(query.dtype)


class Dense(nn.Module):
    """A linear layer under the name `dense`, followed by dropout."""

    def __init__(self, in_features: int, out_features: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)
        self.dropout = dropout

    def forward(self, tokens: Tensor) -> Tensor:
        """Project `[B, N, in_features]` to `[B, N, out_features]`."""
        projected: Tensor = self.dense(tokens)
        return F.dropout(projected, self.dropout, self.training) if self.dropout else projected


class Attention(nn.Module):
    """Self-attention and its output projection."""

    def __init__(
        self, hidden_size: int, num_heads: int, *, qv_bias: bool, dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.attention = FusedSelfAttention(hidden_size, num_heads, qv_bias=qv_bias, dropout=attention_dropout)
        self.output = Dense(hidden_size, hidden_size, dropout=dropout)

    def forward(
        self, tokens: Tensor, num_queries: int | None = None, need_probabilities: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as `FusedSelfAttention` does and project the contexts, `[B, Q, D]`."""
        context, probabilities = self.attention(tokens, num_queries, need_probabilities)
        projected: Tensor = self.output(context)
        return projected, probabilities


class DropPath(nn.Module):
    """Drop whole samples of a residual branch in training, scaling the rest to keep the mean.

    Source: Huang et al. 2016, stochastic depth, drawn per sample.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Return the branch `[B, N, D]` with some samples set to zero."""
        if self.rate == 0.0 or not self.training:
            return branch
        keep = 1.0 - self.rate
        kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) < keep
        return branch * (kept.to(branch.dtype) / keep)


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks of a stack share."""

    qv_bias: bool
    """Biases on queries and values."""
    dropout: float
    """Dropout after each output projection."""
    attention_dropout: float
    """Dropout on attention probabilities."""
    activation: str
    """A key of `ACTIVATIONS`."""
    norm_eps: float
    """Epsilon of the LayerNorms."""
    init_values: float
    """First value of the layer-scale gains; 0: none."""


class Block(nn.Module):
    """One pre-norm transformer block.

    `x + drop_path(gamma_1 * attention(norm(x)))`, then `x + drop_path(gamma_2 * mlp(norm(x)))`; the gammas exist
    only with layer scale.

    Args:
        hidden_size: D.
        num_heads: H.
        intermediate_size: Width of the MLP.
        settings: The rest, the same for every block of a stack.
        drop_path: Stochastic-depth rate of this block.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        *,
        settings: BlockSettings,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(
            hidden_size,
            num_heads,
            qv_bias=settings.qv_bias,
            dropout=settings.dropout,
            attention_dropout=settings.attention_dropout,
        )
        self.intermediate = Dense(hidden_size, intermediate_size)
        self.output = Dense(intermediate_size, hidden_size, dropout=settings.dropout)
        self.layernorm_before = nn.LayerNorm(hidden_size, eps=settings.norm_eps)
        self.layernorm_after = nn.LayerNorm(hidden_size, eps=settings.norm_eps)
        self.activation = activation_function(settings.activation)
        self.drop_path = DropPath(drop_path)
        scaled = settings.init_values > 0.0
        self.gamma_1 = nn.Parameter(torch.full((hidden_size,), settings.init_values)) if scaled else None
        self.gamma_2 = nn.Parameter(torch.full((hidden_size,), settings.init_values)) if scaled else None

    def forward(
        self, tokens: Tensor, num_queries: int | None = None, need_probabilities: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Transform tokens; only the last `num_queries` are computed and returned where it is given.

        Args:
            tokens: `[B, N, D]`.
            num_queries: Q; None means all N.
            need_probabilities: Also return the attention probabilities.

        Returns:
            `[B, Q, D]` and `[B, H, Q, N]` or None.
        """
        attended, probabilities = self.attention(self.layernorm_before(tokens), num_queries, need_probabilities)
        if num_queries is not None:
            tokens = tokens[:, -num_queries:]
        if self.gamma_1 is not None:
            attended = attended * self.gamma_1
        tokens = tokens + self.drop_path(attended)
        hidden = self.output(self.activation(self.intermediate(self.layernorm_after(tokens))))
        if self.gamma_2 is not None:
            hidden = hidden * self.gamma_2
        return tokens + self.drop_path(hidden), probabilities


def run_blocks(
    blocks: nn.ModuleList,
    tokens: Tensor,
    *,
    num_queries: int | None = None,
    checkpoint_every: int = 0,
    trace: Trace | None = None,
) -> Tensor:
    """Run blocks in order.

    Args:
        blocks: Of type `Block`.
        tokens: `[B, N, D]`.
        num_queries: Q: the last block computes the last Q tokens only; None means all.
        checkpoint_every: Activation checkpointing of every so many blocks, from the first; 0 means of none.
        trace: Collects hidden states and attentions where given.

    Returns:
        `[B, Q, D]`, or `[B, N, D]` without `num_queries`.
    """
    need_probabilities = trace is not None and trace.attentions is not None
    last = len(blocks) - 1
    for number, block in enumerate(blocks):
        if trace is not None:
            trace.add_state(tokens)
        queries = num_queries if number == last else None
        if checkpoint_every and number % checkpoint_every == 0 and torch.is_grad_enabled():
            tokens, probabilities = checkpoint(block, tokens, queries, need_probabilities, use_reentrant=False)
        else:
            tokens, probabilities = block(tokens, queries, need_probabilities)
        if trace is not None:
            trace.add_attention(probabilities)
    if trace is not None:
        trace.add_state(tokens)
    return tokens


class Trace:
    """Collects hidden states (embeddings first, then each block) and attentions of one forward pass."""

    def __init__(self, *, states: bool, attentions: bool) -> None:
        self.states: list[Tensor] | None = [] if states else None
        self.attentions: list[Tensor] | None = [] if attentions else None

    def add_state(self, tokens: Tensor) -> None:
        """Keep one hidden state `[B, N, D]`."""
        if self.states is not None:
            self.states.append(tokens)

    def add_attention(self, probabilities: Tensor | None) -> None:
        """Keep the probabilities `[B, H, N, N]` of one block."""
        if self.attentions is not None and probabilities is not None:
            self.attentions.append(probabilities)
