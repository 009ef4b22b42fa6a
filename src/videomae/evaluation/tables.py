"""The result of an evaluation as tables for spreadsheets: one of the classes, one of the videos."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from videomae.evaluation.results import EvaluationResult

CLASSES_FILE = "classes.csv"
VIDEOS_FILE = "videos.csv"


def classes_csv(result: EvaluationResult) -> str:
    """Return a line for each class, label or value; an empty cell where a figure is not defined."""
    columns, rows = result.metrics.table(result.classes)
    return _csv([column.replace(" ", "_") for column in columns], rows)


def videos_csv(result: EvaluationResult) -> str:
    """Return a line for each video: what is right, what was predicted, and the score of every output."""
    names = result.classes
    scores = [f"score:{name}" for name in names]
    rows: list[tuple[Any, ...]] = []
    if result.problem == "single_label_classification":
        columns = ("path", "group", "label", "prediction", "correct", *scores)
        for row in result.rows:
            right = int(row.prediction == row.label)
            rows.append((row.path, row.group, names[row.label], names[row.prediction], right, *row.probabilities))
    else:
        columns = ("path", "group", *(f"true:{name}" for name in names), *scores)
        rows = [(row.path, row.group, *row.targets, *row.probabilities) for row in result.rows]
    return _csv(columns, rows)


def _csv(columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()
