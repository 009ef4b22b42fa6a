"""Which of the classifier's classes a folder of the data means: matched by name, never by order."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import cast, get_args

from videomae.data.configs import ProblemType
from videomae.data.manifest import Manifest
from videomae.data.targets import Targets, labels_of, read_targets
from videomae.errors import ConfigError, ManifestError
from videomae.model.config import VideoMAEConfig


def problem_of_model(config: VideoMAEConfig) -> ProblemType:
    """Return what a model's outputs are.

    Raises:
        ConfigError: If its configuration does not say.
    """
    problem = config.problem_type or ("single_label_classification" if config.num_labels > 1 else None)
    if problem not in get_args(ProblemType):
        raise ConfigError(
            f"the model has {config.num_labels} output(s) and problem type {config.problem_type}, which does not say "
            f"whether they are classes or values: set problem_type in its config.json to one of "
            f"{', '.join(get_args(ProblemType))}"
        )
    return cast(ProblemType, problem)


def model_targets(config: VideoMAEConfig, manifest: Manifest) -> Targets:
    """Return what a model is to say of each video, by the model's own ids.

    Args:
        config: Of the model.
        manifest: Labelled videos; for a regression their further columns have the values, by the outputs' names.

    Raises:
        ConfigError: If the model does not say what its outputs are, or does not know a class of the data.
        ManifestError: If a video has not what the model is to say.
    """
    problem = problem_of_model(config)
    names = tuple(config.id2label[label_id] for label_id in range(config.num_labels))
    if problem == "regression":
        return read_targets(manifest, problem, names)
    used = sorted({label for row in manifest.rows for label in labels_of(row)})
    if problem == "single_label_classification" and not all(labels_of(row) for row in manifest.rows):
        raise ManifestError(
            f"{manifest.name} has videos without a label: give each one, in a folder for each class or in "
            "a manifest, or choose another --split"
        )
    try:
        ids: list[int | None] = [*match_classes(names, manifest.classes)]
    except ConfigError:
        if len(used) == len(manifest.classes):
            raise
        # A folder without videos need not be a class.
        matched = dict(zip(used, match_classes(names, [manifest.classes[label] for label in used]), strict=True))
        ids = [matched.get(label) for label in range(len(manifest.classes))]
    return read_targets(manifest, problem, names, ids=ids)


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
