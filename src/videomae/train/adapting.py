"""What of a classifier is trained: all, its upper blocks, or low-rank adapters; and the units of a regression."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from videomae.data.targets import Targets
from videomae.errors import ConfigError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.recipes.schema import FinetuneRecipe, LoraConfig

Model = TypeVar("Model", bound=VideoMAEPreTrainedModel)
HEAD = ("classifier.", "fc_norm.")


def choose_trained(model: VideoMAEForVideoClassification, recipe: FinetuneRecipe) -> list[str]:
    """Freeze what is not to be trained and put adapters in, in place.

    Args:
        model: As it was built, before it has an optimizer.
        recipe: Its head says how many lower blocks are frozen; with adapters the head is trained, and nothing else.

    Returns:
        Lines that tell what is trained; none where all is.

    Raises:
        ConfigError: If there are fewer blocks than are to be frozen, peft is not installed, or adapters are to be
            sharded.
    """
    head, lora = recipe.head, recipe.lora
    depth = model.config.num_hidden_layers
    if head.freeze > depth:
        raise ConfigError(f"head.freeze is {head.freeze}, but the encoder has {depth} blocks: use 0 to {depth}")
    if lora.rank is not None:
        if recipe.parallel.kind == "fsdp":
            raise ConfigError(
                f"lora.rank is {lora.rank} and parallel.kind is 'fsdp': adapters are merged in whole models, "
                "and leave no gradients or optimizer state that would need sharding: use parallel.kind ddp"
            )
        _put_adapters(model, lora)
    if head.freeze:
        for name, parameter in model.named_parameters():
            if model.layer_id(name) <= head.freeze:
                parameter.requires_grad_(False)
    if lora.rank is None and not head.freeze:
        return []
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    adapters = "" if lora.rank is None else f"adapters of rank {lora.rank} on {', '.join(lora.layers)}; "
    frozen = f"the lower {head.freeze} of {depth} blocks are frozen; " if head.freeze else ""
    total = sum(parameter.numel() for parameter in model.parameters())
    return [f"trained: {adapters}{frozen}{trained:,} of {total:,} parameters"]


def _put_adapters(model: VideoMAEForVideoClassification, lora: LoraConfig) -> None:
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(
            f"lora.rank is {lora.rank}, which needs peft, which cannot be imported ({error}): "
            "pip install 'videomae[lora]', or set lora.rank to null"
        ) from None
    assert lora.rank is not None
    config = PeftConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.layers)
    )
    inject_adapter_in_model(config, model)  # freezes everything else
    for name, parameter in model.named_parameters():
        if name.startswith(HEAD):
            parameter.requires_grad_(True)


def merged(model: Model) -> Model:
    """Return a model without adapters that computes the same: itself where there are none, else a copy.

    The copy has the tensors of a model that never had any, so that it is saved and read like any other.
    """
    if not any(hasattr(module, "lora_A") for module in model.modules()):
        return model
    whole = copy.deepcopy(model)
    adapters: dict[str, Any] = {name: one for name, one in whole.named_modules() if hasattr(one, "lora_A")}
    for name, module in adapters.items():
        module.merge()
        parent, _, own = name.rpartition(".")
        setattr(whole.get_submodule(parent), own, module.get_base_layer())
    return whole


class Units:
    """What a regression is trained on: values less their mean over the training videos, divided by std.

    A head that starts near zero then starts near the mean, and learning rates mean the same whatever the units. The
    model that is evaluated and saved has both folded into its last layer. Of other problems nothing is changed.

    Args:
        targets: Of the training videos.
    """

    def __init__(self, targets: Targets) -> None:
        self.mean: Tensor | None = None
        self.std: Tensor | None = None
        if targets.problem == "regression":
            values = torch.from_numpy(targets.values).double()  # [n, K]
            self.mean, std = values.mean(dim=0), values.std(dim=0, correction=0)
            self.std = torch.where(std > 0, std, torch.ones_like(std))

    def standardized(self, values: Tensor) -> Tensor:
        """Return targets `[n, K]` float64 as they are trained on, float32."""
        if self.mean is None or self.std is None:
            return values.float()
        return ((values - self.mean) / self.std).float()

    @contextmanager
    def natural(self, model: VideoMAEForVideoClassification) -> Iterator[None]:
        """Let a model in training predict in the units of the data; afterwards its weights are what they were."""
        if self.mean is None or self.std is None:
            yield
            return
        weight, bias = model.classifier.weight, model.classifier.bias
        before = weight.detach().clone(), bias.detach().clone()
        with torch.no_grad():
            std, mean = self.std.to(weight), self.mean.to(weight)
            weight.mul_(std[:, None])
            bias.mul_(std).add_(mean)
        try:
            yield
        finally:
            with torch.no_grad():
                weight.copy_(before[0])
                bias.copy_(before[1])
