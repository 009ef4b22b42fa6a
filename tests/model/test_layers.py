"""Attention, drop path, layer scale, blocks: each against its formula."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tiny_models import gradients, make_model, random_video, randomize, relative_error, tiny_config
from tolerances import assert_near, model_terms
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import ACTIVATIONS
from videomae.model.encoder import VideoMAEModel, drop_path_rates
from videomae.model.layers import (
    DropPath,
    VideoMAELayer,
    VideoMAESelfAttention,
    activation,
    attention_probabilities,
    run_layers,
)

SIZES = {"hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20}


def make_attention(*, qv_bias: bool = True, dropout: float = 0.0) -> VideoMAESelfAttention:
    """Return attention of width 12 with three heads and random parameters."""
    return randomize(
        VideoMAESelfAttention(tiny_config(**SIZES, qv_bias=qv_bias, attention_probs_dropout_prob=dropout))
    )


def make_layer(drop_path: float = 0.0, **settings: Any) -> VideoMAELayer:
    """Return a layer of width 12 with random parameters, but layer-scale gains as made."""
    layer = VideoMAELayer(tiny_config(**SIZES, **settings), drop_path)
    gains = {name: one.detach().clone() for name, one in layer.named_parameters() if "gamma" in name}
    randomize(layer)
    layer.load_state_dict(gains, strict=False)
    return layer


@contextmanager
def count_products() -> Iterator[list[Any]]:
    """Collect the calls of `F.linear`."""
    found: list[Any] = []

    class Count(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is F.linear:
                found.append(args)
            return func(*args, **(kwargs or {}))

    with Count():
        yield found


def written_out(module: VideoMAESelfAttention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return contexts and probabilities of attention, head by head."""
    width, heads = tokens.shape[-1], module.num_attention_heads
    query = F.linear(tokens, module.query.weight, module.query.bias)
    key = F.linear(tokens, module.key.weight)
    value = F.linear(tokens, module.value.weight, module.value.bias)
    size = width // heads
    contexts, probabilities = [], []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(size)
        probabilities.append(scores.softmax(-1))
        contexts.append(probabilities[-1] @ value[..., part])
    return torch.cat(contexts, dim=-1), torch.stack(probabilities, dim=1)


@pytest.mark.parametrize("num_queries", [None, 1, 4, 9])
@pytest.mark.parametrize("qv_bias", [True, False])
def test_attention_equals_its_formula_head_by_head(qv_bias: bool, num_queries: int | None) -> None:
    module = make_attention(qv_bias=qv_bias)
    tokens = torch.randn(2, 9, 12)
    contexts, probabilities = written_out(module, tokens)
    rows = slice(None) if num_queries is None else slice(9 - num_queries, None)
    collected: list[Tensor] = []
    actual, returned = module(tokens, num_queries=num_queries, attentions=collected)
    assert collected[0] is returned
    terms = model_terms(module, tokens=9)
    assert_near(actual, contexts[:, rows], terms=terms)
    assert_near(returned, probabilities[:, :, rows], terms=terms)
    plain, none = module(tokens, num_queries=num_queries)
    assert none is None
    assert_near(plain, actual, terms=terms)


def test_asking_for_probabilities_changes_neither_output_nor_gradients() -> None:
    module, results = make_attention(), []
    tokens = torch.randn(2, 9, 12)
    for need in (False, True):
        source = tokens.clone().requires_grad_()
        context, _ = module(source, attentions=[] if need else None)
        module.zero_grad()
        context.square().sum().backward()
        results.append((context, source.grad, *gradients(module).values()))
    for one, two in zip(*results, strict=True):
        assert relative_error(two, one) < 1e-5


@pytest.mark.parametrize("num_queries", [None, 4])
def test_attention_in_bfloat16_is_near_its_formula_and_its_gradients_too(num_queries: int | None) -> None:
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        module = make_attention().to(dtype)
        source = torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
        exact = dtype == torch.float32
        context = written_out(module, source)[0] if exact else module(source, num_queries=num_queries)[0]
        context = context[:, -(num_queries or 40) :]
        context.float().square().sum().backward()
        results.append((context, source.grad, *gradients(module).values()))
    for one, two in zip(*results, strict=True):
        assert relative_error(two.float(), one) < 0.03


@pytest.mark.parametrize("qv_bias", [True, False])
def test_projections_computed_as_one_product_change_neither_output_nor_gradients(
    qv_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, terms = torch.randn(2, 9, 12), {}
    for fused in (False, True):
        monkeypatch.setattr("videomae.model.layers.one_product_is_faster", lambda _, fused=fused: fused)
        module = make_attention(qv_bias=qv_bias)
        with count_products() as products:
            context, _ = module(tokens)
        assert len(products) == (1 if fused else 3)
        context.square().sum().backward()
        terms[fused] = {"context": context.detach(), **gradients(module)}
    assert terms[True].keys() == terms[False].keys()
    for name, expected in terms[False].items():
        assert_near(terms[True][name], expected, terms=12 * 18)


@pytest.mark.parametrize("what", ["listened to", "replaced", "quantized", "fewer queries"])
def test_projections_that_anything_has_touched_are_called_one_by_one(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quantized(nn.Parameter):
        """A weight that is no plain parameter, as quantizers and sharding make them."""

    monkeypatch.setattr("videomae.model.layers.one_product_is_faster", lambda _: True)
    module, tokens = make_attention(), torch.randn(2, 9, 12)
    expected, _ = written_out(module, tokens)
    match what:
        case "listened to":
            module.key.register_forward_hook(lambda *_: None)
        case "replaced":
            module.value = nn.Sequential(module.value)
        case "quantized":
            module.query.weight = Quantized(module.query.weight.detach())
    with count_products() as products:
        context, _ = module(tokens, num_queries=4 if what == "fewer queries" else None)
    assert len(products) == 3
    assert_near(context, expected[:, -context.shape[1] :], terms=12 * 18)


def test_queries_keys_and_values_are_plain_linear_layers_and_keys_have_no_bias() -> None:
    module = make_attention()
    assert {type(one) for one in (module.query, module.key, module.value)} == {nn.Linear}
    assert module.key.bias is None
    assert {name for name, _ in module.named_parameters()} == {
        "query.weight", "query.bias", "key.weight", "value.weight", "value.bias",
    }  # fmt: skip


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_a_wrapper_around_a_projection_is_called_and_changes_no_output(part: str) -> None:
    class Wrapper(nn.Module):
        """What an adapter library puts in the place of a linear layer."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.calls = inner, 0

        def forward(self, tokens: Tensor) -> Tensor:
            self.calls += 1
            return self.inner(tokens)

    module = make_attention()
    tokens = torch.randn(2, 9, 12)
    expected = [module(tokens, num_queries=num_queries)[0] for num_queries in (None, 4)]
    setattr(module, part, Wrapper(getattr(module, part)))
    for num_queries, wanted in zip((None, 4), expected, strict=True):
        assert torch.equal(module(tokens, num_queries=num_queries)[0], wanted)
    assert getattr(module, part).calls == 2


OLDER = {
    "transformers 4": {"query.bias": "q_bias", "value.bias": "v_bias"},
    "this package's first versions": {"query.bias": "qkv.q_bias", "value.bias": "qkv.v_bias"},
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("names", OLDER.values(), ids=OLDER)
def test_a_state_dict_of_older_names_loads_whole(names: dict[str, str], strict: bool) -> None:
    source, module = make_attention(), VideoMAESelfAttention(tiny_config(**SIZES))
    state = {names.get(name, name): tensor for name, tensor in source.state_dict().items()}
    if "qkv.q_bias" in state:
        state["qkv.weight"] = torch.cat([state.pop(f"{part}.weight") for part in ("query", "key", "value")])
    keys = list(state)
    # Under the name that attention has in a model: the hook sees a prefix.
    whole, layer = nn.ModuleDict({"attention": nn.ModuleDict({"attention": module})}), "attention.attention."
    result = whole.load_state_dict({layer + key: tensor for key, tensor in state.items()}, strict=strict)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    assert list(state) == keys
    for name, tensor in source.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor), name


def test_an_older_state_dict_that_lacks_a_tensor_or_has_another_is_not_loaded_in_silence() -> None:
    module = make_attention()
    whole, layer = nn.ModuleDict({"attention": nn.ModuleDict({"attention": module})}), "attention.attention."
    result = whole.load_state_dict({layer + "qkv.weight": torch.zeros(36, 12)}, strict=False)
    assert sorted(result.missing_keys) == [layer + "query.bias", layer + "value.bias"]
    assert module.key.weight.abs().max() == 0
    result = whole.load_state_dict({layer + "qkv.bias": torch.zeros(36)}, strict=False)
    assert result.unexpected_keys == [layer + "qkv.bias"]


def test_attention_dropout_works_in_training_alone_and_keeps_the_mean() -> None:
    module = make_attention(dropout=0.5)
    tokens = torch.randn(1, 9, 12)
    expected = make_attention()(tokens)[0]
    for need in (False, True):
        module.train()
        first, second = (module(tokens, attentions=[] if need else None)[0] for _ in range(2))
        assert not torch.equal(first, second)
        with torch.no_grad():
            mean = torch.stack([module(tokens, attentions=[] if need else None)[0] for _ in range(2000)]).mean(0)
        assert relative_error(mean, expected) < 0.1
        module.eval()
        assert_near(module(tokens, attentions=[] if need else None)[0], expected, terms=model_terms(module, tokens=9))


def test_dropped_out_probabilities_are_zero_or_scaled_up() -> None:
    query, key = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 6, 8)
    plain = attention_probabilities(query, key)
    dropped = attention_probabilities(query, key, dropout=0.5)
    assert torch.equal(dropped == 0, dropped != 2 * plain)
    assert 0 < (dropped == 0).sum() < dropped.numel()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drop_path_drops_whole_samples_and_keeps_the_mean(rate: float) -> None:
    branch = torch.ones(20_000, 2, 3)
    dropped = DropPath(rate)(branch)
    rows = dropped.flatten(1)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert torch.equal(rows.unique(), torch.tensor([0.0, 1 / (1 - rate)]))
    margin = 5 * math.sqrt(rate / (1 - rate) / 20_000)  # five standard deviations of the mean
    assert dropped.mean().item() == pytest.approx(1.0, abs=margin)


def test_drop_path_is_the_identity_in_evaluation_and_at_rate_zero() -> None:
    branch = torch.randn(5, 2, 3)
    assert DropPath(0.0)(branch) is branch
    assert DropPath(0.9).eval()(branch) is branch


def test_drop_path_keeps_the_dtype() -> None:
    assert DropPath(0.5)(torch.ones(4, 1, 1, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("rate", "depth"), [(0.2, 12), (0.1, 3), (0.3, 1), (0.0, 4)], ids=["base", "three", "one block", "off"]
)
def test_drop_path_rates_rise_linearly_from_zero(rate: float, depth: int) -> None:
    rates = drop_path_rates(rate, depth)
    assert rates == pytest.approx(torch.linspace(0, rate, depth, dtype=torch.float64).tolist())


def test_every_block_gets_its_own_drop_path_rate() -> None:
    model = VideoMAEModel(tiny_config(drop_path_rate=0.4))
    rates = [0.0 if layer.drop_path is None else layer.drop_path.rate for layer in model.encoder.layer]
    assert rates == pytest.approx([0.0, 0.2, 0.4])


def test_drop_path_of_a_block_spares_the_residual() -> None:
    block = make_layer(drop_path=1 - 1e-9)
    tokens = torch.randn(3, 9, 12)
    assert torch.equal(block(tokens), tokens)


def test_a_block_equals_its_formula() -> None:
    block = make_layer(init_values=0.1)
    with torch.no_grad():
        block.gamma_1.copy_(torch.linspace(0.1, 1, 12))
        block.gamma_2.copy_(torch.linspace(-1, 1, 12))
    tokens = torch.randn(2, 9, 12)
    attended = block.attention(block.layernorm_before(tokens))
    middle = tokens + torch.linspace(0.1, 1, 12) * attended
    inner = F.gelu(block.intermediate.dense(block.layernorm_after(middle)))
    expected = middle + torch.linspace(-1, 1, 12) * block.output.dense(inner)
    assert_near(block(tokens), expected, terms=model_terms(block, tokens=9))


def test_layer_scale_exists_where_asked_and_starts_at_its_value() -> None:
    plain, scaled = make_layer(), make_layer(init_values=1e-3)
    assert plain.gamma_1 is None
    assert plain.gamma_2 is None
    for gain in (scaled.gamma_1, scaled.gamma_2):
        assert torch.equal(gain, torch.full((12,), 1e-3))
    tokens = torch.randn(2, 9, 12)
    assert 0 < (scaled(tokens) - tokens).abs().max() < 0.05 < (plain(tokens) - tokens).abs().max()


@pytest.mark.parametrize("num_queries", [1, 5, 9])
def test_the_pruned_block_equals_the_last_rows_of_the_whole(num_queries: int) -> None:
    block = make_layer(init_values=0.5)
    tokens = torch.randn(2, 9, 12)
    probabilities: list[Tensor] = []
    some: list[Tensor] = []
    whole, pruned = block(tokens, attentions=probabilities), block(tokens, num_queries, attentions=some)
    terms = model_terms(block, tokens=9)
    assert_near(pruned, whole[:, -num_queries:], terms=terms)
    assert_near(some[0], probabilities[0][:, :, -num_queries:], terms=terms)


@pytest.mark.parametrize("every", [0, 1])
def test_a_stack_computes_all_tokens_but_in_its_last_layer(every: int) -> None:
    layers = nn.ModuleList(randomize(make_layer(), seed=seed) for seed in range(3))
    tokens = torch.randn(2, 9, 12)
    states: list[Tensor] = []
    attentions: list[Tensor] = []
    pruned = run_layers(layers, tokens, num_queries=4, checkpoint_every=every, states=states, attentions=attentions)
    assert_near(pruned, run_layers(layers, tokens)[:, -4:], terms=model_terms(layers, tokens=9))
    assert [state.shape[1] for state in states] == [9, 9, 9, 4]
    assert [one.shape[2] for one in attentions] == [9, 9, 4]


@pytest.mark.parametrize("place", ["", "attention.attention.query", "output"])
def test_a_last_layer_that_is_listened_to_computes_all_tokens(place: str) -> None:
    layers = nn.ModuleList(randomize(make_layer(), seed=seed) for seed in range(3))
    tokens, seen = torch.randn(2, 9, 12), []
    expected = run_layers(layers, tokens, num_queries=4)
    handle = layers[-1].get_submodule(place).register_forward_hook(lambda *call: seen.append(call[2].shape))
    assert_near(run_layers(layers, tokens, num_queries=4), expected, terms=model_terms(layers, tokens=9))
    assert seen == [(2, 9, 12)]
    handle.remove()


def test_layers_may_be_replaced_by_modules_that_return_tuples() -> None:
    class Wrapped(nn.Module):
        """What a quantizer or an adapter puts in the place of a layer."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
            return self.inner(hidden_states), None

    layers = nn.ModuleList(randomize(make_layer(), seed=seed) for seed in range(3))
    tokens = torch.randn(2, 9, 12)
    expected = run_layers(layers, tokens, num_queries=4)
    for number in range(3):
        layers[number] = Wrapped(layers[number])
    assert_near(run_layers(layers, tokens, num_queries=4), expected, terms=model_terms(layers, tokens=9))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name: str) -> None:
    from transformers.activations import ACT2FN

    values = torch.linspace(-4, 4, 101)
    torch.testing.assert_close(activation(name)(values), ACT2FN[name](values), atol=1e-6, rtol=1e-6)


def test_dropouts_and_drop_path_are_still_in_evaluation() -> None:
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3, "drop_path_rate": 0.3}
    model = make_model(VideoMAEForVideoClassification, **rates, classifier_dropout=0.3)
    plain = make_model(VideoMAEForVideoClassification)
    video = random_video(model.config)
    assert not torch.equal(model(video).logits, model(video).logits)
    model.eval()
    assert torch.equal(model(video).logits, model(video).logits)
    assert_near(model(video).logits, plain(video).logits, terms=model_terms(model, tokens=32))


@pytest.mark.parametrize(
    "rate", ["hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "classifier_dropout"]
)
def test_each_dropout_alone_works_in_training(rate: str) -> None:
    model = make_model(VideoMAEForVideoClassification, **{rate: 0.5})
    video = random_video(model.config)
    assert not torch.equal(model(video).logits, model(video).logits)
