"""Manifest files: CSV or Parquet with a row for each video. `labels.csv` in a folder of videos is one.

The columns with a meaning are `COLUMNS`; others are carried along. Paths are relative to the file's folder, or
absolute, or addresses. A CSV without a first line of names is read as a list, see `data/list_file.py`.
"""

from __future__ import annotations

import csv
import gc
import io
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from videomae.data.list_file import is_list, parse_list
from videomae.data.manifest import Manifest, VideoRow
from videomae.data.remote_folder import content_of, is_remote_file, joined, opened_text
from videomae.errors import ManifestError
from videomae.video.addresses import is_remote, video_path
from videomae.video.opening import is_there, split_part
from videomae.wording import counted

LABELS_FILE = "labels.csv"
MANIFEST_SUFFIXES = (".csv", ".parquet")
PATH, LABEL, LABELS, START, END, GROUP, SPLIT = "path", "label", "labels", "start", "end", "group", "split"
COLUMNS = (PATH, LABEL, LABELS, START, END, GROUP, SPLIT)
PATH_NAMES = (PATH, "filepath", "file_path", "file_name", "filename", "video_path")
"""Names of the column of paths; the first that there is counts."""
SPLITS = ("train", "val", "test")
SEPARATOR = ";"
"""Between the labels of a video that has several."""
CLASSES_KEY = b"videomae.classes"
"""Key in the metadata of a Parquet file's schema: the class names in label order, a JSON list."""
LISTED_FROM = 16  # videos of a folder that are looked up in its listing and not one by one
CLASSES_SUFFIX = ".classes.txt"
"""What stands for the suffix of a manifest file in the name of its list of classes, a line for each."""


class TableRow(NamedTuple):
    """A row of a file."""

    number: int
    """Its line in a CSV file, its row in a Parquet file, from 1, for messages."""
    values: dict[str, str]
    """Text by column, without space around it; empty where nothing stands."""


class Table(NamedTuple):
    """A file as it is written."""

    path: Path
    """The file."""
    columns: tuple[str, ...]
    """Names of the columns."""
    rows: list[TableRow]
    """The rows in the order of the file."""
    classes: tuple[str, ...] | None
    """Class names in label order, where the file or the list beside it says so."""

    def place(self, row: TableRow) -> str:
        """Return what to call a row in messages."""
        return f"{self.path}, {'row' if self.path.suffix.lower() == '.parquet' else 'line'} {row.number},"


def is_manifest_file(path: Path) -> bool:
    """Tell whether a path is that of a manifest file, by its suffix."""
    return path.suffix.lower() in MANIFEST_SUFFIXES and (is_remote(path) or path.is_file())


@contextmanager
def _few_collections() -> Iterator[None]:
    """Spare the garbage collector millions of new objects, of which none is garbage: a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_few_collections()
def read_manifest(path: Path, *, labelled: bool, several: bool = False, check_files: bool = True) -> Manifest:
    """Read a manifest file; its rows are put into the order of their paths.

    Class ids follow the file's list of classes, else the alphabetical order of the names, or of whole numbers their
    own order.

    Args:
        path: The file, or its address.
        labelled: Whether every row must have one label, but for those of the split test, and a value in each of the
            columns group and split that there are.
        several: Whether labelled rows may have any number of labels in a column of them, none among them.
        check_files: Whether the videos must be there.

    Raises:
        ManifestError: If the file cannot be read, has no column of paths or no row, or one of its rows is at fault.
    """
    path = video_path(path)
    table = read_table(path)
    path_column = next((name for name in PATH_NAMES if name in table.columns), None)
    if path_column is None or (labelled and not {LABEL, LABELS} & set(table.columns)):
        hint = "; a file of this name stands for its folder: rename it if it is another list"
        raise ManifestError(
            f"{path} has no column {LABEL if path_column else PATH}: its first line names the columns, such as "
            f"path,label,group{hint if path.name == LABELS_FILE else ''}"
        )
    if not table.rows:
        raise ManifestError(f"{path} has no row: give one for each video")
    if {LABEL, LABELS} <= set(table.columns):
        raise ManifestError(f"{path} has the columns {LABEL} and {LABELS}: leave one out")
    one_each = labelled and not (several and LABELS in table.columns)
    names = [_label_names(table, row, one_each=one_each) for row in table.rows]
    classes, ids = _classes(table, {name for own in names for name in own})
    is_several = any(len(own) != 1 for own in names) and LABELS in table.columns
    folder = path.expanduser().parent
    needed = (path_column, *(name for name in (GROUP, SPLIT) if labelled and name in table.columns))
    carried = [name for name in table.columns if name not in COLUMNS and name != path_column]
    has_times = bool({START, END} & set(table.columns))
    manifest = Manifest(folder, (), classes, path)
    rows: dict[str, VideoRow] = {}
    folders: dict[str, Path] = {}  # one path for each, which a path of a whole text would take apart again
    for row, own in zip(table.rows, names, strict=True):
        _check_row(table, row, needed)
        values = row.values
        labels = tuple(ids[name] for name in own)
        text = values[path_column]
        is_plain = _is_plain(text)
        if is_plain:
            inner, _, file = text.rpartition("/")
            if inner not in folders:
                folders[inner] = folder / inner
            video = folders[inner].joinpath(file)
        else:
            video = joined(folder, text)
        start, end = _times(table, row) if has_times else (None, None)
        if start is None and end is None and "#t=" in text:
            video, start, end = split_part(video)
        found = VideoRow(
            video,
            labels[0] if labels and not is_several else None,
            labels if is_several else (),
            start,
            end,
            values.get(GROUP) or None,
            values.get(SPLIT) or None,
            tuple((name, values[name]) for name in carried) if carried else (),
        )
        name = text if start is None and end is None and is_plain else manifest.relative_path(found)
        if name in rows:
            raise ManifestError(f"{path} has {name} more than once: leave one row for each video")
        rows[name] = found
    if check_files:
        _check_files(manifest, rows)
    return manifest.with_rows(rows[name] for name in sorted(rows))


def read_table(path: Path) -> Table:
    """Read a file as text by column.

    Raises:
        ManifestError: If it cannot be read as CSV or Parquet.
    """
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)


def ordered_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Return labels in the order that they have without a list of classes: that of letters, or of whole numbers."""
    used = set(names)
    are_numbers = all(name.isascii() and name.isdigit() for name in used)
    return tuple(sorted(used, key=int) if are_numbers else sorted(used))


def parse_seconds(text: str) -> float | None:
    """Return a time in seconds, None for empty text.

    Raises:
        ValueError: If it is no number of seconds, or below 0.
    """
    if not text:
        return None
    seconds = float(text)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(text)
    return seconds


def _read_csv(path: Path) -> Table:
    """Read UTF-8 text, with or without the mark at the beginning that spreadsheets write."""
    try:
        with opened_text(path) as stream:
            first = next((line for line in stream if line.strip()), "")
            names = [name.strip() for name in next(csv.reader([first]), [])]
            stream.seek(0)
            if not set(PATH_NAMES) & set(names) and is_list(first):
                return _table_of_list(path, stream.read().splitlines())
            reader = csv.reader(stream)
            next((row for row in reader if row), None)  # the names
            rows = []
            for values in reader:
                if len(values) > len(names):
                    raise ManifestError(
                        f"{path}, line {reader.line_num}, has {len(values)} values for {len(names)} columns: put "
                        "quotes around text with commas"
                    )
                if values:
                    values += [""] * (len(names) - len(values))
                    rows.append(TableRow(reader.line_num, dict(zip(names, map(str.strip, values), strict=True))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path} cannot be read as CSV ({error}): write it as UTF-8 text with commas") from None
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise ManifestError(f"{path} has the column {twice[0]} twice: rename one")
    return Table(path, tuple(names), rows, _classes_beside(path))


def _table_of_list(path: Path, lines: Sequence[str]) -> Table:
    rows, found = [], parse_list(lines)
    columns = (PATH, *((LABEL,) if any(row.label for row in found) else ()))
    for row in found:
        values = {PATH: row.path, LABEL: row.label}
        rows.append(TableRow(row.line, {name: values[name] for name in columns}))
    return Table(path, columns, rows, _classes_beside(path))


def _read_parquet(path: Path) -> Table:
    pyarrow, parquet = parquet_modules(path)
    try:
        table = parquet.read_table(io.BytesIO(content_of(path)) if is_remote(path) else path)
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise ManifestError(f"{path} cannot be read as Parquet ({reason}): write it again") from None
    columns = {name: [_text(value) for value in table[name].to_pylist()] for name in table.column_names}
    names = tuple(columns)
    rows = [
        TableRow(number, dict(zip(names, values, strict=True)))
        for number, values in enumerate(zip(*columns.values(), strict=True), start=1)
    ]
    stored = (table.schema.metadata or {}).get(CLASSES_KEY)
    if stored is None:
        return Table(path, names, rows, _classes_beside(path))
    try:
        classes = json.loads(stored)
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("no list of names")
    except ValueError:
        key = CLASSES_KEY.decode()
        raise ManifestError(f"{path} has metadata {key} that is no JSON list of class names: fix it") from None
    return Table(path, names, rows, tuple(classes))


def parquet_modules(path: Path) -> tuple[Any, Any]:
    """Import pyarrow and its Parquet module for a file.

    Raises:
        ManifestError: If pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ManifestError(
            f"{path} is a Parquet file, and pyarrow is not installed: pip install pyarrow, or use CSV"
        ) from None
    return pyarrow, pyarrow.parquet


def _text(value: Any) -> str:
    """Return a value of a Parquet column as a CSV file would have it."""
    if value is None:
        return ""
    if isinstance(value, list):
        return SEPARATOR.join(_text(one) for one in value)
    return str(value).strip()


def _classes_beside(path: Path) -> tuple[str, ...] | None:
    beside = path.with_name(path.stem + CLASSES_SUFFIX)
    if not (is_remote_file(beside) if is_remote(beside) else beside.is_file()):
        return None
    try:
        with opened_text(beside) as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{beside} cannot be read ({error}): write one class name a line, as UTF-8 text"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())


def _label_names(table: Table, row: TableRow, *, one_each: bool) -> list[str]:
    """Return the labels of a row, as they are written."""
    if LABELS in table.columns:
        names = [name.strip() for name in row.values[LABELS].split(SEPARATOR) if name.strip()]
    else:
        names = [row.values[LABEL]] if row.values.get(LABEL) else []
    if one_each and not names and row.values.get(SPLIT) != "test":
        raise ManifestError(f"{table.place(row)} has no label: fill it in, or leave the row out")
    if one_each and len(names) > 1:
        raise ManifestError(
            f"{table.place(row)} has {len(names)} labels, {SEPARATOR.join(names)}: here one is taken for "
            "each video; finetune and evaluate take several, see docs/evaluation.md"
        )
    return names


def _classes(table: Table, used: set[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the class names in label order, and the class id of each label that is used."""
    are_numbers = all(name.isascii() and name.isdigit() for name in used)
    if table.classes is None:
        ordered = ordered_labels(used)
        return ordered, {name: number for number, name in enumerate(ordered)}
    twice = [name for name in table.classes if table.classes.count(name) > 1]
    if twice:
        raise ManifestError(f"the list of classes of {table.path} has {twice[0]} more than once: leave one")
    ids = {name: number for number, name in enumerate(table.classes)}
    unknown = sorted(used - ids.keys())
    if unknown and are_numbers and max(map(int, used)) < len(ids):
        return table.classes, {name: int(name) for name in used}
    if unknown:
        raise ManifestError(
            f"{table.path} has the label {unknown[0]}, which is not in its list of {len(ids)} classes: add it there, "
            "or correct the row"
        )
    return table.classes, ids


def _check_row(table: Table, row: TableRow, needed: Iterable[str]) -> None:
    for name in needed:
        if not row.values[name]:
            raise ManifestError(f"{table.place(row)} has no {name}: fill it in, or leave the row out")
    split = row.values.get(SPLIT)
    if split and split not in SPLITS:
        raise ManifestError(f"{table.place(row)} has the split {split!r}: it is one of {', '.join(SPLITS)}")


def _times(table: Table, row: TableRow) -> tuple[float | None, float | None]:
    texts = [row.values.get(name, "") for name in (START, END)]
    try:
        start, end = (parse_seconds(text) for text in texts)
    except ValueError:
        raise ManifestError(
            f"{table.place(row)} has {START} {texts[0]!r} and {END} {texts[1]!r}: they are seconds, at least 0, or "
            "empty"
        ) from None
    if start is not None and end is not None and end <= start:
        raise ManifestError(f"{table.place(row)} ends at {end:g} s and starts at {start:g} s: end is after start")
    return start, end


def _is_plain(text: str) -> bool:
    """Tell whether a relative path is its own name: quicker than making a path of it and text of that."""
    return text[0] not in "/.~" and "\\" not in text and "//" not in text and "/." not in text and text[-1] != "/"


def _check_files(manifest: Manifest, rows: Mapping[str, VideoRow]) -> None:
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in rows:
        by_folder[name.rpartition("/")[0]].append(name)
    missing: list[str] = []
    for folder, names in by_folder.items():
        # Many files are looked up in one listing: a question for each takes long where the disk is far away.
        listed = _plain_entries(manifest.root / folder) if len(names) >= LISTED_FROM else set()
        there = {f"{folder}/{name}" for name in listed} if folder else listed
        missing += [name for name in names if name not in there and not is_there(rows[name].path)]
    if missing:
        raise ManifestError(
            f"{manifest.file} names {counted(len(missing), 'missing video')}, first {min(missing)}: paths are "
            f"relative to {manifest.root}"
        )


def _plain_entries(folder: Path) -> set[str]:
    """Return the names in a folder but for links, which may lead nowhere; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if not entry.is_symlink()}
    except OSError:
        return set()
