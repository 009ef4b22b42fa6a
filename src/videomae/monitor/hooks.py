"""What passes through parts of a model, looked at from outside, so that no model needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def outputs_of(module: nn.Module, kept: list[Tensor]) -> Iterator[None]:
    """Add the first tensor that the first call of a module returns."""
    count = len(kept)

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if len(kept) == count:
            kept.append(output if isinstance(output, Tensor) else output[0])

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def inputs_of(module: nn.Module, kept: list[Tensor]) -> Iterator[None]:
    """Collect the first argument that a module is called with."""

    def keep(_: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], Tensor):
            kept.append(given[0])

    handle = module.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def norm_spreads(model: nn.Module, spreads: dict[str, float]) -> Iterator[None]:
    """Measure how much the outputs of every LayerNorm vary over their channels."""
    found: dict[str, Tensor] = {}

    def watcher(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def watch(_: nn.Module, __: Any, output: Tensor) -> None:
            found[name] = output.float().std(dim=-1).mean()

        return watch

    handles = [
        module.register_forward_hook(watcher(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        spreads.update({name: float(value) for name, value in found.items()})
