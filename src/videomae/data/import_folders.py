"""Importers of folders, plain lists and tables: what has no data set's own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from videomae.data.configs import ImportConfig
from videomae.data.list_file import ListLine, parse_list
from videomae.data.listed import SPLIT_OF, Collection, ListedVideo, files_of, read_lines
from videomae.data.manifest_file import COLUMNS, GROUP, LABEL, PATH_NAMES, SEPARATOR, SPLIT, read_table
from videomae.data.scan import SPLIT_NAMES, scan_class_folders, scan_unlabelled
from videomae.errors import ManifestError

ONE, ZERO = ("1", "1.0"), ("0", "0.0")


def import_folder(source: Path, config: ImportConfig) -> Collection:
    """List all videos of a folder, without labels."""
    return Collection([ListedVideo(row.path) for row in scan_unlabelled(source).rows])


def import_classes(source: Path, config: ImportConfig) -> Collection:
    """List a folder with a folder for each class, or with such folders named train, val and test."""
    parts = sorted(path for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
    parts = [path for path in parts if not path.name.startswith(".")]
    if not parts or not SPLIT_NAMES.issuperset(path.name.lower() for path in parts):
        parts = [source]
    videos, names = [], set[str]()
    for part in parts:
        split = "" if part is source else SPLIT_OF[part.name.lower()]
        manifest = scan_class_folders(part, subset=part is not source)
        names.update(manifest.classes)
        for row in manifest.rows:
            assert row.label is not None  # every class folder has one
            videos.append(ListedVideo(row.path, (manifest.classes[row.label],), split=split))
    return Collection(videos, tuple(sorted(names)))


def import_videomae(source: Path, config: ImportConfig) -> Collection:
    """Read a list of the original VideoMAE or of V2; see `data/list_file.py`.

    Names of classes come from `config.labels`, a text file with one a line, else the ids stand for them.
    """
    root = config.videos or source.parent
    classes = (
        None if config.labels is None else tuple(line.strip() for line in read_lines(config.labels) if line.strip())
    )
    videos = []
    for row in parse_list(read_lines(source)):
        label = row.label
        if label and classes is not None:
            if int(label) >= len(classes):
                raise ManifestError(
                    f"{source}, line {row.line}, has class id {label}, and {config.labels} names {len(classes)} "
                    "classes: give the list of all classes, the first with id 0"
                )
            label = classes[int(label)]
        extra = (("num_frames", row.num_frames),) if row.num_frames else ()
        videos.append(ListedVideo(_listed_path(root, row, config), (label,) if label else (), extra=extra))
    return Collection(videos, classes)


def import_videofolder(source: Path, config: ImportConfig) -> Collection:
    """Read `metadata.csv` or `metadata.jsonl` of a Hugging Face videofolder, or those in its train, val and test."""
    if source.is_dir():
        folders = [source, *sorted(path for path in source.iterdir() if path.name.lower() in SPLIT_OF)]
        files = [folder / name for folder in folders for name in ("metadata.csv", "metadata.jsonl")]
        files = [path for path in files if path.is_file()]
        if not files:
            raise ManifestError(
                f"{source} has no metadata.csv or metadata.jsonl, nor has a folder train, validation or test in it: "
                "for a folder with a folder for each class use the kind classes"
            )
    else:
        files = files_of(source, "metadata.*")
    videos, has_several = [], False
    for path in files:
        split = SPLIT_OF.get(path.parent.name.lower(), "")
        for number, values in enumerate(_metadata_rows(path), start=1):
            name = values.pop("file_name", None) or values.pop("video_file_name", None)
            if not name:
                raise ManifestError(f"{path}, row {number}, has no file_name, the path of the video")
            label = values.pop(LABEL, None)
            labels = tuple(
                _text(one) for one in (label if isinstance(label, list) else [label]) if one not in (None, "")
            )
            has_several |= isinstance(label, list)
            extra = tuple((key, _text(value)) for key, value in values.items() if key not in COLUMNS)
            own = SPLIT_OF.get(_text(values.get(SPLIT, "")).lower(), "")
            group = _text(values.get(GROUP, ""))
            videos.append(ListedVideo(path.parent / str(name), labels, group, own or split, extra))
    return Collection(videos, has_several=has_several)


def import_multilabel(source: Path, config: ImportConfig) -> Collection:
    """Read a CSV file with a column of paths and a column of 0 and 1 for each class."""
    table = read_table(source)
    path_column = next((name for name in PATH_NAMES if name in table.columns), None)
    if path_column is None:
        raise ManifestError(f"{source} has no column path: its first line names the columns, such as path,run,jump")
    others = [name for name in table.columns if name != path_column and name not in COLUMNS]
    classes = tuple(name for name in others if all(row.values[name] in ONE + ZERO for row in table.rows))
    if not classes or not table.rows:
        raise ManifestError(f"{source} has no column of 0 and 1: give one for each class")
    faulty = next((name for name in classes if SEPARATOR in name), None)
    if faulty is not None:
        raise ManifestError(f"{source} has the class {faulty!r}: {SEPARATOR} stands between labels, rename the class")
    root = config.videos or source.parent
    videos = []
    for row in table.rows:
        values = row.values
        labels = tuple(name for name in classes if values[name] in ONE)
        extra = tuple((name, values[name]) for name in others if name not in classes)
        split = values.get(SPLIT, "")
        if split and split.lower() not in SPLIT_OF:
            raise ManifestError(f"{table.place(row)} has the split {split!r}: it is train, val or test")
        group = values.get(GROUP, "")
        videos.append(ListedVideo(root / values[path_column], labels, group, SPLIT_OF.get(split.lower(), ""), extra))
    return Collection(videos, classes, has_several=True)


def _listed_path(root: Path, row: ListLine, config: ImportConfig) -> Path:
    path = root / row.path
    if not path.suffix and not path.exists() and path.with_name(f"{path.name}.mp4").is_file():
        return path.with_name(f"{path.name}.mp4")  # as the original reads a name without suffix
    return path / config.template if config.template and path.is_dir() else path


def _metadata_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix.lower() != ".jsonl":
        return [dict(row.values) for row in read_table(path).rows]
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise ManifestError(f"{path}, line {number}, is no JSON ({error}): write an object a line") from None
        if not isinstance(values, dict):
            raise ManifestError(f"{path}, line {number}, is no JSON object: write an object a line")
        rows.append(values)
    return rows


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
