"""What the three models share: configuration, device and dtype, counts, checkpointing, files, layer numbers.

Knows nothing of what a model computes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from videomae.model.config import VideoMAEConfig
from videomae.model.outputs import EncoderOutput, ImageClassifierOutput, VideoMAEForPreTrainingOutput

Output = TypeVar("Output", EncoderOutput, VideoMAEForPreTrainingOutput, ImageClassifierOutput)
_BLOCK_NUMBER = re.compile(r"(?:^|\.)encoder\.layer\.(\d+)\.")
_FIRST_LAYER = ("embeddings.", "mask_token", "cls_token")


class VideoMAEPreTrainedModel(nn.Module):
    """Abstract base of the models; make one of its three descendants.

    Args:
        config: Sizes and switches; kept as `self.config` and never written to.
    """

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False

    @property
    def device(self) -> torch.device:
        """The device of the first parameter."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first parameter."""
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Return the number of parameter values."""
        return sum(one.numel() for one in self.parameters() if one.requires_grad or not only_trainable)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """Compute activations again in the backward pass instead of keeping them.

        Args:
            gradient_checkpointing_kwargs: Accepted as upstream; `use_reentrant=True` is refused.

        Raises:
            ValueError: If reentrant checkpointing is asked for.
        """
        if dict(gradient_checkpointing_kwargs or {}).get("use_reentrant"):
            raise ValueError("use_reentrant=True is not supported: leave it out, non-reentrant is used")
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self._set_gradient_checkpointing(False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        return self.gradient_checkpointing

    def _set_gradient_checkpointing(self, value: bool) -> None:
        for module in self.modules():
            if isinstance(module, VideoMAEPreTrainedModel):
                module.gradient_checkpointing = value

    def as_asked(self, output: Output, return_dict: bool | None) -> Output | tuple[Any, ...]:
        """Return an output as an object or, where the call or else the configuration says so, as a tuple."""
        wanted = self.config.return_dict if return_dict is None else return_dict
        return output if wanted else output.to_tuple()

    @property
    def num_layer_ids(self) -> int:
        """Number of layer numbers for layer-wise decay: embedding, blocks, head."""
        return self.config.num_hidden_layers + 2

    def layer_id(self, name: str) -> int:
        """Return the layer number of a parameter: 0 embedding, i + 1 block i, depth + 1 the rest.

        Source: VideoMAE fine-tuning, layer-wise learning-rate decay.
        """
        block = _BLOCK_NUMBER.search(name)
        if block and "decoder" not in name:
            return int(block.group(1)) + 1
        if name.removeprefix("videomae.").startswith(_FIRST_LAYER):
            return 0
        return self.config.num_hidden_layers + 1

    def no_weight_decay(self) -> frozenset[str]:
        """Return the names of parameters that weight decay must spare besides vectors and biases."""
        spared = ("mask_token", "cls_token")
        return frozenset(name for name, _ in self.named_parameters() if name.endswith(spared))

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `config.json` and `model.safetensors` into a folder, readable by transformers too.

        Args:
            save_directory: Made if it is missing. Each file is replaced atomically.
        """
        from videomae.model.weights import save_model

        save_model(self, Path(save_directory))

    @classmethod
    def from_pretrained(cls, source: str | Path, **settings: Any) -> Self:
        """Load a model folder.

        Args:
            source: A folder with `config.json` and `model.safetensors`.
            **settings: Fields of the configuration that differ from the folder's.

        Returns:
            The model in eval mode.

        Raises:
            WeightsError: If a file is missing or damaged, or a tensor is missing, unexpected or mis-shaped.
        """
        from videomae.model.weights import load_model

        return load_model(cls, Path(source), settings)


def as_tuple(states: list[Tensor] | None) -> tuple[Tensor, ...] | None:
    """Return collected states as the tuple that outputs hold."""
    return None if states is None else tuple(states)
