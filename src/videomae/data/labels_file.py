"""`labels.csv` of a folder of videos: a line for each, with its class, its recording and its part of the data set."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from videomae.errors import ManifestError

LABELS_FILE = "labels.csv"
PATH, LABEL, GROUP, SPLIT = "path", "label", "group", "split"
COLUMNS = (PATH, LABEL, GROUP, SPLIT)


class LabelsRow(NamedTuple):
    """A line of the file."""

    line: int
    """Its number, from 1, for messages."""
    values: dict[str, str]
    """Text of each known column, without space around it; empty where nothing stands."""


def read_labels_file(path: Path) -> tuple[tuple[str, ...], list[LabelsRow]]:
    """Read the columns that have a meaning; others are ignored.

    UTF-8, with or without the mark at the beginning that spreadsheets write.

    Returns:
        The known columns that there are, in the order of `COLUMNS`, and the lines after the first.

    Raises:
        ManifestError: If the file cannot be read as such.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = tuple(name for name in COLUMNS if name in (reader.fieldnames or ()))
            rows = [
                LabelsRow(reader.line_num, {name: (row[name] or "").strip() for name in columns}) for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path} cannot be read as CSV ({error}): write it as UTF-8 text with commas") from None
    return columns, rows
