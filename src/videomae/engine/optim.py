"""AdamW and its parameter groups: which tensors decay, and how much slower the lower layers learn.

Model knowledge (names without decay, the layer id of a name) comes as arguments. The learning rate of
each step is `schedule.set_learning_rate`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from videomae.engine.configs import OptimConfig as OptimConfig
from videomae.engine.muon import MuonWithAdamW
from videomae.engine.parallel import replicated_like, whole
from videomae.errors import ConfigError

RunOptimizer = torch.optim.AdamW | MuonWithAdamW
REFERENCE_BATCH = 256  # the batch for which base learning rates are quoted: MAE, VideoMAE
# Elsewhere torch has the fused kernel too, but nobody has proved here that a resumed run is then bit-exact, and that
# the kernel obeys `found_inf`.
FUSED_DEVICES = frozenset({"cpu", "cuda"})


def scaled_lr(base_lr: float, total_batch: int) -> float:
    """Return the learning rate for a batch: `base_lr * total_batch / 256`.

    Args:
        base_lr: Rate for 256 clips; peak and final rates are scaled alike.
        total_batch: Clips per optimizer step over all processes and accumulated batches, not counting
            repeated augmentations of one video.

    Source: linear scaling (Goyal et al. 2017), as VideoMAE applies it; MAE leaves the final rate unscaled.
    """
    return base_lr * total_batch / REFERENCE_BATCH


def param_groups(
    named_parameters: Iterable[tuple[str, Parameter]],
    *,
    weight_decay: float,
    no_decay: Collection[str] = (),
    layer_decay: float = 1.0,
    layer_id: Callable[[str], int] | None = None,
    num_layer_ids: int = 0,
    matrices: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Sort parameters into AdamW groups of equal learning-rate scale and weight decay.

    No weight decay for tensors of fewer than 2 dimensions, names ending in `.bias`, and names in `no_decay`.
    The learning-rate scale of layer `i` is `layer_decay ** (num_layer_ids - 1 - i)`: 1 for the top layer.
    Frozen parameters are skipped. Wrappers' additions to names (`_orig_mod.` of compilation, `module.` of
    data-parallel training) are taken off before a name is looked at.

    Args:
        named_parameters: `model.named_parameters()`.
        weight_decay: Decay of the tensors that decay.
        no_decay: Full names of further tensors without decay.
        layer_decay: Factor from each layer to the one below it, in (0, 1].
        layer_id: Layer number of a name, in `[0, num_layer_ids)`; needed where `layer_decay` is not 1.
        num_layer_ids: Number of layers told apart: embedding, D blocks and head make D + 2.
        matrices: Full names of the tensors that Muon is to update; empty without Muon.

    Returns:
        Groups with `params`, `lr_scale`, `weight_decay` and `name`, in the order of their first parameter; those for
        Muon also with `muon`.

    Raises:
        ConfigError: If nothing is trainable, a name in `no_decay` is no parameter's, or a layer id is
            missing or out of range.

    Source: VideoMAE's fine-tuning, after BEiT.
    """
    if layer_decay != 1.0 and layer_id is None:
        raise ConfigError(f"optim.layer_decay is {layer_decay:g}; it needs layer ids: use 1 for this model")
    groups: dict[str, dict[str, Any]] = {}
    spared = {plain_name(name) for name in no_decay}
    unmatched = set(spared)
    for_muon = {plain_name(name) for name in matrices}
    for wrapped_name, parameter in named_parameters:
        name = plain_name(wrapped_name)
        unmatched.discard(name)
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim >= 2 and not name.endswith(".bias") and name not in spared
        layer = None
        if layer_decay != 1.0 and layer_id is not None:
            layer = _checked_layer(layer_id(name), name=name, num_layer_ids=num_layer_ids)
        lr_scale = 1.0 if layer is None else layer_decay ** (num_layer_ids - 1 - layer)
        decay = weight_decay if decays else 0.0
        label = ("decay" if decays else "no_decay") + ("" if layer is None else f", layer {layer}")
        new_group = {"params": [], "lr_scale": lr_scale, "weight_decay": decay, "name": label}
        if name in for_muon:
            label += ", muon"
            new_group |= {"name": label, "muon": True}
        groups.setdefault(label, new_group)["params"].append(parameter)
    if unmatched:
        raise ConfigError(
            f"no_decay names {', '.join(sorted(unmatched))}, which no parameter is called; weight decay "
            "would be applied unasked: give full parameter names"
        )
    if not groups:
        raise ConfigError("the model has no trainable parameter; there is nothing to optimize: unfreeze a part")
    return list(groups.values())


def plain_name(name: str) -> str:
    """Take off what compilation and data-parallel wrappers add to a parameter's name."""
    # A compiled sub-module puts `_orig_mod.` in the middle of names, a wrapped model its word at their head.
    while True:
        shorter = name.replace("_orig_mod.", "").removeprefix("module.")
        if shorter == name:
            return name
        name = shorter


def build_optimizer(
    groups: list[dict[str, Any]], config: OptimConfig, *, dtype: torch.dtype | None = None
) -> RunOptimizer:
    """Return AdamW over the groups, with the fused kernel where the device has it, or Muon and AdamW.

    Args:
        groups: From `param_groups`; each group's own `weight_decay` counts.
        config: Betas, eps and the rate before `set_learning_rate` is first called.
        dtype: That of the run's matrix multiplications, in which Muon orthogonalizes; None: see `Muon`.
    """
    for_muon = [group for group in groups if group.get("muon")]
    if for_muon:
        return MuonWithAdamW(for_muon, [group for group in groups if not group.get("muon")], config, dtype=dtype)
    parameters = [parameter for group in groups for parameter in group["params"]]
    fused = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in parameters)
    return torch.optim.AdamW(
        [{**group, "lr": config.base_lr * group["lr_scale"]} for group in groups],
        lr=config.base_lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=fused,
    )


def clip_and_norm(parameters: Iterable[Parameter], max_norm: float | None) -> Tensor:
    """Scale the gradients down to a global L2 norm of at most `max_norm`, and return the norm they had.

    Never waits for the device: read the result only when it is logged.

    Args:
        parameters: Their gradients are changed in place; those without a gradient are ignored. Where they are
            sharded, all processes call this, and the norm is that of the whole gradients.
        max_norm: Largest norm; None leaves the gradients as they are.

    Returns:
        0-d tensor on the gradients' device, the norm before clipping. A norm that is not finite makes every
        clipped gradient useless; `update_if_finite` skips such a step.
    """
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    norm = whole(torch.nn.utils.get_total_norm([p.grad for p in with_gradient if p.grad is not None]))
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(with_gradient, max_norm, norm)
    return norm


def update_if_finite(optimizer: RunOptimizer, *, loss: Tensor, grad_norm: Tensor) -> None:
    """Update the weights, unless the loss or the gradient norm is not finite.

    A skipped update changes nothing: weights, moments and step counts stay as they are, to the bit; any other update
    is `optimizer.step()` to the bit. The decision is taken on the device, which the caller never waits for, where the
    optimizer is fused. Elsewhere (MPS, Muon) it is read back.

    Args:
        optimizer: From `build_optimizer`; the gradients are in its parameters.
        loss: 0-d.
        grad_norm: 0-d, from `clip_and_norm`.
    """
    skipped = ~(loss.detach().isfinite() & grad_norm.isfinite())
    if isinstance(optimizer, MuonWithAdamW) or not optimizer.defaults["fused"]:
        if not skipped:
            optimizer.step()
        return
    # The attribute is how torch's GradScaler tells a fused optimizer of an overflow.
    parameter = optimizer.param_groups[0]["params"][0]
    optimizer.found_inf = replicated_like(skipped.float(), parameter)  # type: ignore[attr-defined]
    optimizer.step()


def _checked_layer(layer: int, *, name: str, num_layer_ids: int) -> int:
    if not 0 <= layer < num_layer_ids:
        raise ConfigError(
            f"parameter {name} has layer id {layer}; there are {num_layer_ids} layers, numbered from 0: "
            "layer_id and num_layer_ids must be the same model's"
        )
    return layer
