"""What is in a checkpoint of any layout: `videomae weights inspect`.

Only names and shapes are read and, to find values that are no finite numbers, the tensors one after the other; memory
for a whole model is never taken.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from videomae.errors import ConfigError, WeightsError
from videomae.presets import IMAGENET_MEAN
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import PUBLISHED_CLIP, read_record
from videomae.weights.architecture import describe
from videomae.weights.configs import ModelConfig
from videomae.weights.hub import HubOptions
from videomae.weights.kinds import KINDS, ModelKind
from videomae.weights.loading import Checkpoint, open_checkpoint, plan_load
from videomae.weights.options import LoadOptions
from videomae.weights.report import LoadReport, listed
from videomae.weights.sources import PROCESSOR_FILE, RECORD_FILE

Verdict = Literal["repaired", "assumed", "kept", "look into it", "unusable"]
MEAN_TOLERANCE = 0.01


class ModelFamily(Protocol):
    """What inspecting needs of the models' base class; `VideoMAEPreTrainedModel` has it."""

    @property
    def config_class(self) -> type[ModelConfig]:
        """Of all models."""

    def class_of(self, kind: ModelKind) -> type[nn.Module]:
        """Return the model class of a kind."""


@dataclass(frozen=True)
class Problem:
    """Something about a checkpoint that its user should know."""

    what: str
    """The finding."""
    verdict: Verdict
    """What loading does about it."""


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint holds."""

    source: str
    """What was inspected."""
    files: tuple[str, ...]
    """Names of its weights files."""
    size_bytes: int
    """Of all of them."""
    layout: str
    """How its tensors are named, and what they were wrapped in."""
    kind: str
    """What it holds: a key of `weights.kinds.KINDS`."""
    architecture: str
    """Published size and numbers; empty if no configuration could be settled."""
    num_parameters: int
    """Values in all its tensors."""
    dtypes: tuple[str, ...]
    """Of its tensors, the most frequent first."""
    num_labels: int | None
    """Classes of its classifier; None if it has none."""
    sampling: str
    """How its clips were sampled in training."""
    config: ModelConfig | None
    """With which it would be loaded."""
    report: LoadReport | None
    """What loading would do with each tensor."""
    problems: tuple[Problem, ...]
    """What its user should know."""

    @property
    def usable(self) -> bool:
        """Whether it can be loaded without further arguments."""
        return all(problem.verdict != "unusable" for problem in self.problems)


def inspect_weights(
    source: str | os.PathLike[str],
    family: ModelFamily,
    *,
    config: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    check_values: bool = True,
) -> Inspection:
    """Look into a checkpoint.

    Args:
        source: As for `from_pretrained`.
        family: The base class of the models, `VideoMAEPreTrainedModel`.
        config: A `config.json`, or a folder with one, for files that have none.
        revision: On the Hub.
        check_values: Also read every value, to find those that are no numbers.

    Raises:
        WeightsError: If there is nothing there, or it cannot be read at all.
    """
    options = LoadOptions(config=config, hub=HubOptions(revision=revision))
    checkpoint = open_checkpoint(source, family.config_class, options)
    tensors = checkpoint.file.tensors
    settled, report, problems = _planned(checkpoint, options, family)
    head = checkpoint.shapes.get("classifier.weight")
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    sampling, unknown = _sampling(checkpoint, settled)
    problems += unknown + _processor_problems(checkpoint) + _bias_problems(checkpoint)
    if check_values:
        problems += _value_problems(tensors)
    return Inspection(
        source=checkpoint.source.name,
        files=tuple(path.name for path in checkpoint.source.weights),
        size_bytes=sum(path.stat().st_size for path in checkpoint.source.weights),
        layout=checkpoint.describe(),
        kind=checkpoint.layout.kind.name,
        architecture="" if settled is None else describe(vars(settled)),
        num_parameters=sum(tensor.numel() for tensor in tensors.values()),
        dtypes=tuple(name for name, _ in dtypes.most_common()),
        num_labels=None if head is None else int(head.shape[0]),
        sampling=sampling,
        config=settled,
        report=report,
        problems=tuple(problems),
    )


def inspection_table(inspection: Inspection) -> Group:
    """Return what was found as tables to print."""
    facts = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "source": inspection.source,
        "files": f"{', '.join(inspection.files)} ({inspection.size_bytes / 1e6:,.1f} MB)",
        "layout": inspection.layout,
        "holds": KINDS[inspection.kind].holds,
        "architecture": inspection.architecture or "not known",
        "parameters": f"{inspection.num_parameters:,}",
        "dtype": ", ".join(inspection.dtypes),
        "labels": "none" if inspection.num_labels is None else str(inspection.num_labels),
        "sampling": inspection.sampling,
    }
    if inspection.report is not None:
        counts = inspection.report.counts()
        rows["tensors"] = ", ".join(f"{count} {status}" for status, count in counts.items())
    for name, value in rows.items():
        facts.add_row(name, Text(value))  # Text: what a file says is no markup
    if not inspection.problems:
        return Group(facts, Text("no problems found"))
    problems = Table("verdict", "problem", box=None, pad_edge=False)
    for problem in inspection.problems:
        problems.add_row(problem.verdict, Text(problem.what))
    return Group(facts, Text(), problems)


def _planned(
    checkpoint: Checkpoint, options: LoadOptions, family: ModelFamily
) -> tuple[ModelConfig | None, LoadReport | None, list[Problem]]:
    try:
        plan = plan_load(family.class_of(checkpoint.layout.kind), checkpoint, options, {})
    except (WeightsError, ConfigError) as error:
        return None, None, [Problem(str(error), "unusable")]
    problems = [Problem(text, "kept" if " is kept" in text else "repaired") for text in plan.report.repairs]
    problems += [Problem(text, "kept") for text in plan.warnings]
    problems += [Problem(text, "assumed") for text in plan.report.notes]
    if checkpoint.declared is not None and checkpoint.declared.ignored:
        names = ", ".join(checkpoint.declared.ignored)
        problems.append(Problem(f"its configuration has entries that mean nothing here: {names}", "kept"))
    return plan.config, plan.report, problems


def _sampling(checkpoint: Checkpoint, config: ModelConfig | None) -> tuple[str, list[Problem]]:
    record = _side_file(checkpoint, RECORD_FILE)
    if record is not None:
        try:
            clip = read_record(record).sampling
        except WeightsError as error:
            return "not known", [Problem(str(error), "look into it")]
        if clip is not None:
            return f"{clip.num_frames} frames, stride {clip.stride}, {clip.kind}", []
    frames, stride = PUBLISHED_CLIP.num_frames if config is None else config.num_frames, PUBLISHED_CLIP.stride
    what = f"nothing says how its clips were sampled: {frames} frames at stride {stride} are assumed"
    return f"not recorded; {frames} frames, stride {stride}, {PUBLISHED_CLIP.kind} assumed", [
        Problem(what, "assumed")
    ]


def _processor_problems(checkpoint: Checkpoint) -> list[Problem]:
    path = _side_file(checkpoint, PROCESSOR_FILE)
    if path is None:
        return [Problem(f"there is no {PROCESSOR_FILE}: prepare frames with ImageNet's mean and std", "assumed")]
    try:
        mean = VideoMAEImageProcessor.from_pretrained(path).image_mean
    except (WeightsError, ConfigError) as error:
        return [Problem(str(error), "look into it")]
    values = mean if isinstance(mean, tuple | list) else (mean,) * len(IMAGENET_MEAN)
    if (
        len(values) == len(IMAGENET_MEAN)
        and max(abs(one - right) for one, right in zip(values, IMAGENET_MEAN, strict=True)) > MEAN_TOLERANCE
    ):
        what = f"{PROCESSOR_FILE} has image_mean {list(values)}; the published models were trained with ImageNet's"
        return [Problem(what, "look into it")]
    return []


def _bias_problems(checkpoint: Checkpoint) -> list[Problem]:
    """Find the mark of transformers 5.0 to about 5.16, which loaded zeros in place of these biases."""
    biases = [
        tensor
        for theirs, tensor in checkpoint.file.tensors.items()
        if checkpoint.layout.names[theirs].endswith(("query.bias", "value.bias"))
    ]
    if not biases or any(bool(bias.any()) for bias in biases):
        return []
    what = (
        "every bias of queries and values is zero, as in an untrained model, or in one that transformers 5.0 to "
        "about 5.16 loaded and saved again"
    )
    return [Problem(what, "look into it")]


def _value_problems(tensors: dict[str, Tensor]) -> list[Problem]:
    with torch.no_grad():
        # The sum over a tensor is not finite if any value is not, and needs no second tensor of that size.
        wrong = [
            name
            for name, tensor in tensors.items()
            if tensor.is_floating_point() and not tensor.sum(dtype=torch.float64).isfinite()
        ]
    return [Problem(f"values that are no finite numbers in {listed(wrong)}", "unusable")] if wrong else []


def _side_file(checkpoint: Checkpoint, name: str) -> Path | None:
    try:
        return checkpoint.source.side_file(name)
    except WeightsError:
        return None
