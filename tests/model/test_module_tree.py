"""The module tree is that of transformers: names, leaf types, state-dict keys, and what forward hooks see."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tiny_models import ALL_CLASSES, TINY, inputs_for, make_model
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import VideoMAEForPreTraining

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")
POOLINGS = [True, False]


def both(cls: type[VideoMAEPreTrainedModel], *, mean_pooling: bool, **settings: Any) -> tuple[nn.Module, nn.Module]:
    """Return our model and transformers' of the same sizes and weights."""
    ours = make_model(cls, use_mean_pooling=mean_pooling, **settings).eval()
    config = transformers.VideoMAEConfig(**{**TINY, "use_mean_pooling": mean_pooling, **settings})
    theirs = getattr(transformers, cls.__name__)(config).eval()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def calls(model: nn.Module, names: list[str], inputs: dict[str, Any]) -> dict[str, list[Any]]:
    """Return, for each module, the shapes of what it returned in each call of a forward pass."""
    seen: dict[str, list[Any]] = defaultdict(list)

    def note(name: str) -> Any:
        return lambda _module, _args, output: seen[name].append(shapes(output))

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in names]
    model(**inputs)
    for handle in handles:
        handle.remove()
    return seen


def shapes(output: Any) -> Any:
    """Return the shape of a tensor, or those inside a tuple or a dictionary, without what is None."""
    if isinstance(output, torch.Tensor):
        return tuple(output.shape)
    if isinstance(output, dict):
        return {name: shapes(value) for name, value in output.items()}
    return [shapes(value) for value in output if value is not None]


@pytest.mark.parametrize("mean_pooling", POOLINGS)
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_every_module_of_transformers_is_there_and_leaves_are_of_the_same_type(
    cls: type[VideoMAEPreTrainedModel], mean_pooling: bool
) -> None:
    ours, theirs = both(cls, mean_pooling=mean_pooling)
    mine, met = dict(ours.named_modules()), 0
    for name, module in theirs.named_modules():
        assert name in mine, name
        if type(module).__module__.startswith("torch.nn"):
            assert type(mine[name]) is type(module), name
            met += 1
    assert met > 20
    assert set(mine) == set(dict(theirs.named_modules()))


@pytest.mark.parametrize("qv_bias", [True, False])
@pytest.mark.parametrize("mean_pooling", POOLINGS)
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_state_dicts_have_the_same_keys_and_shapes(
    cls: type[VideoMAEPreTrainedModel], mean_pooling: bool, qv_bias: bool
) -> None:
    ours, theirs = both(cls, mean_pooling=mean_pooling, qv_bias=qv_bias)
    mine = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert mine == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]


@pytest.mark.parametrize("mean_pooling", POOLINGS)
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_forward_hook_on_each_module_fires_as_often_and_sees_the_same_shapes(
    cls: type[VideoMAEPreTrainedModel], mean_pooling: bool
) -> None:
    ours, theirs = both(cls, mean_pooling=mean_pooling)
    inputs = inputs_for(ours)
    names = [name for name, _ in theirs.named_modules()]
    expected = calls(theirs, names, inputs)
    assert calls(ours, names, inputs) == expected  # all hooks at once
    assert len(expected) > 30
    for name in names:  # each alone: the others must not be what makes it fire
        assert calls(ours, [name], inputs)[name] == expected[name], name


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_outputs_have_the_same_keys_and_values_with_and_without_hooks(cls: type[VideoMAEPreTrainedModel]) -> None:
    ours, theirs = both(cls, mean_pooling=cls is not VideoMAEForPreTraining)
    inputs = inputs_for(ours)
    expected, plain = theirs(**inputs, output_hidden_states=True), ours(**inputs, output_hidden_states=True)
    for module in ours.modules():
        module.register_forward_hook(lambda *_: None)
    listened = ours(**inputs, output_hidden_states=True)
    for actual in (plain, listened):
        assert list(actual.keys()) == list(expected.keys())
        torch.testing.assert_close(actual.to_tuple(), expected.to_tuple(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("place", ["embeddings", "encoder", "encoder.layer.0", "encoder.layer.2.output", "layernorm"])
def test_what_a_hook_returns_takes_the_place_of_the_output(place: str) -> None:
    ours, theirs = both(VideoMAEForPreTraining, mean_pooling=False)
    inputs = inputs_for(ours)
    before = ours(**inputs).logits

    def reversed_channels(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return output.flip(-1)
        output.last_hidden_state = output.last_hidden_state.flip(-1)
        return output

    for model in (ours, theirs):
        model.get_submodule(f"videomae.{place}").register_forward_hook(reversed_channels)
    torch.testing.assert_close(ours(**inputs).logits, theirs(**inputs).logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours(**inputs).logits, before, atol=1e-3)


@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_an_encoder_that_returns_nothing_gives_an_output_without_entries(
    cls: type[VideoMAEPreTrainedModel],
) -> None:
    model = make_model(cls)
    seen: list[Any] = []
    model.videomae.forward = lambda *args, **kwargs: seen.append((args, kwargs))  # type: ignore[assignment]
    output = model(**inputs_for(model))
    assert len(seen) == 1
    assert not output
    assert output.to_tuple() == ()
    assert output.logits is None
