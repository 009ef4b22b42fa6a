"""What a model is to say of each video: one class, any number of labels, or values. `n` videos, `K` outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videomae.data.configs import ProblemType
from videomae.data.manifest import Manifest, VideoRow
from videomae.errors import ManifestError


@dataclass(frozen=True)
class Targets:
    """What is right for each video of a manifest."""

    problem: ProblemType
    """What the outputs are."""
    names: tuple[str, ...]
    """K names: of the classes, the labels or the values."""
    values: NDArray[np.int64] | NDArray[np.float64]
    """`[n]` int64 class ids in [0, K); or `[n, K]` float64: 0 or 1 for each label, or the values."""


def problem_of(manifest: Manifest, asked: ProblemType | None, columns: Sequence[str] = ()) -> ProblemType:
    """Return what there is to learn from a manifest.

    Args:
        manifest: As it was scanned.
        asked: What the recipe says; None: values where columns of them are named, several labels where a video has
            more than one, else a choice between classes.
        columns: Columns with values.

    Raises:
        ManifestError: If the rows are none of what is asked for.
    """
    if columns or asked == "regression":
        if not columns or asked not in (None, "regression"):
            raise ManifestError(
                f"data.values is {','.join(columns) or 'not given'} and head.problem_type is {asked}: a regression "
                "needs the columns of its values in data.values, and nothing else takes them"
            )
        return "regression"
    if asked == "multi_label_classification":
        return asked
    most = max(manifest.rows, key=lambda row: len(row.labels))
    if len(most.labels) > 1 and asked is None:
        return "multi_label_classification"
    if len(most.labels) > 1:
        raise ManifestError(
            f"{manifest.relative_path(most)} has {len(most.labels)} labels, and a choice between classes takes one "
            "for each video: leave head.problem_type out, or give --head.problem_type multi_label_classification"
        )
    bare = next((row for row in manifest.rows if not labels_of(row)), None)
    if bare is not None:
        raise ManifestError(
            f"{manifest.relative_path(bare)} has no label: fill it in, leave the row out, or where videos may have "
            "none or several give --head.problem_type multi_label_classification"
        )
    return "single_label_classification"


def labels_of(row: VideoRow) -> tuple[int, ...]:
    """Return the class ids of a row: none, one or several."""
    return row.labels if row.label is None else (row.label,)


def read_targets(
    manifest: Manifest, problem: ProblemType, names: Sequence[str], *, ids: Sequence[int | None] | None = None
) -> Targets:
    """Return what is right for each video.

    Args:
        manifest: The videos.
        problem: From `problem_of`.
        names: Of the K outputs; for a regression they are the columns of the values.
        ids: Output of each class of the manifest; None: its own id. None among them: a class of no video.

    Raises:
        ManifestError: If a video has not what the problem needs.
    """
    if problem == "regression":
        return Targets(problem, tuple(names), _values(manifest, names))
    order = list(range(len(manifest.classes))) if ids is None else list(ids)
    if problem == "multi_label_classification":
        found = np.zeros((len(manifest.rows), len(names)))
        for number, row in enumerate(manifest.rows):
            for label in labels_of(row):
                output = order[label]
                assert output is not None  # only of classes of no video
                found[number, output] = 1.0
        return Targets(problem, tuple(names), found)
    one_each = []
    for row in manifest.rows:
        labels = labels_of(row)
        if len(labels) != 1:
            raise ManifestError(
                f"{manifest.relative_path(row)} has {len(labels)} labels, and a choice between classes takes one for "
                "each video: fill it in, or leave the row out"
            )
        one_each.append(order[labels[0]])
    return Targets(problem, tuple(names), np.asarray(one_each, dtype=np.int64))


def _values(manifest: Manifest, columns: Sequence[str]) -> NDArray[np.float64]:
    """Read the values of a regression out of a manifest's further columns, `[n, K]`."""
    rows = []
    for row in manifest.rows:
        texts = dict(row.extra)
        for name in columns:
            if name not in texts:
                found = ", ".join(texts) or "none"
                raise ManifestError(
                    f"{manifest.name} has no column {name} of values (further columns: {found}): add it, or name "
                    "another with --data.values"
                )
        try:
            values = [float(texts[name]) for name in columns]
        except ValueError:
            values = [math.nan]
        if not all(map(math.isfinite, values)):
            told = ", ".join(f"{name} {texts[name]!r}" for name in columns)
            raise ManifestError(
                f"{manifest.relative_path(row)} has {told}: a value is a number; fill it in, or leave the row out"
            )
        rows.append(values)
    return np.array(rows, dtype=np.float64)
