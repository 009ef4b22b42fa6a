"""A run's model on its processes, and back to one model at the end."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from videomae.engine.compiled import is_worth_compiling
from videomae.engine.distributed import Ranks
from videomae.engine.interrupt import interruptible_backward
from videomae.engine.parallel import SpreadModel, spread
from videomae.engine.step_graph import LossOf, StepGraph, reason_against
from videomae.errors import ConfigError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.layers import VideoMAELayer
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe
from videomae.train.compiled import compile_parts

Model = TypeVar("Model", bound=VideoMAEPreTrainedModel)
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def spread_model(
    model: VideoMAEPreTrainedModel,
    recipe: PretrainRecipe | FinetuneRecipe,
    ranks: Ranks,
    *,
    dtype: torch.dtype,
    called: nn.Module | None = None,
) -> SpreadModel:
    """Spread a model over the processes of a run.

    Args:
        model: On the run's device, in train mode.
        recipe: Of the run.
        ranks: Its processes.
        dtype: Of the computation.
        called: What a step calls, with the model's parameters; None: the model. Not with FSDP2.

    Raises:
        ConfigError: If the recipe asks for what processes or micro-batches cannot share.
    """
    if ranks.world_size > 1 or recipe.loop.micro_batch is not None:
        for name in DROPOUTS:
            if (rate := getattr(model.config, name)) > 0:
                raise ConfigError(
                    f"model.overrides.{name} is {rate:g}, which is drawn for all tokens of a batch together and "
                    "would depend on how processes and micro-batches share it: use 0, as all published recipes do, "
                    "or one process and loop.micro_batch null; head.dropout and stochastic depth have no such limit"
                )
    if recipe.parallel.kind == "fsdp" and recipe.optim.optimizer == "muon":
        raise ConfigError(
            "optim.optimizer is 'muon' and parallel.kind is 'fsdp': Muon orthogonalizes whole matrices, and each "
            "process has a part of them: use parallel.kind ddp, or adamw"
        )
    if ranks.world_size == 1:
        interruptible_backward(model.parameters())
    if recipe.loop.activation_checkpointing:
        model.activation_checkpointing_enable()
    if is_worth_compiling(recipe.loop.compile, next(model.parameters()).device):
        compile_parts(model)
    blocks = [module for module in model.modules() if isinstance(module, VideoMAELayer)]
    return spread(model, ranks, recipe.parallel.kind, blocks=blocks, dtype=dtype, called=called)


def step_graph(
    loss_of: LossOf, spread: SpreadModel, recipe: PretrainRecipe | FinetuneRecipe, ranks: Ranks
) -> StepGraph | None:
    """Return what computes steps as one CUDA graph where that is faster; None where it cannot or is not to.

    Args:
        loss_of: Of a whole step.
        spread: What it calls.
        recipe: Of the run.
        ranks: Its processes.

    Raises:
        ConfigError: If the recipe insists on a graph, and there can be none.
    """
    loop, model = recipe.loop, spread.model
    is_plain = spread.module is model and type(model) in (VideoMAEForPreTraining, VideoMAEForVideoClassification)
    reason = reason_against(
        loop.cuda_graph,
        next(model.parameters()).device,
        processes=ranks.world_size,
        is_whole=loop.micro_batch is None and not loop.activation_checkpointing,
        is_plain=is_plain,
    )
    if reason is None:
        return StepGraph(loss_of, list(model.parameters()), always=loop.cuda_graph is True)
    if loop.cuda_graph is True:
        raise ConfigError(f"loop.cuda_graph is true, but {reason}: use auto, which captures where it can, or false")
    return None


def spread_lines(ranks: Ranks, recipe: PretrainRecipe | FinetuneRecipe) -> list[str]:
    """Tell how the work is shared; nothing where one process computes whole batches."""
    lines = []
    if ranks.world_size > 1:
        lines.append(f"processes: {ranks.world_size}, parallel.kind {recipe.parallel.kind}")
    if recipe.loop.micro_batch is not None:
        lines.append(f"at most {recipe.loop.micro_batch} clips per forward pass in a process, gradients accumulated")
    return lines


def whole_model(spread: SpreadModel, model_class: type[Model], ranks: Ranks) -> Model:
    """Return the model as one process can use and save it; all processes call this.

    Where the model is sharded, the first process gets a copy of it, and the others an empty one.
    """
    model = spread.model
    assert isinstance(model, model_class)
    if not spread.is_sharded:
        return model
    device = next(model.parameters()).device
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not ranks.is_first:
        return model
    with torch.device("cpu"):
        plain = model_class(model.config)
    plain.load_state_dict(state)
    return plain.to(device).train()
