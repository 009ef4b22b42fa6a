"""Which of the classifier's classes a folder of the data means: matched by name, never by order."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from videomae.data.manifest import Manifest
from videomae.errors import ConfigError, ManifestError
from videomae.model.config import VideoMAEConfig


def names_and_labels(config: VideoMAEConfig, manifest: Manifest) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the classifier's class names, and each video's true class by the classifier's ids.

    Args:
        config: Of the classifier.
        manifest: Labelled videos.

    Returns:
        K names, and labels `[n]` int64 in [0, K).

    Raises:
        ConfigError: If the model does not choose between classes, or does not know one of the data.
        ManifestError: If a video has no label.
    """
    if config.num_labels < 2 or config.problem_type not in (None, "single_label_classification"):
        raise ConfigError(
            f"the model has {config.num_labels} output(s) and problem type {config.problem_type}; only a choice "
            "between classes can be evaluated: for scores to compare with other labels use videomae predict "
            "--json or Predictor"
        )
    names = tuple(config.id2label[label_id] for label_id in range(config.num_labels))
    labels = [row.label for row in manifest.rows if row.label is not None]
    if len(labels) < len(manifest.rows):
        raise ManifestError(
            f"{manifest.name} has videos without a label: give each one, in a folder for each class or in "
            "a manifest, or choose another --split"
        )
    used = sorted(set(labels))
    try:
        ids = dict(enumerate(match_classes(names, manifest.classes)))
    except ConfigError:
        if len(used) == len(manifest.classes):
            raise
        # A folder without videos need not be a class.
        ids = dict(zip(used, match_classes(names, [manifest.classes[label] for label in used]), strict=True))
    return names, np.asarray([ids[label] for label in labels], dtype=np.int64)


def match_classes(model_classes: Sequence[str], data_classes: Sequence[str]) -> tuple[int, ...]:
    """Find the classifier's id of each class of the data, by name: their alphabetical orders may differ.

    Names are compared without regard to case and to underscores for spaces, unless that makes two of them alike. A
    classifier that was saved without names (LABEL_0, ...) is taken by order, with a warning, if there are as
    many classes in both.

    Args:
        model_classes: K names, by the classifier's ids.
        data_classes: Names of some or all of them, in the data's order.

    Returns:
        The classifier's id of each of `data_classes`.

    Raises:
        ConfigError: If the classifier does not know a class.
    """
    nameless = [f"LABEL_{number}" for number in range(len(model_classes))]
    if list(model_classes) == nameless != list(data_classes) and len(data_classes) == len(nameless):
        warnings.warn(
            f"the classifier's classes have no names; its {len(nameless)} class ids are taken to be those of the "
            f"folders in alphabetical order, from {data_classes[0]} to {data_classes[-1]}",
            UserWarning,
            stacklevel=2,
        )
        return tuple(range(len(nameless)))
    for same in (str, _folded):
        numbers = {same(name): number for number, name in enumerate(model_classes)}
        if len(numbers) == len(model_classes) and all(same(name) in numbers for name in data_classes):
            found = tuple(numbers[same(name)] for name in data_classes)
            if len(set(found)) == len(found):
                return found
    unknown = [name for name in data_classes if name not in model_classes]
    raise ConfigError(
        f"the data has the classes {_listed(unknown)}, which are not among the classifier's {len(model_classes)} "
        f"({_listed(model_classes)}): name the folders as the classifier does"
    )


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _listed(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
