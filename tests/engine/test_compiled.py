import functools

import pytest
import torch
from torch import Tensor, nn

from videomae.engine import compiled as compilation
from videomae.engine.compiled import MAX_PROGRAMS, compile_each, compiled, uncompiled


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """Note every traced program, and run it as traced: turning it into C++ would take seconds."""
    programs: list[torch.fx.GraphModule] = []

    def backend(program: torch.fx.GraphModule, _inputs: list[Tensor]) -> torch.fx.GraphModule:
        programs.append(program)
        return program

    torch._dynamo.reset()
    compilation.compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    return programs


class Block(nn.Module):
    """A module of which several are compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Project and add."""
        return x + self.dense(x).relu()


def blocks(number: int) -> nn.ModuleList:
    """Return blocks of the same shape."""
    return nn.ModuleList(Block() for _ in range(number))


def test_blocks_of_one_shape_share_one_program_and_keep_names_and_weights(
    traced: list[torch.fx.GraphModule],
) -> None:
    model, x = blocks(3), torch.randn(2, 4, requires_grad=True)
    names, expected = list(model.state_dict()), model[2](model[1](model[0](x)))
    assert compile_each(model) == 3
    assert torch.equal(model[2](model[1](model[0](x))), expected)
    assert len(traced) == 1
    assert list(model.state_dict()) == names


def test_another_shape_is_another_program_and_not_one_of_unknown_sizes(traced: list[torch.fx.GraphModule]) -> None:
    (block,) = model = blocks(1)
    compile_each(model)
    for batch in range(2, 14):  # more than torch's own limit, from which on it would compile nothing
        block(torch.randn(batch, 4))
    assert len(traced) == 12
    assert MAX_PROGRAMS > 12


def test_a_function_is_compiled_once(traced: list[torch.fx.GraphModule]) -> None:
    def double(x: Tensor) -> Tensor:
        return x + x

    assert compiled(double) is compiled(double)
    assert torch.equal(compiled(double)(torch.ones(3)), torch.full((3,), 2.0))
    assert len(traced) == 1


def test_what_is_done_once_is_not_compiled(traced: list[torch.fx.GraphModule]) -> None:
    (block,) = model = blocks(1)
    compile_each(model)
    with uncompiled():
        block(torch.randn(2, 4))
    assert traced == []
    block(torch.randn(2, 4))
    assert len(traced) == 1
