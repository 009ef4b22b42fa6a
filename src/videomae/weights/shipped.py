"""The model that ships with the package, found by the name `default` wherever a model is taken."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from videomae.errors import WeightsError

DEFAULT_MODEL = "default"
_FOLDER = "procedural-small"  # in videomae/assets


def shipped_folder() -> Path:
    """Return the model folder of the shipped model."""
    return Path(str(files("videomae") / "assets" / _FOLDER))


def resolved(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the shipped model's folder for the text `default`, and any other source as it is.

    A path object is always a path, `Path("default")` too.

    Raises:
        WeightsError: If the working folder has a file or folder of this name, so that either could be meant.
    """
    if source != DEFAULT_MODEL:  # a path object is equal to no text
        return source
    if Path(DEFAULT_MODEL).exists():
        raise WeightsError(
            f"{DEFAULT_MODEL!r} is the model that ships with videomae and also {Path(DEFAULT_MODEL).resolve()}: "
            f"write ./{DEFAULT_MODEL} for what lies there, or {shipped_folder()} for the shipped one"
        )
    return shipped_folder()


def unnamed_model() -> str:
    """Return what to load where no model was named: `default`, or its folder where that text would be ambiguous."""
    return str(shipped_folder()) if Path(DEFAULT_MODEL).exists() else DEFAULT_MODEL
