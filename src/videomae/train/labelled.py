"""The labelled videos of a fine-tuning run: which are for what, and what is right for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from videomae.data.augment import directed_classes
from videomae.data.balance import loss_weights
from videomae.data.configs import ProblemType
from videomae.data.manifest import Manifest
from videomae.data.mix import Mixing
from videomae.data.scan import scan_labelled
from videomae.data.skip_list import without_skipped
from videomae.data.splits import (
    check_apart,
    measured_rows,
    not_used_lines,
    train_and_val,
    training_rows,
)
from videomae.data.targets import Targets, labels_of, problem_of, read_targets
from videomae.errors import ConfigError, ManifestError
from videomae.probing.folds import group_folds
from videomae.recipes.schema import FinetuneRecipe
from videomae.train.resume import saved_recipe

MAX_CLASSES = 8  # named in a line


@dataclass(frozen=True)
class Labelled:
    """The videos of a run."""

    train: Manifest
    """Trained on."""
    val: Manifest
    """Evaluated during training, and by which thresholds are chosen."""
    test: Manifest | None
    """Evaluated after the last step; None: `val` is."""
    targets: Targets
    """What is right for each video of `train`."""

    @property
    def problem(self) -> ProblemType:
        """What the outputs are."""
        return self.targets.problem

    @property
    def names(self) -> tuple[str, ...]:
        """K names of the outputs."""
        return self.targets.names


def labelled_videos(recipe: FinetuneRecipe) -> Labelled:
    """Return the videos of a run, and what there is to learn from them.

    Raises:
        ManifestError: If a folder or manifest cannot be used, or a video has not what is to be learnt.
        ConfigError: If the validation videos have a class that the training videos lack, or settings contradict what
            there is to learn.
    """
    whole, *given = _scanned(recipe)
    train, val = _divided(recipe, whole, given[0] if recipe.data.val is not None else None)
    columns = recipe.data.columns
    problem = problem_of(train, recipe.head.problem_type, columns)
    names = columns if problem == "regression" else train.classes
    targets = read_targets(train, problem, names)
    read_targets(val, problem, names)  # what is wrong with one is found before training
    if problem != "single_label_classification" and recipe.data.sampling == "balanced":
        raise ConfigError(
            f"data.sampling is balanced, and the videos have {problem.replace('_', ' ')} labels, not one class each: "
            "use all"
        )
    if problem == "regression" and recipe.head.class_weights != "none":
        raise ConfigError("head.class_weights is balanced, but values have no classes: use none")
    test = None
    if recipe.data.test is not None:
        test = measured_rows(given[-1], first="test")
        check_apart(train, test)
        _check_classes(train, test, "data.test")
    return Labelled(train, val, test, targets)


def problem_lines(targets: Targets) -> list[str]:
    """Tell what is learnt where it is not one class for each video."""
    if targets.problem == "multi_label_classification":
        mean = float(targets.values.sum(axis=1).mean())
        return [f"labels: {len(targets.names)}, {mean:.2f} a video in the mean; binary cross entropy"]
    if targets.problem == "regression":
        rows = zip(targets.names, targets.values.mean(axis=0), targets.values.std(axis=0), strict=True)
        told = "; ".join(f"{name} {mean:.4g} (std {std:.4g})" for name, mean, std in rows)
        return [f"values: {told} in the mean; squared error of standardized values"]
    return []


def mixing_of(recipe: FinetuneRecipe, targets: Targets, device: torch.device) -> Mixing:
    """Return what mixes the clips of a run and computes its loss."""
    weights = loss_weights(targets) if recipe.head.class_weights == "balanced" else None
    return Mixing(
        recipe.mix,
        seed=recipe.loop.seed,
        num_classes=len(targets.names),
        label_smoothing=recipe.head.label_smoothing,
        problem=targets.problem,
        weights=None if weights is None else torch.from_numpy(weights).to(device),
    )


def training_and_validation(recipe: FinetuneRecipe) -> tuple[Manifest, Manifest]:
    """Return the two sets of videos.

    Raises:
        ManifestError: If a folder cannot be used.
        ConfigError: If the validation folder has videos of a class that the training folder lacks.
    """
    whole, *given = _scanned(recipe)
    return _divided(recipe, whole, given[0] if recipe.data.val is not None else None)


def _scanned(recipe: FinetuneRecipe) -> list[Manifest]:
    """Return the videos of `data.train`, and of `data.val` and `data.test` where given, without skipped ones."""
    data = recipe.data
    others = [one for one in (data.val, data.test) if one is not None]
    scanned = [_scan(recipe, data.train), *(_scan(recipe, one, subset=True) for one in others)]
    return without_skipped(scanned, data.skip)


def _divided(recipe: FinetuneRecipe, whole: Manifest, given: Manifest | None) -> tuple[Manifest, Manifest]:
    data = recipe.data
    if data.folds is not None:
        return fold_of(whole, folds=data.folds, fold=data.fold or 1, seed=recipe.loop.seed)
    if given is None:
        train, val = train_and_val(whole, val_fraction=data.val_fraction)
        for line in not_used_lines(whole, train, val):
            print(line)
        return train, val
    train = training_rows(whole)
    val = measured_rows(given, first="val")
    check_apart(train, val)
    _check_classes(train, val, "data.val")
    return train, val


def fold_of(whole: Manifest, *, folds: int, fold: int, seed: int) -> tuple[Manifest, Manifest]:
    """Divide a data set into what one of several models is trained on and what it is validated on.

    The rows of the split test are in neither; splits train and val are not told apart.

    Args:
        whole: All videos.
        folds: How many models there are; each video is validated by one of them.
        fold: Which one, from 1.
        seed: Of the order of the groups.

    Raises:
        ManifestError: If there are fewer groups than folds.

    Source: scikit-learn's StratifiedGroupKFold: groups whole, classes as even as they allow.
    """
    rows = [row for row in whole.rows if row.split != "test"]
    names = {name: number for number, name in enumerate(dict.fromkeys(row.group or str(row.path) for row in rows))}
    groups = np.array([names[row.group or str(row.path)] for row in rows], dtype=np.int64)
    # Of several labels the first decides, and values divide nothing.
    labels = np.array([next(iter(labels_of(row)), len(whole.classes)) for row in rows], dtype=np.int64)
    divisions = list(group_folds(labels, groups, folds=folds, seed=seed))
    if len(divisions) != folds:
        raise ManifestError(
            f"{whole.name} has {len(names)} groups, which can be divided into {len(divisions)} folds, and data.folds "
            f"is {folds}: use fewer folds, or add recordings"
        )
    train, test = divisions[fold - 1]
    return whole.with_rows(rows[row] for row in train), whole.with_rows(rows[row] for row in test)


def settle_flip(recipe: FinetuneRecipe, classes: Sequence[str], *, out: Path, resume: bool) -> FinetuneRecipe:
    """Switch the flip off, and say so, where a mirrored clip would be of another class.

    A resumed run keeps what it has done, also where a version without this rule has started it.
    """
    directed = directed_classes(classes)
    if not (recipe.augment.flip and directed) or (resume and saved_recipe(FinetuneRecipe, out).augment.flip):
        return recipe
    if not resume:
        others = f" and {len(directed) - MAX_CLASSES} others" if len(directed) > MAX_CLASSES else ""
        print(
            f"augment.flip is switched off: a mirrored clip of {', '.join(directed[:MAX_CLASSES])}{others} would be "
            "of another class; rename the classes to flip all the same"
        )
    return replace(recipe, augment=replace(recipe.augment, flip=False))


def _scan(recipe: FinetuneRecipe, root: Path, *, subset: bool = False) -> Manifest:
    return scan_labelled(root, subset=subset, several=True, values=bool(recipe.data.columns))


def _check_classes(train: Manifest, other: Manifest, name: str) -> None:
    used = {other.classes[label] for row in other.rows for label in labels_of(row)}
    if not used.issubset(train.classes):
        raise ConfigError(
            f"{name} has the classes {', '.join(other.classes)} and data.train {', '.join(train.classes)}: "
            f"name the folders alike; {name} may lack some, and have no other"
        )
