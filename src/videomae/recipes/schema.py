"""What a recipe holds. The parts are owned by the packages below; this file only composes them.

Recipes are read by jsonargparse: from a YAML file or a packaged name, with any field overridden on the command
line. An unknown key or a value of the wrong type is an error that names it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, set_parsing_settings  # type: ignore[attr-defined]

from videomae.data.configs import AugmentConfig, MixConfig
from videomae.engine.configs import LoopConfig, OptimConfig, ParallelConfig, ScheduleConfig
from videomae.errors import ConfigError
from videomae.evaluation.configs import EvaluationConfig, ValidationConfig
from videomae.inference.configs import check_speed
from videomae.masking import MaskConfig
from videomae.model.config import VideoMAEConfig
from videomae.monitor.configs import MonitorConfig
from videomae.recipes.finetune_parts import FinetuneData as FinetuneData
from videomae.recipes.finetune_parts import HeadConfig as HeadConfig
from videomae.recipes.finetune_parts import LoraConfig as LoraConfig
from videomae.video.addresses import video_path
from videomae.video.decoders import DecoderName
from videomae.video.sampling import ClipConfig

RECIPE_FILE = "recipe.yaml"
Preset = Literal["small", "base", "large", "huge", "giant"]
DEFAULT_PRESET: Preset = "base"


@dataclass(frozen=True)
class NetworkConfig:
    """Which model; frames come from the clip, so that the two cannot differ."""

    preset: Preset | None = None
    """Model size, see VideoMAEConfig.preset; null: base, or with init the size of init."""
    image_size: int = 224
    """Frame height and width in pixels."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Other fields of VideoMAEConfig by name; with init, fields that tensors depend on must match init's."""

    def build(self, clip: ClipConfig, **settings: Any) -> VideoMAEConfig:
        """Return the model configuration for clips of this length.

        Raises:
            ConfigError: If an override is unknown, out of range, or one that has its own place in the recipe.
        """
        self.check_overrides(settings)
        return VideoMAEConfig.preset(
            self.preset or DEFAULT_PRESET,
            image_size=self.image_size,
            num_frames=clip.num_frames,
            **self.overrides,
            **settings,
        )

    def check_overrides(self, settings: Iterable[str]) -> None:
        """Refuse an override of a field that has its own place in the recipe, or that the run sets.

        Args:
            settings: Names of the fields that the run sets.

        Raises:
            ConfigError: If there is one.
        """
        owners = dict.fromkeys(settings, "the run") | {
            "image_size": "model.image_size",
            "num_frames": "clip.num_frames",
        }
        for name in self.overrides:
            if name in owners:
                raise ConfigError(f"model.overrides.{name} is set by {owners[name]}: leave it out of the overrides")


@dataclass(frozen=True)
class PretrainData:
    """Where the videos are."""

    train: Path
    """Folder of videos (searched recursively), manifest, single video, URL of any of these, or `procedural:` for
    generated clips."""
    skip: Path | None = None
    """File that lists videos to leave out, one path per line, such as skip.txt from `videomae data check`."""
    decoder: DecoderName = "pyav"
    """Video decoding backend for training; torchcodec and torchcodec-cuda must be installed."""

    def __post_init__(self) -> None:
        """Make an address whole again that a path has lost a slash of."""
        object.__setattr__(self, "train", video_path(self.train))


@dataclass(frozen=True)
class PretrainRecipe:
    """Pre-training run."""

    data: PretrainData
    """Training videos."""
    init: str | None = None
    """Model to start from: folder of a model or run, weights file, or owner/name on the Hub; null: random weights."""
    model: NetworkConfig = field(default_factory=NetworkConfig)
    """Model; with init, preset and overrides must agree with it."""
    decoder_init: Literal["xavier", "lookup"] = "xavier"
    """Decoder initialization if init is null: xavier, as published; lookup attends to nearby visible tokens from the
    start."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    """Frame sampling."""
    mask: MaskConfig = field(default_factory=MaskConfig)
    """Masking."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Cropping and augmentation."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(base_lr=1.5e-4, min_lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05)
    )
    """Optimizer."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(epochs=800, warmup_fraction=0.05))
    """Length of the run and learning rate schedule."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Batch size, device, precision, workers, checkpoints and logging."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """Training on several processes."""
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    """Measurements on held-out videos, in addition to the loss."""


@dataclass(frozen=True)
class FinetuneRecipe:
    """Fine-tuning run."""

    data: FinetuneData
    """Labelled videos."""
    init: str | None = None
    """Model to start from: folder of a model or run, weights file, owner/name on the Hub, or default (the shipped
    model); null: random weights."""
    model: NetworkConfig = field(default_factory=NetworkConfig)
    """Model; with init, preset and overrides must agree with it."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """Classifier settings."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank adapters (LoRA) instead of training all weights; needs videomae[lora]."""
    speed: float = 1.0
    """Factor by which merging similar tokens reduces the operations of a clip in training; 1: no merging."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    """Frame sampling."""
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(crop="resized", flip=True))
    """Cropping and augmentation."""
    mix: MixConfig = field(default_factory=MixConfig)
    """Mixup and CutMix."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(base_lr=1e-3, min_lr=1e-6, betas=(0.9, 0.999), layer_decay=0.75)
    )
    """Optimizer."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(epochs=30, warmup_fraction=0.1))
    """Length of the run and learning rate schedule."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Batch size, device, precision, workers, checkpoints and logging."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """Training on several processes."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """When to evaluate on the validation videos during training; the best weights are then kept."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Evaluation after the last step, on data.test or else on the validation videos."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_speed(self.speed)


Recipe = TypeVar("Recipe", PretrainRecipe, FinetuneRecipe)
FOLDERS: dict[type[Any], str] = {PretrainRecipe: "pretrain", FinetuneRecipe: "finetune"}


def recipe_names(kind: type[Recipe]) -> list[str]:
    """Return the names of the packaged recipes of a kind."""
    folder = files("videomae.recipes") / FOLDERS[kind]
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_path(kind: type[Recipe], name_or_path: str) -> str:
    """Return the file of a packaged recipe, or the path as it is.

    Raises:
        ConfigError: If it is neither a packaged name nor a file.
    """
    if name_or_path in recipe_names(kind):
        return str(files("videomae.recipes") / FOLDERS[kind] / f"{name_or_path}.yaml")
    if not Path(name_or_path).is_file():
        raise ConfigError(
            f"recipe {name_or_path!r} is no file and no packaged recipe: use a YAML file or one of "
            f"{', '.join(recipe_names(kind))}"
        )
    return name_or_path


def recipe_init(kind: type[Recipe], name: str) -> str | None:
    """Return the model that a packaged recipe starts from, None for random weights."""
    content = yaml.safe_load(Path(recipe_path(kind, name)).read_text(encoding="utf-8"))
    init: str | None = content.get("init")
    return init


def recipe_parser(kind: type[Recipe], prog: str) -> ArgumentParser:
    """Return a parser of all the recipe's fields, with `--config` for a file or a packaged name."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog=prog, exit_on_error=False, description=kind.__doc__)
    names = ", ".join(recipe_names(kind))
    parser.add_argument("--config", action=ActionConfigFile, help=f"recipe: a YAML file or one of {names}")
    parser.add_class_arguments(kind)
    return parser


def load_recipe(kind: type[Recipe], config: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        kind: `PretrainRecipe` or `FinetuneRecipe`.
        config: A YAML file or the name of a packaged recipe.
        overrides: Command-line arguments, for example `["--data.train", "videos", "--optim.base_lr", "3e-4"]`.

    Raises:
        ConfigError: If a key is unknown, a value is of the wrong type or out of range, or one is missing.
    """
    parser = recipe_parser(kind, prog="recipe")
    return parse_recipe(kind, parser, ["--config", recipe_path(kind, str(config)), *overrides])[0]


def parse_recipe(kind: type[Recipe], parser: ArgumentParser, arguments: Sequence[str]) -> tuple[Recipe, Any]:
    """Parse command-line arguments; returns the recipe and everything that was parsed, as a namespace.

    Raises:
        ConfigError: As for `load_recipe`.
    """
    try:
        parsed = parser.instantiate(parser.parse_args(list(arguments)))
    except ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    return kind(**{one.name: parsed[one.name] for one in dataclasses.fields(kind)}), parsed


def read_recipe_file(path: Path) -> dict[str, Any]:
    """Read a YAML file as plain values, unchecked.

    Raises:
        ConfigError: If it cannot be read or holds no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"recipe {path} cannot be read ({' '.join(str(error).split())}): fix the file") from None
    if not isinstance(values, dict):
        raise ConfigError(f"recipe {path} holds no settings by name: write them as in a packaged recipe")
    return values


def unknown_fields(kind: type[Any], values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the names in plain values that a recipe, or a part of one, does not have."""
    types = get_type_hints(kind)
    known = {one.name for one in dataclasses.fields(kind)}
    rows = []
    for name, value in values.items():
        if name not in known:
            rows.append(f"{prefix}{name}")
        elif dataclasses.is_dataclass(types[name]) and isinstance(value, Mapping):
            rows += unknown_fields(types[name], value, f"{prefix}{name}.")
    return rows


def recipe_to_yaml(recipe: PretrainRecipe | FinetuneRecipe) -> str:
    """Return the resolved recipe as YAML, every field present; `load_recipe` reads it back equal."""
    text: str = yaml.safe_dump(recipe_to_dict(recipe), sort_keys=False)
    return text


def recipe_to_dict(recipe: PretrainRecipe | FinetuneRecipe) -> dict[str, Any]:
    """Return the recipe as plain JSON values."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(recipe))
    return plain


class Difference(NamedTuple):
    """A setting in which two recipes differ."""

    name: str
    """With the parts that it is in, for example `optim.base_lr`."""
    old: Any
    """Plain value; None where the first recipe has no such setting."""
    new: Any
    """Plain value; None where the second has none."""


def recipe_differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[Difference]:
    """Return the settings in which two plain recipes differ, sorted by name."""
    rows: list[Difference] = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            rows += recipe_differences(before, after, f"{prefix}{name}.")
        elif before != after:
            rows.append(Difference(f"{prefix}{name}", before, after))
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
