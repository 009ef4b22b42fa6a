"""`from_pretrained`: from a source to a model, every tensor accounted for.

The order matters: files are found, their names and shapes are read, the configuration is settled and the whole plan
is checked on a model without values. Only then is memory for values taken, so that a wrong file costs none.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from videomae.errors import ConfigError, WeightsError
from videomae.positions import sinusoid_table
from videomae.weights.configs import LABEL_SETTINGS, ModelConfig, Settled, read_declared, settle_config
from videomae.weights.declared import Declared, parse
from videomae.weights.json_files import one_line
from videomae.weights.kinds import ENCODER_PREFIX, ModelKind, kind_of_class
from videomae.weights.layouts import assemble, parts_of
from videomae.weights.matching import ChannelChange, Fit, FitRules, adapt, fit_tensors
from videomae.weights.options import DTYPES, LoadOptions, split_options
from videomae.weights.recognition import Layout, recognise, whole_name
from videomae.weights.report import LoadReport, listed
from videomae.weights.sources import CONFIG_FILE, TRAINER_FILE, Origin, Source, find_source, origin_of
from videomae.weights.tensor_files import TensorFile

CONFIG_NOTE = "videomae_config"  # where this package's own .pth files keep their config.json
TRAINER_HINT = (
    "give config=model.config here, or save with model.save_pretrained, or train with "
    "callbacks=[videomae.compat.trainer.configuration_saver()]"
)
POSITION_TOLERANCE = 1e-4
PROJECTION = "videomae.embeddings.patch_embeddings.projection.weight"

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """A source of which nothing but names and shapes has been read."""

    source: Source
    """Its files."""
    file: TensorFile
    """Its tensors, mapped."""
    layout: Layout
    """How they are named."""
    shapes: dict[str, Tensor]
    """By the names of a whole model here, on the meta device."""
    declared: Declared | None
    """What its configuration says."""

    @property
    def is_of_trainer(self) -> bool:
        """Whether transformers' Trainer saved it, without a configuration."""
        folder = self.source.folder
        return self.declared is None and folder is not None and (folder / TRAINER_FILE).is_file()

    def assembled(self) -> dict[str, Tensor]:
        """Return the tensors themselves by the names of a whole model here."""
        return assemble(self.file.tensors, self.layout.names)

    def describe(self) -> str:
        """Return the layout, and what the tensors were found in, for people."""
        container = f", under {self.file.container}" if self.file.container else ""
        wrapper = f", names wrapped in {self.layout.wrapper}" if self.layout.wrapper else ""
        is_v2 = ", of VideoMAE V2's repositories" if self.declared is not None and self.declared.is_v2 else ""
        return f"{self.layout.name}{is_v2}{container}{wrapper}"


class Loaded(NamedTuple, Generic[Model]):
    """A model that was loaded."""

    model: Model
    report: LoadReport
    origin: Origin


class Plan(NamedTuple, Generic[Model]):
    """A load of which nothing but the values is left to be done."""

    config: ModelConfig
    model: Model
    """On the meta device."""
    fit: Fit
    rules: FitRules
    report: LoadReport
    warnings: tuple[str, ...]
    """What making the model warned of."""


def load_pretrained(cls: type[Model], source: str | os.PathLike[str], arguments: Mapping[str, Any]) -> Loaded[Model]:
    """Load a model from anywhere; see `VideoMAEPreTrainedModel.from_pretrained`.

    Args:
        cls: The model class, with its configuration class as `config_class`.
        source: See `find_source`.
        arguments: Options and fields of the configuration.

    Returns:
        The model in eval mode, what happened to every tensor, and what else lies next to its files.

    Raises:
        WeightsError: If there is nothing to load, or what there is is damaged or does not fit.
        ConfigError: If an argument is at fault.
    """
    options, settings = split_options(arguments)
    return load_checkpoint(cls, open_checkpoint(source, config_class_of(cls), options), options, settings)


def load_checkpoint(
    cls: type[Model], checkpoint: Checkpoint, options: LoadOptions, settings: Mapping[str, Any]
) -> Loaded[Model]:
    """Load a model from a checkpoint that is open already; see `load_pretrained`."""
    plan = plan_load(cls, checkpoint, options, settings)
    model = plan.model
    plan.config.keep_attributes({"name_or_path": checkpoint.source.name})
    if plan.report.fresh:
        model = cls(plan.config)
    else:
        for text in plan.warnings:
            warnings.warn(text, UserWarning, stacklevel=4)
    _fill(model, checkpoint, plan, _dtype(options.dtype, checkpoint))
    _warn(plan, cls, _ignored_keys(checkpoint, options))
    origin = origin_of(checkpoint.source)
    model.origin = origin  # type: ignore[assignment]
    return Loaded(_moved(model, options.device_map).eval(), plan.report, origin)


def plan_load(
    cls: type[Model], checkpoint: Checkpoint, options: LoadOptions, settings: Mapping[str, Any]
) -> Plan[Model]:
    """Decide everything about a load, and take memory for nothing.

    Raises:
        WeightsError: If the file does not fit.
        ConfigError: If an argument is at fault.
    """
    name, wanted, config_class = checkpoint.source.name, kind_of_class(cls), config_class_of(cls)
    try:
        settled = settle(checkpoint, options, settings, wanted=wanted, config_class=config_class)
        model, caught = _without_values(cls, settled.config)
        own = {whole_name(key): tensor for key, tensor in model.state_dict().items()}
        rules = _rules(checkpoint, settled, options, settings, whole=isinstance(options.config, config_class))
        fit = fit_tensors(own, checkpoint.shapes, kind=checkpoint.layout.kind, rules=rules)
        learned = check_positions(checkpoint, fit.positions, strict=options.strict)
    except WeightsError as error:
        hint = f"; transformers' Trainer saved it: {TRAINER_HINT}" if checkpoint.is_of_trainer else ""
        raise WeightsError(f"{name}: {error}{hint}") from None
    prefix = "" if wanted.base_prefix else ENCODER_PREFIX  # the bare encoder's names have none
    problems = fit.problems(strict=options.strict, prefix=prefix)
    if problems:
        others = not any(name.startswith(ENCODER_PREFIX) for name in fit.unexpected)  # of a loss, not of the encoder
        only_more = others and fit.unexpected and not (fit.missing or fit.mismatched)
        hint = "; give strict=False to leave those out" if only_more else ""
        raise WeightsError(f"{name} does not fit {cls.__name__}: {'; '.join(problems)}{hint}")
    for table in learned:
        fit.unused[table] = "the model computes its positions, and these were learned"
    report = _report(checkpoint, settled, fit).without_prefix(prefix)
    return Plan(settled.config, model, fit, rules, report, tuple(str(one.message) for one in caught))


def open_checkpoint(
    source: str | os.PathLike[str], config_class: type[ModelConfig], options: LoadOptions | None = None
) -> Checkpoint:
    """Find a source and read the names and shapes of its tensors.

    Args:
        source: See `find_source`.
        config_class: What a `config.json` beside the tensors describes.
        options: How the source is found; the other options have no effect here.

    Raises:
        WeightsError: If there is nothing to load, or what there is is damaged or in no known layout.
    """
    options = options or LoadOptions()
    found = find_source(source, hub=options.hub, use_safetensors=options.use_safetensors)
    declared = None if found.config is None else read_declared(found.config, config_class)
    file = found.read()
    try:
        layout = recognise(file.tensors.keys())
        shapes = {name: torch.empty(one.shape, dtype=one.dtype, device="meta") for name, one in file.tensors.items()}
        assembled = assemble(shapes, layout.names)
    except WeightsError as error:
        raise WeightsError(f"{found.name}: {error}") from None
    except (RuntimeError, IndexError) as error:
        raise WeightsError(f"{found.name}: queries, keys and values do not fit together: {one_line(error)}") from None
    if declared is None and CONFIG_NOTE in file.notes:
        declared = _noted_config(file.notes[CONFIG_NOTE], found.name, config_class)
    return Checkpoint(found, file, layout, assembled, declared)


def config_class_of(cls: type[nn.Module]) -> type[ModelConfig]:
    """Return the configuration class of a model class, as `VideoMAEPreTrainedModel` names it."""
    return cast("type[ModelConfig]", cls.config_class)  # type: ignore[attr-defined]


def _noted_config(text: str, name: str, config_class: type[ModelConfig]) -> Declared:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise WeightsError(f"{name}: its {CONFIG_NOTE} is no JSON object")
    return parse(values, f"{CONFIG_NOTE} in {name}", known=config_class.known_keys())


def settle(
    checkpoint: Checkpoint,
    options: LoadOptions,
    settings: Mapping[str, Any],
    *,
    wanted: ModelKind,
    config_class: type[ModelConfig],
) -> Settled:
    """Decide the configuration with which a checkpoint is loaded; see `settle_config`."""
    lenient = not options.strict or options.ignore_mismatched_sizes
    given = options.config
    said = getattr(given, "caller_settings", None)  # made by transformers' AutoConfig from this source
    if said is not None and checkpoint.declared is not None:
        given, settings = None, {**said, **settings}
    if isinstance(given, config_class):
        known = config_class.known_keys()
        values = {name: value for name, value in given.to_dict().items() if name in known}
        config = config_class.from_dict(values, **settings)
        config.keep_attributes(given.extra_attributes)
        return Settled(config, (), ())
    if given is not None and not isinstance(given, str | os.PathLike):
        kind = type(given).__name__
        raise ConfigError(f"config is a {kind}: give a {config_class.__name__}, or a folder or file that has one")
    declared = checkpoint.declared
    if given is not None:
        path = Path(given)
        path = path / CONFIG_FILE if path.is_dir() else path
        if not path.is_file():
            raise ConfigError(f"config is {given}: give a {config_class.__name__}, or a folder or file that has one")
        declared = read_declared(path, config_class)
    settled = settle_config(
        declared,
        checkpoint.shapes,
        settings,
        layout=checkpoint.layout,
        wanted=wanted,
        config_class=config_class,
        lenient=lenient,
    )
    if declared is None and checkpoint.is_of_trainer:
        lost = "sizes" if LABEL_SETTINGS & settings.keys() else "class names and sizes"
        text = f"transformers' Trainer saved it without a config.json, so that {lost} are guessed: {TRAINER_HINT}"
        settled = replace(settled, repairs=(*settled.repairs, text))
    settled.config.keep_attributes({} if declared is None else declared.extra)
    return settled


def _without_values(cls: type[Model], config: ModelConfig) -> tuple[Model, list[warnings.WarningMessage]]:
    """Build a model on the meta device, and keep what that warns of until the model is handed out."""
    with warnings.catch_warnings(record=True) as caught, torch.device("meta"):
        warnings.simplefilter("always")
        return cls(config), caught


def _rules(
    checkpoint: Checkpoint, settled: Settled, options: LoadOptions, settings: Mapping[str, Any], *, whole: bool
) -> FitRules:
    shape = checkpoint.shapes.get(PROJECTION)
    old, new = (0 if shape is None or shape.dim() != 5 else shape.shape[1]), settled.config.num_channels
    chosen = (whole or "num_channels" in settings) and old not in (0, new)
    return FitRules(
        labels_chosen=whole or bool(LABEL_SETTINGS & settings.keys()),
        channels=ChannelChange(old, new, options.adapt_channels) if chosen else None,
        pooling_chosen=whole or "use_mean_pooling" in settings,
        head_rows=options.head_rows,
        fresh_head=options.fresh_head,
        replace_mismatched=options.ignore_mismatched_sizes,
    )


def _report(checkpoint: Checkpoint, settled: Settled, fit: Fit) -> LoadReport:
    unexpected = (*fit.unexpected, *checkpoint.file.others)
    return LoadReport(
        loaded=tuple(fit.taken),
        fresh=(*fit.fresh, *fit.missing),
        unused=(*fit.unused, *unexpected),
        missing=tuple(fit.missing),
        unexpected=unexpected,
        mismatched=tuple(fit.replaced),
        statuses=fit.statuses(checkpoint.layout.names),
        source=checkpoint.source.name,
        layout=checkpoint.describe(),
        repairs=settled.repairs,
        notes=(*checkpoint.source.notes, *settled.notes),
    )


def check_positions(checkpoint: Checkpoint, tables: Sequence[str], *, strict: bool) -> list[str]:
    """Refuse position tables that are not the fixed ones: a model with learned positions is another model.

    Returns:
        Without `strict`, the names of those that would have been refused.
    """
    by_name = {ours: theirs for theirs, ours in checkpoint.layout.names.items()}
    learned = []
    for name in tables:
        table = checkpoint.file.tensors[by_name[name]]
        if table.dim() == 3 and table.shape[0] == 1 and table.is_floating_point():
            ours = sinusoid_table(table.shape[1], table.shape[2])
            if torch.allclose(table.float(), ours, atol=POSITION_TOLERANCE):
                continue
        if strict:
            raise WeightsError(
                f"{name} is not the fixed table of VideoMAE, so its positions were learned: give strict=False to "
                "ignore it"
            )
        learned.append(name)
    return learned


def _dtype(wanted: torch.dtype | str | None, checkpoint: Checkpoint) -> torch.dtype:
    if wanted is None or isinstance(wanted, torch.dtype):
        return wanted or torch.float32
    return checkpoint.shapes[PROJECTION].dtype if wanted == "auto" else DTYPES[wanted.removeprefix("torch.")]


def _fill(model: nn.Module, checkpoint: Checkpoint, plan: Plan[Any], dtype: torch.dtype) -> None:
    """Give a model its values. Every tensor becomes memory of its own, so that the files may change afterwards."""
    sources = {part: theirs for theirs, ours in checkpoint.layout.names.items() for part in parts_of(ours)}
    for name, parameter in list(model.named_parameters()):
        whole = whole_name(name)
        if whole in plan.fit.taken:
            one = {sources[whole]: checkpoint.layout.names[sources[whole]]}
            tensor = assemble(checkpoint.file.tensors, one)[whole]
            adapted = adapt(whole, tensor, parameter.shape, plan.rules)
            value = torch.empty(adapted.shape, dtype=dtype).copy_(adapted)
        else:
            value = parameter.detach().to(dtype)
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, nn.Parameter(value, requires_grad=parameter.requires_grad))


def _warn(plan: Plan[Any], cls: type[nn.Module], ignored: Sequence[str]) -> None:
    report, fresh = plan.report, plan.fit.fresh
    texts = [f"{report.source}: {text}" for text in (*report.repairs, *ignored)]
    if fresh:
        reasons = "; ".join(sorted(set(fresh.values())))
        made = [name for name in report.fresh if name not in report.missing]
        texts.append(
            f"{report.source}: {listed(made)} of {cls.__name__} are randomly initialized ({reasons}): train before "
            "use"
        )
    if report.missing:
        texts.append(f"{report.source}: {listed(report.missing)} are missing in it and randomly initialized")
    ignored_groups = plan.fit.unused_with_warning()
    if ignored_groups:
        groups = "; ".join(f"{listed(names)} ({reason})" for reason, names in ignored_groups.items())
        texts.append(f"{report.source}: these tensors of the file are ignored: {groups}")
    if plan.fit.unexpected:
        texts.append(f"{report.source}: {listed(report.unexpected)} are ignored")
    for text in texts:
        warnings.warn(text, UserWarning, stacklevel=5)  # of whoever calls from_pretrained


def _ignored_keys(checkpoint: Checkpoint, options: LoadOptions) -> list[str]:
    if checkpoint.declared is None or options.config is not None or not checkpoint.declared.ignored:
        return []
    names = ", ".join(checkpoint.declared.ignored)
    return [f"its configuration has entries that mean nothing here: {names}"]


def _moved(model: Model, device_map: Any) -> Model:
    if device_map is None:
        return model
    if isinstance(device_map, Mapping):
        if list(device_map) != [""]:
            raise ConfigError("device_map names several parts: the whole model goes to one device, give that")
        device_map = device_map[""]
    if device_map == "auto":
        device_map = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device_map)
