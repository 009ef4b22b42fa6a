"""Methods that programs written for transformers, or transformers itself, call on a model; none computes anything."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from videomae.weights.json_files import write_json
from videomae.weights.sources import CONFIG_FILE


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

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """Return the tensors by name, as torch does.

        transformers' Trainer writes only these of models that are not its own. Where it is the Trainer that asks, in
        order to write them, the configuration is written beside, as it is for models of transformers.
        """
        caller = sys._getframe(1)
        if caller.f_code.co_name == "_save" and caller.f_globals.get("__name__") == "transformers.trainer":
            self.save_configuration(caller.f_locals["output_dir"])
        return super().state_dict(*args, **options)

    def save_configuration(self, folder: str | Path) -> None:
        """Write `config.json` into a folder, which is made if it is missing."""
        values = {**self.config.to_dict(), "architectures": [type(self).__name__]}  # type: ignore[operator, union-attr]
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / CONFIG_FILE, values)

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

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return the number of parameter values; there are no word embeddings that could be excluded."""
        return sum(one.numel() for one in self.parameters() if one.requires_grad or not only_trainable)

    def can_generate(self) -> bool:
        """Return False: these models write no text."""
        return False

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """Do as `activation_checkpointing_enable`, whose older name this is."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)  # type: ignore[operator]

    def gradient_checkpointing_disable(self) -> None:
        """Do as `activation_checkpointing_disable`, whose older name this is."""
        self.activation_checkpointing_disable()  # type: ignore[operator]

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Accept "sdpa" or "eager", which compute the same here.

        Raises:
            ValueError: If it is another one.
        """
        if attn_implementation not in ("sdpa", "eager"):
            raise ValueError(f"attn_implementation is {attn_implementation!r}: use 'sdpa' or 'eager'")

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
