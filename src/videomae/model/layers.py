"""The parts of a transformer stack: attention, MLP, drop path, layer.

Shapes: `B` batch, `N` tokens, `Q` tokens whose output is used (the last Q of N), `D` width, `H` heads, `d` width of
a head. Module, parameter and class names are those of the VideoMAE of transformers. Every module calls its children,
so that forward hooks, wrappers, adapters, quantized and compiled parts do here what they do there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomae.engine.sample_draws import drop_path
from videomae.model.config import ACTIVATIONS, VideoMAEConfig
from videomae.model.cpu_attention import blocked_attention, blocked_is_faster
from videomae.weights.layouts import FUSED, assemble, transformers_names


def activation(name: str) -> nn.Module:
    """Return an activation by its name in `ACTIVATIONS`."""
    class_name, options = ACTIVATIONS[name]
    module: nn.Module = getattr(nn, class_name)(**options)
    return module


class VideoMAESelfAttention(nn.Module):
    """Multi-head self-attention without its output projection; keys have no bias.

    State dicts of transformers 4 (`q_bias`, `v_bias`) and of this package's first versions (`qkv`) load as well.
    """

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = D // config.num_attention_heads
        self.all_head_size = D
        self.dropout_prob = config.attention_probs_dropout_prob
        self.query, self.key, self.value = (nn.Linear(D, D, bias=False) for _ in range(3))
        if config.qv_bias:
            self.query.bias, self.value.bias = (nn.Parameter(torch.zeros(D)) for _ in range(2))
        self.register_load_state_dict_pre_hook(_rename_older_keys)  # type: ignore[no-untyped-call]

    def forward(
        self,
        hidden_states: Tensor,
        *,
        num_queries: int | None = None,
        attentions: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from the last `num_queries` tokens (None: all) to all tokens.

        Args:
            hidden_states: `[B, N, D]`.
            num_queries: Q.
            attentions: Where given, the probabilities are computed and appended to it.

        Returns:
            Contexts `[B, Q, D]` and probabilities `[B, H, Q, N]`, or None.
        """
        queried = hidden_states if num_queries is None else hidden_states[:, -num_queries:]
        query, key, value = (self._split_heads(one) for one in self._project(queried, hidden_states))
        dropout = self.dropout_prob if self.training else 0.0
        probabilities = None
        if attentions is not None:
            probabilities = attention_probabilities(query, key, dropout=dropout)
            attentions.append(probabilities)
            context = probabilities @ value
        elif dropout == 0.0 and blocked_is_faster(query):
            context = blocked_attention(query, key, value)
        else:
            context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return context.transpose(1, 2).flatten(2), probabilities  # [B, H, Q, d] -> [B, Q, D]

    def _project(self, queried: Tensor, hidden_states: Tensor) -> Sequence[Tensor]:
        """Return queries `[B, Q, D]`, keys and values `[B, N, D]`."""
        parts = (self.query, self.key, self.value)
        if queried is not hidden_states or not one_product_is_faster(hidden_states) or not all(map(is_plain, parts)):
            return self.query(queried), self.key(hidden_states), self.value(hidden_states)
        weight = torch.cat(tuple(one.weight for one in parts))
        biases = tuple(weight.new_zeros(len(one.weight)) if one.bias is None else one.bias for one in parts)
        bias = None if all(one.bias is None for one in parts) else torch.cat(biases)
        return F.linear(hidden_states, weight, bias).chunk(3, dim=-1)

    def _split_heads(self, tokens: Tensor) -> Tensor:
        """Return `[B, N, D]` as `[B, H, N, d]`."""
        # The head width is given, not left to `view`, which could not tell it where token counts are symbols.
        return tokens.view(*tokens.shape[:2], self.num_attention_heads, self.attention_head_size).transpose(1, 2)


def one_product_is_faster(hidden_states: Tensor) -> bool:
    """Return whether queries, keys and values are computed as one product: on a GPU, which it fills better."""
    return hidden_states.device.type == "cuda"


def attention_probabilities(query: Tensor, key: Tensor, *, dropout: float = 0.0) -> Tensor:
    """Return `softmax(q k^T / sqrt(d))`, `[B, H, Q, N]`, dropped out as in training."""
    # The query is scaled before the product, as in the original; in bf16 that also keeps the scores small.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    probabilities: Tensor = scores.softmax(dim=-1)
    if dropout > 0.0:
        probabilities = F.dropout(probabilities, dropout)
    return probabilities.to(query.dtype)


class VideoMAESelfOutput(nn.Module):
    """The output projection of attention; the residual is added by the layer."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """Project `[B, Q, D]`; `input_tensor` is upstream's argument and not used."""
        projected: Tensor = self.dropout(self.dense(hidden_states))
        return projected


class VideoMAEAttention(nn.Module):
    """Self-attention and its output projection."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.attention = VideoMAESelfAttention(config)
        self.output = VideoMAESelfOutput(config)

    def forward(self, hidden_states: Tensor, **options: Any) -> Tensor:
        """Attend with the options of `VideoMAESelfAttention` and project the contexts, `[B, Q, D]`."""
        context = first_of(self.attention(hidden_states, **options))
        projected: Tensor = self.output(context, hidden_states)
        return projected


class VideoMAEIntermediate(nn.Module):
    """The first half of the MLP."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = activation(config.hidden_act)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Project `[B, N, D]` to `[B, N, intermediate_size]` and apply the activation."""
        hidden: Tensor = self.intermediate_act_fn(self.dense(hidden_states))
        return hidden


class VideoMAEOutput(nn.Module):
    """The second half of the MLP and the residual connection around both."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_states: Tensor, input_tensor: Tensor, *, branch: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Project `[B, N, intermediate_size]` and add `input_tensor` `[B, N, D]`.

        Args:
            hidden_states: What the intermediate returned.
            input_tensor: The residual stream.
            branch: Layer scale and drop path, applied before the sum where the layer has them.
        """
        projected: Tensor = self.dropout(self.dense(hidden_states))
        return input_tensor + (projected if branch is None else branch(projected))


class DropPath(nn.Module):
    """Drop whole samples of a residual branch in training, scaling the rest to keep the mean: stochastic depth."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Return the branch `[B, N, D]` with some samples set to zero."""
        return drop_path(branch, self.rate) if self.training and self.rate > 0.0 else branch


class VideoMAELayer(nn.Module):
    """One pre-norm transformer layer.

    `x + drop_path(gamma_1 * attention(norm(x)))`, then `x + drop_path(gamma_2 * mlp(norm(x)))`; the gammas exist
    only with layer scale.

    Args:
        config: Sizes of this stack; the decoder's configuration has the decoder's sizes in the encoder's fields.
        drop_path: Stochastic-depth rate of this layer.
    """

    def __init__(self, config: VideoMAEConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        D = config.hidden_size
        self.attention = VideoMAEAttention(config)
        self.intermediate = VideoMAEIntermediate(config)
        self.output = VideoMAEOutput(config)
        self.layernorm_before = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else None
        scaled = config.init_values > 0.0
        self.gamma_1 = nn.Parameter(torch.full((D,), config.init_values)) if scaled else None
        self.gamma_2 = nn.Parameter(torch.full((D,), config.init_values)) if scaled else None

    def forward(self, hidden_states: Tensor, num_queries: int | None = None, **options: Any) -> Tensor:
        """Transform tokens; only the last `num_queries` are computed and returned where it is given.

        Args:
            hidden_states: `[B, N, D]`.
            num_queries: Q; None means all N.
            **options: `attentions`, of `VideoMAESelfAttention`.

        Returns:
            `[B, Q, D]`.
        """
        if num_queries is not None:
            options["num_queries"] = num_queries
        attended = first_of(self.attention(normalized(self.layernorm_before, hidden_states), **options))
        if num_queries is not None:
            hidden_states = hidden_states[:, -num_queries:]
        hidden_states = hidden_states + self._branch(attended, self.gamma_1)
        hidden = self.intermediate(normalized(self.layernorm_after, hidden_states))
        if self.gamma_2 is None and self.drop_path is None:
            return first_of(self.output(hidden, hidden_states))
        return first_of(self.output(hidden, hidden_states, branch=lambda one: self._branch(one, self.gamma_2)))

    def _branch(self, branch: Tensor, gamma: Tensor | None) -> Tensor:
        """Apply layer scale and drop path to a residual branch `[B, Q, D]`."""
        if gamma is not None:
            branch = branch * gamma
        return branch if self.drop_path is None else self.drop_path(branch)


def run_layers(
    layers: nn.ModuleList,
    hidden_states: Tensor,
    *,
    num_queries: int | None = None,
    checkpoint_every: int = 0,
    states: list[Tensor] | None = None,
    attentions: list[Tensor] | None = None,
) -> Tensor:
    """Run layers in order.

    Args:
        layers: `VideoMAELayer`, or modules in their place that take `[B, N, D]` and return it, alone or as the first
            of a tuple.
        hidden_states: `[B, N, D]`.
        num_queries: Q, the tokens at the end whose output is used; None means all. The last layer computes only
            those, unless something listens to it or has replaced it.
        checkpoint_every: Every how many layers, from the first, activations are computed again in the backward pass
            instead of being kept; 0 means nowhere.
        states: Where given, collects the input and the output of each layer.
        attentions: Where given, collects the attention probabilities of each layer.

    Returns:
        `[B, Q, D]`, or `[B, N, D]` without `num_queries`.
    """
    last = len(layers) - 1
    if states is not None:
        states.append(hidden_states)
    for number, layer in enumerate(layers):
        options: dict[str, Any] = {} if attentions is None else {"attentions": attentions}
        if num_queries is not None and number == last and is_untouched(layer, VideoMAELayer):
            options["num_queries"] = num_queries
        if checkpoint_every and number % checkpoint_every == 0 and torch.is_grad_enabled():
            output = checkpoint(layer, hidden_states, use_reentrant=False, **options)
        else:
            output = layer(hidden_states, **options)
        hidden_states = first_of(output)
        if states is not None:
            states.append(hidden_states)
    return hidden_states if num_queries is None else hidden_states[:, -num_queries:]


def normalized(norm: nn.Module, tokens: Tensor) -> Tensor:
    """Normalize tokens in the dtype of the norm's own weights: float32 under autocast, on every device.

    Torch's CPU kernel would sum the gradients of the weights in the tokens' bfloat16, over thousands of tokens.
    """
    weight = getattr(norm, "weight", None)
    return first_of(norm(tokens.to(weight.dtype) if isinstance(weight, Tensor) else tokens))


def first_of(output: Any) -> Tensor:
    """Return what a module computed: its output, or the first entry of it where it returned several."""
    tensor: Tensor = output if isinstance(output, Tensor) else output[0]
    return tensor


def is_untouched(module: nn.Module, cls: type[nn.Module]) -> bool:
    """Return whether a module is of exactly this class and nothing listens to it or to a part of it.

    Only then may a parent compute less than upstream, or compute it otherwise: nobody can see the difference.
    """
    # Hooks on all modules of the process, as of FLOP counters, are to see what is computed: they are not asked for.
    return type(module) is cls and not any(
        one._forward_hooks or one._forward_pre_hooks or one._backward_hooks or one._backward_pre_hooks
        for one in module.modules()
    )


def is_plain(linear: nn.Module) -> bool:
    """Return whether a module is an untouched `nn.Linear` with a plain weight: not quantized, not sharded."""
    return is_untouched(linear, nn.Linear) and type(linear.weight) is nn.Parameter


def _rename_older_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the keys of older state dicts their names of today; `load_state_dict` hands over a copy of the dict."""
    older = {key: tensor for key, tensor in state_dict.items() if key.startswith(prefix)}
    names = transformers_names(older)
    if any(ours != theirs or ours.endswith(FUSED) for theirs, ours in names.items()):
        for key in older:
            del state_dict[key]
        state_dict.update(assemble(older, names))
