"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from videomae.engine.average import WeightAverage


def trained(decay: float, steps: int) -> tuple[nn.Linear, WeightAverage, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    average, history = WeightAverage(model, decay), [model.weight.detach().clone()]
    for _ in range(steps):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        average.update()
        history.append(model.weight.detach().clone())
    return model, average, history


def test_the_average_weighs_the_past_by_powers_of_the_decay_and_leaves_frozen_weights_out() -> None:
    _, average, history = trained(0.8, 5)
    expected = history[0] * 0.8**5 + sum(0.2 * 0.8 ** (5 - step) * history[step] for step in range(1, 6))
    assert list(average.values) == ["weight"]
    torch.testing.assert_close(average.values["weight"], expected)


def test_the_average_becomes_the_model_when_it_is_installed_and_a_saved_one_goes_on_alike() -> None:
    model, average, _ = trained(0.5, 2)
    saved = {name: one.clone() for name, one in average.values.items()}
    other = WeightAverage(model, 0.5)
    other.load(saved)
    for one in (average, other):
        one.update()
    assert torch.equal(average.values["weight"], other.values["weight"])
    average.install()
    assert torch.equal(model.weight, average.values["weight"])
    with pytest.raises(KeyError):
        other.load({})


def test_the_models_own_weights_are_back_after_the_average_was_in_their_place() -> None:
    model, average, history = trained(0.5, 3)

    def stopped() -> None:
        with average.installed():
            assert torch.equal(model.weight, average.values["weight"])
            raise RuntimeError("a stop")

    with pytest.raises(RuntimeError, match="a stop"):
        stopped()
    assert torch.equal(model.weight, history[-1])
