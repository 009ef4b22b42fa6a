"""What is known of the packaged recipes: what each is for, where it comes from, and where each of its values does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from videomae.errors import ConfigError
from videomae.recipes.schema import FOLDERS, recipe_names, recipe_parser, recipe_path

Origin = Literal["recipe", "default"]
NO_VALUE = "to be given"  # of a field without a default, such as data.train

_ENTRY = re.compile(r"# (What|Command|Source|Result): +(.*)")
_KINDS: dict[str, type[Any]] = {folder: kind for kind, folder in FOLDERS.items()}


@dataclass(frozen=True)
class Packaged:
    """A packaged recipe, by what its file says of it."""

    kind: str
    """pretrain or finetune."""
    name: str
    """What `--config` takes."""
    what: str
    """What it trains, and on what."""
    command: str
    """How it is run, one command a line."""
    source: str
    """Where its values come from."""
    result: str
    """What it reaches: measured here, published, or not known."""


@dataclass(frozen=True)
class ExplainedField:
    """One value of a recipe."""

    name: str
    """With the parts that it is in, such as `optim.base_lr`."""
    value: str
    """As in YAML."""
    origin: Origin
    """Whether the recipe's file says so, or nothing does."""
    meaning: str
    """What it is, with unit and range."""


def packaged_recipes(kind: str | None = None) -> list[Packaged]:
    """Return the packaged recipes of a kind, or of both, sorted by kind and name."""
    chosen = {name: one for name, one in _KINDS.items() if kind in (None, name)}
    return [_read(name, one, recipe) for name, one in chosen.items() for recipe in recipe_names(one)]


def packaged(name: str, kind: str | None = None) -> list[Packaged]:
    """Return the recipes of a name: for pre-training, fine-tuning or both.

    Raises:
        ConfigError: If there is none.
    """
    found = [one for one in packaged_recipes(kind) if one.name == name]
    if not found:
        names = ", ".join(dict.fromkeys(one.name for one in packaged_recipes(kind)))
        of_kind = f" for {kind}" if kind else ""
        raise ConfigError(f"there is no packaged recipe {name!r}{of_kind}: use one of {names}")
    return found


def explained(recipe: Packaged) -> list[ExplainedField]:
    """Return every value of a recipe with its meaning and whether the file or the default says so."""
    kind = _KINDS[recipe.kind]
    said = _flat(yaml.safe_load(Path(recipe_path(kind, recipe.name)).read_text(encoding="utf-8")))
    rows: list[ExplainedField] = []
    for action in recipe_parser(kind, prog=recipe.name)._actions:  # there is no public list of a parser's fields
        name = action.dest
        part = action.help == "Path to a configuration file." or name in ("help", "config", "print_config")
        if part or any(name.startswith(f"{row.name}.") for row in rows):
            continue
        found = [one for one in said if one == name or one.startswith(f"{name}.")]
        value = said[name] if name in said else {one.removeprefix(f"{name}."): said[one] for one in found}
        origin: Origin = "recipe" if found else "default"
        if not found:
            value = NO_VALUE if action.required else action.default
        rows.append(ExplainedField(name, _yaml(value), origin, " ".join(str(action.help).split())))
    return rows


def recipe_text(recipe: Packaged) -> str:
    """Return a recipe's file as it is."""
    return Path(recipe_path(_KINDS[recipe.kind], recipe.name)).read_text(encoding="utf-8").rstrip()


def _read(kind: str, recipe_kind: type[Any], name: str) -> Packaged:
    entries: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in Path(recipe_path(recipe_kind, name)).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        entry = _ENTRY.fullmatch(line)
        if entry is not None:
            lines = entries.setdefault(entry[1], [])
        lines.append(entry[2] if entry is not None else line[1:].strip())
    commands = re.split(r" (?=torchrun )|(?<!-m) (?=videomae )", " ".join(entries["Command"]))
    return Packaged(
        kind,
        name,
        what=" ".join(entries["What"]),
        command="\n".join(commands),
        source=" ".join(entries["Source"]),
        result=" ".join(entries["Result"]),
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name every value by the parts that it is in; an empty mapping is a value."""
    rows: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            rows |= _flat(value, f"{prefix}{name}.")
        else:
            rows[f"{prefix}{name}"] = value
    return rows


def _yaml(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, str):
        return value
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
    return text
