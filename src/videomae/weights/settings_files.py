"""Where the settings of a processor or of a model are: in a folder, in a file, or in a repository on the Hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from videomae.errors import WeightsError
from videomae.weights.hub import HubOptions, hub_file, is_offline, pinned, split_hub_name
from videomae.weights.shipped import resolved
from videomae.weights.sources import RUN_FOLDER


class SettingsFiles(NamedTuple):
    """Files of a processor or a model, as far as they are there."""

    settings: Path
    """The first of the files that were looked for."""
    companion: Path | None
    """Another file beside it."""


def split_hub_options(arguments: Mapping[str, Any]) -> tuple[HubOptions, dict[str, Any]]:
    """Divide the keyword arguments of a `from_pretrained` into those about the Hub and the rest."""
    names = HubOptions.__dataclass_fields__
    hub = {name: value for name, value in arguments.items() if name in names and value is not None}
    return HubOptions(**hub), {name: value for name, value in arguments.items() if name not in names}


def find_settings(
    source: str | os.PathLike[str], names: Sequence[str], *, hub: HubOptions, companion: str | None = None
) -> SettingsFiles:
    """Find the file that holds the settings of a processor or a model.

    Args:
        source: A model folder, the folder of a finished run, a file of settings, `owner/name` on the Hub, or
            `default`, see `shipped`. What exists here is never looked for on the Hub.
        names: Names of the file in a folder or repository, the best first.
        hub: How a repository is read; `subfolder` holds for folders too.
        companion: Name of another file beside it, which may be missing.

    Raises:
        WeightsError: If there is none, or the Hub cannot be asked.
    """
    source = resolved(source)
    path = Path(source)
    path = path / hub.subfolder if path.is_dir() else path
    repository = split_hub_name(source) if isinstance(source, str) and not path.exists() else None
    if repository is not None and not repository[1]:
        return _on_hub(repository[0], names, hub, companion)
    folders = (path, path / RUN_FOLDER) if path.is_dir() else ()
    candidates = [folder / name for folder in folders for name in names] or [path]
    for candidate in candidates:
        if candidate.is_file():
            beside = None if companion is None else candidate.parent / companion
            return SettingsFiles(candidate, beside if beside is not None and beside.is_file() else None)
    lacking = path / names[-1] if folders else path
    raise WeightsError(f"{lacking} is no file: give a model folder with {' or '.join(names)}, or that file")


def _on_hub(repository: str, names: Sequence[str], hub: HubOptions, companion: str | None) -> SettingsFiles:
    for name in names:
        path = hub_file(repository, name, hub)
        if path is not None:
            beside = None if companion is None else hub_file(repository, companion, pinned(hub, path))
            return SettingsFiles(path, beside)
    where = "the cache, with the Hub switched off," if is_offline(hub) else "the Hub"
    raise WeightsError(f"{repository} has no {' or '.join(names)} in {where} and is no folder here")
