"""Which tensor of a file goes where in a model, decided from names and shapes before anything is read or allocated.

Also the ways in which a tensor may be changed to fit: other colour channels, and chosen rows of a classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from videomae.errors import WeightsError
from videomae.weights.kinds import DECODER_PARTS, ENCODER_PREFIX, ModelKind, kind_of_part
from videomae.weights.layouts import parts_of
from videomae.weights.recognition import POSITION_TABLES
from videomae.weights.report import Status, TensorStatus, listed

ChannelAdaption = Literal["mean", "repeat"]

CLASSIFIER, POOLED_NORM = "classifier.", "fc_norm."
FINAL_NORM = "videomae.layernorm."
PROJECTION = "videomae.embeddings.patch_embeddings.projection.weight"
PIXEL_HEAD = "decoder.head."
MOST_SHAPES = 12  # in one message
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class ChannelChange:
    """Another number of colour channels."""

    old: int
    """In the file."""
    new: int
    """In the model."""
    how: ChannelAdaption
    """See `adapt`."""


@dataclass(frozen=True)
class FitRules:
    """What the caller asked for."""

    labels_chosen: bool = False
    """Classes were named: a classifier of another number of rows is randomly initialized."""
    channels: ChannelChange | None = None
    """Another number of channels was named; None: it was not."""
    pooling_chosen: bool = False
    """Pooling was named: norms that it needs are initialized, and those it does not need are ignored."""
    head_rows: Sequence[int] | None = None
    """Rows of the file's classifier, in the order of the new classes."""
    fresh_head: bool = False
    """The file's classifier is ignored, whatever its shape."""
    replace_mismatched: bool = False
    """Randomly initialize every tensor of another shape."""


@dataclass
class Fit:
    """The plan: what is done with each tensor."""

    taken: dict[str, str] = field(default_factory=dict)
    """How each tensor of the model is made from that of the file: empty text means as it is."""
    fresh: dict[str, str] = field(default_factory=dict)
    """Tensors of the model that are randomly initialized, and why."""
    unused: dict[str, str] = field(default_factory=dict)
    """Tensors of the file that are ignored, and why."""
    missing: list[str] = field(default_factory=list)
    """Tensors of the model that the file lacks, for no reason."""
    unexpected: list[str] = field(default_factory=list)
    """Tensors of the file that the model lacks, for no reason."""
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    """Name, shape in the file and shape in the model, where they differ and nothing makes them fit."""
    replaced: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    """The same, where random values are taken instead."""
    positions: list[str] = field(default_factory=list)
    """Position tables in the file; to be compared with those that are computed."""

    def problems(self, *, strict: bool, prefix: str = "") -> list[str]:
        """Return what is wrong, one text for each kind; without `prefix` before the names."""
        found = []
        for title, names in (("it lacks", self.missing), ("it also has", self.unexpected)):
            if names and strict:
                found.append(f"{title} {listed(name.removeprefix(prefix) for name in names)}")
        alike: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
        for name, theirs, ours in self.mismatched:
            alike.setdefault((theirs, ours), []).append(name.removeprefix(prefix))
        shapes = [
            f"{listed(names)}: shape {list(theirs)} in the file, {list(ours)} in the model"
            for (theirs, ours), names in alike.items()
        ]
        if len(shapes) > MOST_SHAPES:
            shapes = [*shapes[:MOST_SHAPES], f"{len(shapes) - MOST_SHAPES} more shapes differ"]
        if shapes:
            shapes[-1] += (
                "; the checkpoint is of another architecture: ignore_mismatched_sizes=True randomly initializes those"
            )
        return found + shapes

    def unused_with_warning(self) -> dict[str, list[str]]:
        """Return the ignored tensors that a user should hear of, by the reason.

        Not among them: the decoder of a pre-training file, which no other model has a use for, and tensors whose
        replacement is warned of.
        """
        groups: dict[str, list[str]] = {}
        for name, reason in self.unused.items():
            if not name.startswith(DECODER_PARTS) and name not in self.fresh:
                groups.setdefault(reason, []).append(name)
        return groups

    def statuses(self, names: Mapping[str, str]) -> tuple[TensorStatus, ...]:
        """Return what happens to each tensor of the file, given our name for each."""
        replaced = {name for name, _, _ in (*self.replaced, *self.mismatched)}
        statuses = []
        for theirs, whole in names.items():
            ours, *others = parts_of(whole)
            status, detail = self._status(ours, replaced)
            if status == "loaded" and others:
                status, detail = "split", "queries, keys and values are three matrices here"
            elif status == "loaded" and theirs != ours:
                status = "renamed"
            statuses.append(TensorStatus(theirs, ours, status, detail))
        return tuple(statuses)

    def _status(self, ours: str, replaced: set[str]) -> tuple[Status, str]:
        if ours in self.taken:
            return ("adapted", self.taken[ours]) if self.taken[ours] else ("loaded", "")
        if ours in replaced:
            return "re-initialized", self.fresh.get(ours, "its shape does not fit")
        if ours in self.unused:
            return "unused", self.unused[ours]
        if ours in self.positions:
            return "recomputed", "positions are computed, not stored"
        return "unexpected", ""


def fit_tensors(own: Mapping[str, Tensor], file: Mapping[str, Tensor], *, kind: ModelKind, rules: FitRules) -> Fit:
    """Plan how the tensors of a file fill a model.

    Args:
        own: The model's, by whole-model names; may be on the meta device.
        file: The file's, by our whole-model names; may be on the meta device.
        kind: What the file holds.
        rules: What the caller asked for.

    Raises:
        WeightsError: If a tensor that the model needs does not hold floating-point numbers, or `head_rows` are wrong.
    """
    fit = Fit()
    for name, tensor in own.items():
        ignored = rules.fresh_head and name.startswith(CLASSIFIER)
        if name not in file or ignored:
            reason = _why_fresh(name, own, kind, rules, file)
            if reason:
                fit.fresh[name] = reason
            else:
                fit.missing.append(name)
            continue
        if file[name].dtype not in FLOATS:
            dtype = str(file[name].dtype).removeprefix("torch.")
            raise WeightsError(f"{name} holds {dtype}, not floating-point numbers")
        _place(fit, name, tuple(file[name].shape), tuple(tensor.shape), rules)
    for name in file:
        if name in own:
            if rules.fresh_head and name.startswith(CLASSIFIER):
                fit.unused[name] = "a new classifier was asked for"
            continue
        if name in POSITION_TABLES:
            fit.positions.append(name)
            continue
        reason = _why_unused(name, own, rules)
        if reason:
            fit.unused[name] = reason
        else:
            fit.unexpected.append(name)
    return fit


def _place(fit: Fit, name: str, theirs: tuple[int, ...], ours: tuple[int, ...], rules: FitRules) -> None:
    how = _how(name, theirs, ours, rules)
    if how is not None:
        fit.taken[name] = how
    elif rules.replace_mismatched or (rules.labels_chosen and name.startswith(CLASSIFIER)):
        fit.replaced.append((name, theirs, ours))
        fit.fresh[name] = f"the file's has shape {list(theirs)}"
    else:
        fit.mismatched.append((name, theirs, ours))


def _how(name: str, theirs: tuple[int, ...], ours: tuple[int, ...], rules: FitRules) -> str | None:
    """Return how a tensor is made to fit: empty as it is, None not at all."""
    if rules.head_rows is not None and name.startswith(CLASSIFIER):
        if len(rules.head_rows) != ours[0] or not all(0 <= row < theirs[0] for row in rules.head_rows):
            raise WeightsError(
                f"head_rows has {len(rules.head_rows)} rows for {ours[0]} classes, of a classifier with {theirs[0]}: "
                "give for each new class the number of one row of the file"
            )
        return f"{len(rules.head_rows)} of {theirs[0]} rows"
    if theirs == ours:
        return ""
    change = rules.channels
    if change is None:
        return None
    text = f"{change.old} to {change.new} channels, {change.how}"
    if name == PROJECTION and (theirs[1:2], ours[1:2]) == ((change.old,), (change.new,)):
        return text if theirs[:1] + theirs[2:] == ours[:1] + ours[2:] else None
    if name.startswith(PIXEL_HEAD) and theirs[1:] == ours[1:] and theirs[0] * change.new == ours[0] * change.old:
        return text
    return None


def _why_fresh(
    name: str, own: Mapping[str, Tensor], kind: ModelKind, rules: FitRules, file: Mapping[str, Tensor]
) -> str:
    if name.startswith(CLASSIFIER) and rules.fresh_head:
        return "a new classifier was asked for"
    part = kind_of_part(name)
    if part is not None:
        return "" if _has(file, part.parts) else f"the file holds no {part.head}"
    if name.startswith(POOLED_NORM):
        if _has(file, POOLED_NORM):
            return ""
        if _has(file, CLASSIFIER):
            return "the file's classifier has no norm before it" if rules.pooling_chosen else ""
        return "the file holds no classifier"
    if name.startswith(FINAL_NORM) and _has(own, DECODER_PARTS) and kind.name != "pretraining":
        return "the file's encoder has no norm after its last block"
    part_of_its_own = name.partition(".")[0]
    if part_of_its_own != ENCODER_PREFIX.rstrip(".") and not _has(file, (part_of_its_own + ".", part_of_its_own)):
        return f"{part_of_its_own} is a part of this class alone"
    return ""


def _why_unused(name: str, own: Mapping[str, Tensor], rules: FitRules) -> str:
    part = kind_of_part(name)
    if part is not None:
        return "" if _has(own, part.parts) else f"the model has no {part.head}"
    classifies = _has(own, CLASSIFIER)
    if name.startswith(POOLED_NORM) and (not classifies or rules.pooling_chosen):
        return "the model has no norm before a classifier"
    if name.startswith(FINAL_NORM) and (classifies or rules.pooling_chosen):
        return "the model averages tokens without a norm before"
    return ""


def _has(tensors: Mapping[str, Tensor], parts: str | tuple[str, ...]) -> bool:
    return any(name.startswith(parts) for name in tensors)


def adapt(name: str, tensor: Tensor, shape: torch.Size, rules: FitRules) -> Tensor:
    """Change a tensor of a file as the plan says.

    The first layer with `mean`: every new channel gets the mean over the old ones; with `repeat`: the old ones in
    turn. Either times old by new number of channels, so that frames whose channels are all alike give what they gave
    (with `repeat`, if the new number is a multiple of the old). The decoder's pixel head with `mean`: every new
    channel is predicted as the mean of the old ones; with `repeat`: as the old ones in turn.

    Args:
        name: Our whole-model name.
        tensor: From the file.
        shape: Of the model's tensor.
        rules: What the caller asked for.

    Returns:
        A tensor of that shape; the given one where nothing is to be done.
    """
    if name.startswith(CLASSIFIER) and rules.head_rows is not None:
        return tensor[torch.tensor(list(rules.head_rows), dtype=torch.int64)]
    if tensor.shape == shape:
        return tensor
    change = rules.channels
    assert change is not None, f"no way to fit {name}"
    chosen = torch.arange(change.new) % change.old
    if name == PROJECTION:
        scaled = tensor.float() * (change.old / change.new)  # [D, C, ...]
        return scaled.mean(dim=1, keepdim=True).expand(shape) if change.how == "mean" else scaled[:, chosen]
    # The channel is fastest in a prediction.
    values: Tensor = tensor.float().reshape(-1, change.old, *tensor.shape[1:])  # [s, C, ...]
    if change.how == "mean":
        return values.mean(dim=1, keepdim=True).repeat_interleave(change.new, dim=1).flatten(0, 1)
    return values[:, chosen].flatten(0, 1)
