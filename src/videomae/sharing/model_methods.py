"""Methods that programs written for transformers call on a model; none of them computes anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


class TransformersMethods(nn.Module):
    """What models of transformers have besides layers, files and counts.

    Attributes:
        model_tags: Tags that programs gave, for their own use.
    """

    framework: ClassVar[str] = "pt"

    model_tags: Sequence[str] = ()
    _gradient_hook: RemovableHandle | None = None

    @property
    def name_or_path(self) -> str:
        """What the model was loaded from; empty where it was not."""
        return str(getattr(self.config, "name_or_path", ""))

    @classmethod
    def _from_config(cls, config: Any, **_: Any) -> Self:
        """Build a model with random weights, as `cls(config)`."""
        return cls(config)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Return the bytes of the parameters, and of the buffers where asked for."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(one.numel() * one.element_size() for one in tensors)

    def enable_input_require_grads(self) -> None:
        """Let the embedded tubelets require gradients, for adapters behind frozen embeddings."""
        if self._gradient_hook is None:
            embeddings: nn.Module = self.get_input_embeddings()  # type: ignore[operator]
            self._gradient_hook = embeddings.register_forward_hook(_require_gradients)

    def disable_input_require_grads(self) -> None:
        """Undo `enable_input_require_grads`."""
        if self._gradient_hook is not None:
            self._gradient_hook.remove()
            self._gradient_hook = None

    def get_output_embeddings(self) -> None:
        """Return None: there are no output embeddings."""

    def tie_weights(self, *_: Any, **__: Any) -> None:
        """Do nothing: no weights are tied."""

    def add_model_tags(self, tags: Sequence[str] | str) -> None:
        """Remember tags in `model_tags`."""
        self.model_tags = (*self.model_tags, *([tags] if isinstance(tags, str) else tags))


def _require_gradients(_module: nn.Module, _args: Any, output: Any) -> None:
    if isinstance(output, torch.Tensor):
        output.requires_grad_(True)
