import weakref

import pytest
import torch
from torch import Tensor, nn

from videomae.engine.parted import loss_in_parts


def make_parts() -> tuple[nn.Linear, nn.Parameter, Tensor]:
    """Return a layer, a frozen parameter and states of 5 rows."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 4).double()
    return (
        layer,
        nn.Parameter(torch.randn(4).double(), requires_grad=False),
        torch.randn(5, 3).double().requires_grad_(),
    )


def loss_of(layer: nn.Linear, frozen: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    output = layer(states).tanh() * frozen
    return output.square().sum() / 7, output


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_loss_outputs_and_gradients_are_those_of_all_parts_together(rows: int) -> None:
    layer, frozen, states = make_parts()
    wanted = (states, layer.weight, layer.bias)
    expected, outputs = loss_of(layer, frozen, states)
    found, in_parts = loss_in_parts(
        lambda one, part: loss_of(layer, frozen, one), states, [*layer.parameters(), frozen], rows=rows
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(in_parts, outputs)
    torch.testing.assert_close(
        torch.autograd.grad(3 * found, wanted), torch.autograd.grad(3 * expected, wanted), atol=1e-12, rtol=1e-12
    )


def test_each_part_is_told_which_rows_it_has_and_is_gone_when_the_next_one_comes() -> None:
    layer, _, states = make_parts()
    parts: list[slice] = []
    kept: list[weakref.ref[Tensor]] = []

    def watched(one: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        assert [ref() for ref in kept] == [None] * len(kept)
        hidden = layer(one).tanh()  # autograd keeps it
        kept.append(weakref.ref(hidden))
        parts.append(part)
        return hidden.square().sum(), one * 1

    loss_in_parts(watched, states, list(layer.parameters()), rows=2)
    assert parts == [slice(0, 2), slice(2, 4), slice(4, 6)]


def test_the_gradients_become_those_of_the_parameters_without_a_copy() -> None:
    layer, frozen, states = make_parts()
    loss, _ = loss_in_parts(lambda one, part: loss_of(layer, frozen, one), states, list(layer.parameters()), rows=2)
    stashed = loss.grad_fn.gradients[1].data_ptr()
    loss.backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.data_ptr() == stashed


def test_outputs_have_a_gradient_of_zero_alone_even_where_the_loss_is_not_finite() -> None:
    layer, frozen, states = make_parts()

    def without_a_mean(one: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        loss, output = loss_of(layer, frozen, one)
        return loss * float("nan"), output

    _, outputs = loss_in_parts(without_a_mean, states, list(layer.parameters()), rows=2)
    (outputs.sum() * 0.0).backward()
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()
    _, outputs = loss_in_parts(without_a_mean, states, list(layer.parameters()), rows=2)
    with pytest.raises(RuntimeError, match="the outputs of a loss that is computed in parts have no gradient"):
        outputs.sum().backward()
