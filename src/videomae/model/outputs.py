"""What the models return: ordered dictionaries whose entries are attributes too, as transformers' outputs are.

`output.loss`, `output["loss"]`, `output[0]`, `output.get("loss")`, `output.items()` and `output.to_tuple()` all work.
An entry that is None is in none of them but the attribute.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

States = tuple[Tensor, ...]


class ModelOutput(OrderedDict[str, Any]):
    """Base of the outputs: a dataclass whose fields are the entries of the dictionary.

    A mapping, or pairs of names and values, as the only argument makes the output from them: what code that rebuilds
    dictionaries does, such as accelerate and `DataParallel`.
    """

    def __post_init__(self) -> None:
        """Enter the fields that are not None, in order."""
        names = [one.name for one in fields(self)]  # type: ignore[arg-type]
        first = getattr(self, names[0])
        if not isinstance(first, Tensor) and isinstance(first, Mapping | Iterable):
            given = dict(first)
            unknown = [name for name in given if name not in names]
            if unknown:
                raise ValueError(f"{type(self).__name__} has no {unknown[0]!r}: it has {', '.join(names)}")
            super().__setattr__(names[0], None)
            for name, value in given.items():
                super().__setattr__(name, value)
        for name in names:
            if getattr(self, name) is not None:
                super().__setitem__(name, getattr(self, name))

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are not None, in field order."""
        return tuple(self[name] for name in self)

    def __getitem__(self, key: Any) -> Any:
        """Return an entry by name, or by its position among those that are not None; a slice gives a tuple."""
        if isinstance(key, str):
            if key not in self:
                raise KeyError(f"{key!r} is not in this output, which has {', '.join(self)}")
            return super().__getitem__(key)
        return tuple(self.values())[key]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self and value is not None:
            super().__setitem__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), dict(self))

    def __init_subclass__(cls) -> None:
        """Let torch's tools (export, DataParallel, vmap, torch.compile) take the output apart and rebuild it."""
        _pytree.register_pytree_node(
            cls,
            lambda output: (list(output.values()), list(output.keys())),
            lambda values, names: _rebuild(cls, dict(zip(names, values, strict=True))),
            serialized_type_name=f"videomae.{cls.__name__}",  # the name in exported files
        )


def is_traced_strictly(model: nn.Module) -> bool:
    """Return whether `torch.jit.trace(model)` is running, for this very model and without `strict=False`."""
    if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "_trace_impl":  # no public function tells
        frame = frame.f_back
    traced = {} if frame is None else frame.f_locals
    return traced.get("func") is model and bool(traced.get("strict"))


def _rebuild(cls: type[ModelOutput], values: Mapping[str, Any]) -> ModelOutput:
    return cls(**values)


@dataclass
class BaseModelOutput(ModelOutput):
    """Output of `VideoMAEModel` and of its encoder."""

    last_hidden_state: Tensor
    """`[B, V, D]`."""
    hidden_states: States | None = None
    """Embeddings, then the output of each layer, `[B, V, D]` each."""
    attentions: States | None = None
    """Probabilities of each layer, `[B, H, V, V]` each."""


@dataclass
class VideoMAEDecoderOutput(ModelOutput):
    """Output of the decoder."""

    logits: Tensor
    """`[B, M, P]`."""


@dataclass
class VideoMAEForPreTrainingOutput(ModelOutput):
    """Output of `VideoMAEForPreTraining`."""

    loss: Tensor | None = None
    """0-d float32."""
    logits: Tensor | None = None
    """`[B, M, P]`, one prediction for each decoded token."""
    hidden_states: States | None = None
    """Encoder states on the visible tokens."""
    attentions: States | None = None
    """Encoder attentions on the visible tokens."""


@dataclass
class ImageClassifierOutput(ModelOutput):
    """Output of `VideoMAEForVideoClassification`, under transformers' name."""

    loss: Tensor | None = None
    """0-d, only where labels were given."""
    logits: Tensor | None = None
    """`[B, K]`."""
    hidden_states: States | None = None
    """As for the encoder."""
    attentions: States | None = None
    """As for the encoder."""
