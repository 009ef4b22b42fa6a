"""The arguments of a training command before they are parsed: which videos, and which recipe where none is named.

Works on lists of strings, so that jsonargparse sees nothing but options.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from videomae.errors import ConfigError
from videomae.recipes.choice import choice_line, choose_recipe
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, recipe_init, recipe_path
from videomae.weights.shipped import DEFAULT_MODEL, unnamed_model

# Options that take no value; every other one takes the next argument, or stands before an equals sign.
FLAGS = frozenset({"-h", "--help", "--overwrite", "--resume", "--dry-run", "--print_config"})
# What a chosen recipe says of the model is only right as a whole.
WHOLE_MODEL = ("--model", "--model.preset")


def with_videos(arguments: Sequence[str]) -> list[str]:
    """Replace the folder that stands alone by `--data.train FOLDER`.

    Raises:
        ConfigError: If more than one argument stands alone, or `--data.train` is given too.
    """
    found, options = [], []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            found.append(argument)
            continue
        options.append(argument)
        if argument not in FLAGS and "=" not in argument:
            options += [value for value in [next(rest, None)] if value is not None]
    if len(found) > 1:
        raise ConfigError(
            f"{' and '.join(found)} are given as videos, but one folder is taken: put the videos into one folder, "
            "links will do; values of options follow their --name"
        )
    given = value_of("--data.train", options)
    if found and given is not None:
        raise ConfigError(f"the videos are given twice, as {found[0]} and as --data.train {given}: leave one out")
    return [*(["--data.train", found[0]] if found else []), *options]


def with_recipe_file(kind: type[Any], arguments: Sequence[str]) -> list[str]:
    """Replace the name after `--config` by the file that it means.

    Raises:
        ConfigError: If it is neither a packaged recipe nor a file.
    """
    replaced = list(arguments)
    for position, argument in enumerate(arguments):
        if argument == "--config" and position + 1 < len(arguments):
            replaced[position + 1] = recipe_path(kind, arguments[position + 1])
        elif argument.startswith("--config="):
            replaced[position] = f"--config={recipe_path(kind, argument.removeprefix('--config='))}"
    return replaced


def needs_shipped_model(kind: type[Any], arguments: Sequence[str]) -> bool:
    """Tell whether arguments without a recipe leave open what to fine-tune: the shipped model is taken then.

    `--init null` does not leave it open; it asks for random weights.
    """
    given = (value_of("--init", arguments), *(value_of(option, arguments) for option in WHOLE_MODEL))
    return kind is FinetuneRecipe and not any(given) and value_of("--data.train", arguments) is not None


def check_model_option(arguments: Sequence[str]) -> None:
    """Refuse the name of a model after `--model`, which in training holds sizes.

    Raises:
        ConfigError: If there is one.
    """
    value = value_of("--model", arguments)
    if value is not None and not value.lstrip().startswith("{") and not value.endswith((".yaml", ".yml", ".json")):
        raise ConfigError(
            f"--model is {value!r}, but in training it holds the sizes of a model: the model to start from is "
            f"--init {value}"
        )


def chosen_recipe(kind: type[Any], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Choose a recipe for arguments that name none.

    Args:
        kind: `PretrainRecipe` or `FinetuneRecipe`.
        arguments: With `--data.train`; without it nothing is chosen, and the parser will miss it.

    Returns:
        Arguments to put before the others, which win over them; and lines that tell what was chosen and why.

    Raises:
        ConfigError: If the arguments say in part what a recipe must say as a whole.
        VideoMAEError: If the videos or the model to start from cannot be used.
    """
    videos = value_of("--data.train", arguments)
    if videos is None:
        return [], []
    for option in WHOLE_MODEL:
        if value_of(option, arguments) is not None:
            raise ConfigError(
                f"{option} is given without --config: the recipe that would be chosen has a model of its own size; "
                "name the recipe whose model is to be replaced, such as --config kinetics400_small"
            )
    # Here, because --help must not wait for torch.
    from videomae.data.scan import scan_labelled, scan_unlabelled
    from videomae.data.splits import training_rows
    from videomae.engine.precision import pick_device
    from videomae.sharing.shipped import shipped_line

    if kind is PretrainRecipe:
        whole = scan_unlabelled(videos)
    else:
        whole = scan_labelled(videos, several=True, values=value_of("--data.values", arguments) is not None)
    num_videos = len(training_rows(whole).rows)
    device: Any = value_of("--loop.device", arguments) or "auto"
    name = pick_device(device).type
    choice = choose_recipe(name, num_videos=num_videos)
    lines = [choice_line(kind, choice, name, num_videos=num_videos)]
    before = ["--config", recipe_path(kind, choice.recipe)]
    init = value_of("--init", arguments)
    if init is None and recipe_init(kind, choice.recipe) == DEFAULT_MODEL:
        before += ["--init", unnamed_model()]
        lines.append(shipped_line("--init"))
    if init is not None and init != "null":
        before += _model_and_clip_of(init)
        lines.append(f"model, image size and clip: those of {init}, not the recipe's")
    return before, lines


def value_of(option: str, arguments: Sequence[str]) -> str | None:
    """Return the last value of an option, None where it is not given."""
    value = None
    for position, argument in enumerate(arguments):
        if argument == option and position + 1 < len(arguments):
            value = arguments[position + 1]
        elif argument.startswith(f"{option}="):
            value = argument.removeprefix(f"{option}=")
    return value


def _model_and_clip_of(init: str) -> list[str]:
    """Return the options that leave the model to init and take its image size and frame sampling."""
    from videomae.inference.loaded import load_encoder

    loaded = load_encoder(init, device="cpu")
    options = ["--model.preset", "null", "--model.overrides", "{}"]
    if isinstance(loaded.model.config.image_size, int):
        options += ["--model.image_size", str(loaded.model.config.image_size)]
    for name, value in dataclasses.asdict(loaded.clip).items():
        options += [f"--clip.{name}", "null" if value is None else str(value)]
    return options
