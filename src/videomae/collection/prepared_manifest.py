"""The manifest of a prepared collection: the rows of the original one, with the files that were written."""

from __future__ import annotations

import csv
import io
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from videomae.collection.transcode import PreparedPart
from videomae.data.manifest import Manifest, VideoRow, whole_video
from videomae.data.manifest_file import (
    CLASSES_SUFFIX,
    END,
    GROUP,
    LABEL,
    LABELS,
    PATH,
    SEPARATOR,
    SPLIT,
    START,
    ordered_labels,
)
from videomae.errors import RunError
from videomae.video.addresses import is_remote

MANIFEST_FILE = "manifest.csv"
_MEMBER = re.compile(r"(\.tar)?#bytes=\d+-\d+/")  # between an archive and a video in it
ELSEWHERE = "elsewhere"  # folder for videos that are not below the root of their manifest


def planned_targets(manifest: Manifest, out: Path) -> dict[Path, Path]:
    """Return the .mp4 file for each video of a collection, in the order of its rows.

    Folders and names are kept; names that differ in their endings alone keep them before the new one.
    """
    names: dict[Path, str] = {}
    for row in manifest.rows:
        name = _MEMBER.sub("/", manifest.relative_path(whole_video(row)))
        if os.path.isabs(name) or is_remote(name):
            name = f"{ELSEWHERE}/{name.replace('://', '/').lstrip('/').replace(':', '_')}"
        names[row.path] = name
    short = {path: str(Path(name).with_suffix(".mp4").as_posix()) for path, name in names.items()}
    taken = Counter(name.casefold() for name in short.values())
    return {
        path: out / (short[path] if taken[short[path].casefold()] == 1 else f"{name}.mp4")
        for path, name in names.items()
    }


def prepared_rows(manifest: Manifest, parts: Mapping[Path, Sequence[PreparedPart]]) -> list[VideoRow]:
    """Return the rows whose video was written; of a split video one for each part, all in one group.

    Args:
        manifest: The original rows.
        parts: What was written, by path of the original.
    """
    rows = []
    for row in manifest.rows:
        written = parts.get(row.path, ())
        group = row.group
        if len(written) > 1 and group is None:
            group = manifest.relative_path(whole_video(row))
        rows += [row._replace(path=part.path, group=group) for part in written]
    return rows


def write_prepared(path: Path, rows: Iterable[VideoRow], classes: Sequence[str]) -> None:
    """Write a manifest, and beside it the list of its classes where their order is not the usual one.

    Several machines may write the same file at a time: it is complete whichever is last.

    Raises:
        RunError: If it cannot be written.
    """
    table = [_values(row, path.parent, classes) for row in rows]
    columns = dict.fromkeys(name for values in table for name, value in values.items() if value)
    order = [name for name in (PATH, LABEL, LABELS, START, END, GROUP, SPLIT) if name in columns or name == PATH]
    order += [name for name in columns if name not in order]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(order)
    writer.writerows([values.get(name, "") for name in order] for values in table)
    used = {label for values in table for name in (LABEL, LABELS) for label in values.get(name, "").split(SEPARATOR)}
    beside = path.with_name(path.stem + CLASSES_SUFFIX)
    try:
        if tuple(classes) != ordered_labels(used - {""}):
            _write(beside, "".join(f"{name}\n" for name in classes))
        else:
            beside.unlink(missing_ok=True)
        _write(path, text.getvalue())
    except (OSError, UnicodeEncodeError) as error:
        raise RunError(f"cannot write the manifest {path}: {error}") from None


def _values(row: VideoRow, folder: Path, classes: Sequence[str]) -> dict[str, str]:
    return {
        PATH: row.path.relative_to(folder).as_posix(),
        LABEL: "" if row.label is None else classes[row.label],
        LABELS: SEPARATOR.join(classes[label] for label in row.labels),
        START: "" if row.start_seconds is None else repr(row.start_seconds),
        END: "" if row.end_seconds is None else repr(row.end_seconds),
        GROUP: row.group or "",
        SPLIT: row.split or "",
        **dict(row.extra),
    }


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with partial.open("wb") as stream:
            stream.write(text.encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
