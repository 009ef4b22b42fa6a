"""What the models return: small dataclasses that can also be read as tuples or dictionaries.

`output.loss`, `output["loss"]`, `output[0]` and `output.to_tuple()` all work, as with transformers' outputs; fields
that are None are left out of the tuple and of the keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor
from torch.export import register_dataclass

States = tuple[Tensor, ...]


class _Readable:
    """Tuple and dictionary access for a dataclass."""

    def keys(self) -> tuple[str, ...]:
        """Return the names of the fields that are not None."""
        return tuple(one.name for one in fields(self) if getattr(self, one.name) is not None)  # type: ignore[arg-type]

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are not None, in field order."""
        return tuple(getattr(self, name) for name in self.keys())

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(f"{key!r} is not in this output, which has {', '.join(self.keys())}")
            return getattr(self, key)
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()


@dataclass(kw_only=True)
class EncoderOutput(_Readable):
    """Output of `VideoMAEModel`."""

    last_hidden_state: Tensor
    """`[B, V, D]`."""
    hidden_states: States | None = None
    """Embeddings, then the output of each block, `[B, V, D]` each."""
    attentions: States | None = None
    """Probabilities of each block, `[B, H, V, V]` each."""


@dataclass(kw_only=True)
class VideoMAEForPreTrainingOutput(_Readable):
    """Output of `VideoMAEForPreTraining`."""

    loss: Tensor
    """0-d float32."""
    logits: Tensor
    """`[B, M, P]`, one prediction for each decoded token."""
    hidden_states: States | None = None
    """Encoder states on the visible tokens."""
    attentions: States | None = None
    """Encoder attentions on the visible tokens."""


@dataclass(kw_only=True)
class ImageClassifierOutput(_Readable):
    """Output of `VideoMAEForVideoClassification`, under transformers' name."""

    loss: Tensor | None = None
    """0-d, only where labels were given."""
    logits: Tensor
    """`[B, K]`."""
    hidden_states: States | None = None
    """As for the encoder."""
    attentions: States | None = None
    """As for the encoder."""


for _output in (EncoderOutput, VideoMAEForPreTrainingOutput, ImageClassifierOutput):
    register_dataclass(_output, serialized_type_name=f"videomae.{_output.__name__}")  # the name in exported files
