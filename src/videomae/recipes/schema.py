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
    """Size by name, see VideoMAEConfig.preset; null: base, or with init whatever init is."""
    image_size: int = 224
    """Height and width in pixels."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Any other fields of VideoMAEConfig, by name; with init, those that tensors depend on must be init's."""

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
    """A folder of videos of any depth, a manifest file, one video, their address, or `procedural:`, drawn clips."""
    skip: Path | None = None
    """A list of videos to leave out, one path a line, such as skip.txt of `videomae data check`."""
    decoder: DecoderName = "pyav"
    """What decodes the videos that are trained on; torchcodec and torchcodec-cuda have to be installed."""

    def __post_init__(self) -> None:
        """Make an address whole again that a path has lost a slash of."""
        object.__setattr__(self, "train", video_path(self.train))


@dataclass(frozen=True)
class PretrainRecipe:
    """A pre-training run."""

    data: PretrainData
    """Where the videos are."""
    init: str | None = None
    """Model to go on from: folder of a model or run, weights file, or owner/name on the Hub; null: random."""
    model: NetworkConfig = field(default_factory=NetworkConfig)
    """Which model; with init, preset and overrides must agree with what init is."""
    decoder_init: Literal["xavier", "lookup"] = "xavier"
    """Decoder without init: xavier as published; lookup attends to near visible tokens from the start."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    """Which frames of a video."""
    mask: MaskConfig = field(default_factory=MaskConfig)
    """Which tokens are hidden."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Which part of a frame."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(base_lr=1.5e-4, min_lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05)
    )
    """AdamW."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(epochs=800, warmup_fraction=0.05))
    """How long."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Batches, devices, checkpoints."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """How several processes share the work."""
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    """What is measured beside the loss, on videos that are held out."""


@dataclass(frozen=True)
class FinetuneRecipe:
    """A fine-tuning run."""

    data: FinetuneData
    """Where the labelled videos are."""
    init: str | None = None
    """Model to start from: folder of a model or run, weights file, owner/name on the Hub, default; null: random."""
    model: NetworkConfig = field(default_factory=NetworkConfig)
    """Which model; with init, preset and overrides must agree with what init is."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """The classifier's own settings."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters in place of training all weights."""
    speed: float = 1.0
    """How many times fewer operations a clip takes in training, at least 1: blocks merge tokens that are alike."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    """Which frames of a video."""
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(crop="resized", flip=True))
    """Which part of a frame."""
    mix: MixConfig = field(default_factory=MixConfig)
    """Mixup and cutmix."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(base_lr=1e-3, min_lr=1e-6, betas=(0.9, 0.999), layer_decay=0.75)
    )
    """AdamW."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(epochs=30, warmup_fraction=0.1))
    """How long."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Batches, devices, checkpoints."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """How several processes share the work."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """When the validation videos are evaluated during training; the best weights are kept then."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """How the videos of data.test, or the validation videos, are evaluated after the last step."""

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
        raise ConfigError(f"recipe {path} cannot be read ({' '.join(str(error).split())}): mend the file") from None
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
