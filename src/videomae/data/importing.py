"""Collections in known formats as manifest files: `videomae data import`."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from videomae.atomic import atomic_file, atomic_path, write_text_atomic
from videomae.data.configs import ImportConfig, ImportKind
from videomae.data.import_benchmarks import import_hmdb51, import_kinetics, import_ssv2, import_ucf101
from videomae.data.import_folders import (
    import_classes,
    import_folder,
    import_multilabel,
    import_videofolder,
    import_videomae,
)
from videomae.data.import_webdataset import import_webdataset
from videomae.data.listed import Collection, ListedVideo
from videomae.data.manifest_file import (
    CLASSES_KEY,
    CLASSES_SUFFIX,
    COLUMNS,
    GROUP,
    LABEL,
    LABELS,
    MANIFEST_SUFFIXES,
    PATH,
    SEPARATOR,
    SPLIT,
    SPLITS,
    ordered_labels,
    parquet_modules,
)
from videomae.errors import ConfigError, ManifestError
from videomae.video.addresses import is_remote, video_path
from videomae.video.opening import is_there
from videomae.wording import counted

NUM_NAMED = 3  # missing files that are named


class Importer(NamedTuple):
    """How a kind of collection is read."""

    read: Callable[[Path, ImportConfig], Collection]
    """Takes the source and the options."""
    options: frozenset[str] = frozenset()
    """Names of the options that it uses."""


IMPORTERS: Mapping[ImportKind, Importer] = {
    "folder": Importer(import_folder),
    "classes": Importer(import_classes),
    "videomae": Importer(import_videomae, frozenset({"videos", "template", "labels"})),
    "kinetics": Importer(import_kinetics, frozenset({"videos"})),
    "ssv2": Importer(import_ssv2, frozenset({"videos", "labels"})),
    "ucf101": Importer(import_ucf101, frozenset({"videos", "split_number"})),
    "hmdb51": Importer(import_hmdb51, frozenset({"videos", "split_number"})),
    "videofolder": Importer(import_videofolder),
    "multilabel": Importer(import_multilabel, frozenset({"videos"})),
    "webdataset": Importer(import_webdataset, frozenset({"labels"})),
}


def import_manifest(kind: ImportKind, source: Path, out: Path, config: ImportConfig) -> list[str]:
    """Write the manifest file of a collection.

    Videos that are not there are left out, counted and named.

    Args:
        kind: Format of the collection.
        source: Its folder or file, see the importers; for the kinds folder, classes and webdataset it may be remote.
        out: The file to write, CSV or Parquet by its suffix.
        config: Where the videos are, and what else some formats leave open.

    Returns:
        What was found, in lines for people.

    Raises:
        ConfigError: If the output cannot be such a file, or an option means nothing for the kind.
        ManifestError: If the source cannot be read as the kind, or no video of it is there.
    """
    importer = IMPORTERS[kind]
    check_options(kind, config)
    check_manifest_output(out, overwrite=config.overwrite)
    source = video_path(source).expanduser()
    is_range = kind == "webdataset" and "{" in source.name
    if not (is_remote(source) or is_range or source.exists()):
        raise ManifestError(f"{source} does not exist: give the folder or the file of the collection")
    found = importer.read(source, config)
    there = [video for video in found.videos if is_there(video.path)]
    missing = [video.path for video in found.videos if not is_there(video.path)]
    names = ", ".join(str(path) for path in missing[:NUM_NAMED])
    if not there:
        hint = ": give their folder with --videos" if "videos" in importer.options else ""
        what = (
            f"none of the {len(missing)} videos of {source} is there, first {names}"
            if missing
            else f"{source} is empty"
        )
        raise ManifestError(f"{what}{hint}")
    write_manifest(out, found._replace(videos=there))
    lines = [f"{counted(len(there), 'video')}: {out}", *_counts(there), *found.notes]
    if missing:
        lines.append(f"{len(missing)} of {len(found.videos)} videos are not there and left out, first {names}")
    return lines


def check_options(kind: ImportKind, config: ImportConfig) -> None:
    """Refuse an option that a kind does not use.

    Raises:
        ConfigError: If there is one.
    """
    for name in ("videos", "split_number", "template", "labels"):
        if getattr(config, name) is not None and name not in IMPORTERS[kind].options:
            users = ", ".join(one for one, importer in IMPORTERS.items() if name in importer.options)
            raise ConfigError(f"--{name} means nothing for {kind}: leave it out; it is for {users}")


def check_manifest_output(out: Path, *, overwrite: bool) -> None:
    """Check that a manifest file can be written.

    Raises:
        ConfigError: If its name ends otherwise, its folder is missing, or it is there and is not to be replaced.
    """
    if out.suffix.lower() not in MANIFEST_SUFFIXES:
        raise ConfigError(
            f"the manifest {out} must end in {' or '.join(MANIFEST_SUFFIXES)}, which says how it is written"
        )
    if not out.parent.is_dir():
        raise ConfigError(f"the folder of {out} does not exist: make it, or choose another")
    for path in (out, classes_file(out)):
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} is there already: choose another name, or --overwrite")


def classes_file(out: Path) -> Path:
    """Return where the class names of a CSV manifest are listed."""
    return out.with_name(out.stem + CLASSES_SUFFIX)


def write_manifest(out: Path, found: Collection) -> None:
    """Write a manifest file, and beside a CSV the list of its classes where their order is not the usual one.

    Paths below the file's folder are written relative to it, others absolute.

    Raises:
        ManifestError: If the file cannot be written.
    """
    rows, columns = _table(found, Path(os.path.abspath(out.parent)))
    used = {label for video in found.videos for label in video.labels}
    classes = found.classes if found.classes is not None else ordered_labels(used)
    try:
        if out.suffix.lower() == ".parquet":
            _write_parquet(out, rows, columns, classes)
            classes_file(out).unlink(missing_ok=True)  # of a manifest that is replaced
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(name, "") for name in columns] for row in rows)
        with atomic_file(out) as stream:
            stream.write(text.getvalue().encode("utf-8"))
        if classes != ordered_labels(used):
            write_text_atomic(classes_file(out), "".join(f"{name}\n" for name in classes))
        else:
            classes_file(out).unlink(missing_ok=True)
    except UnicodeEncodeError as error:
        name = error.object[max(error.start - 40, 0) : error.end + 40]
        raise ManifestError(f"a path has bytes that are no text, in {name!r}: rename the file") from None
    except OSError as error:
        raise ManifestError(
            f"{out} cannot be written ({error.strerror or error}): free space or choose another"
        ) from None


def _table(found: Collection, folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Return the rows as text by column, and the columns that are needed, in order."""
    label_column = LABELS if found.has_several else LABEL
    rows = []
    for video in found.videos:
        path = video.path if is_remote(video.path) else Path(os.path.abspath(video.path))
        row = {
            PATH: (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix(),
            label_column: SEPARATOR.join(video.labels),
            GROUP: video.group,
            SPLIT: video.split,
        }
        rows.append(row | {name: value for name, value in video.extra if name not in COLUMNS})
    used = dict.fromkeys(name for row in rows for name, value in row.items() if value or name == PATH)
    order = [name for name in (PATH, label_column, GROUP, SPLIT) if name in used]
    if found.has_several and LABELS not in order:
        order.insert(1, LABELS)
    return rows, [*order, *(name for name in used if name not in order)]


def _write_parquet(out: Path, rows: Sequence[Mapping[str, str]], columns: list[str], classes: Sequence[str]) -> None:
    pyarrow, parquet = parquet_modules(out)
    arrays = {name: pyarrow.array([row.get(name) or None for row in rows], pyarrow.string()) for name in columns}
    table = pyarrow.table(arrays)
    if classes:
        table = table.replace_schema_metadata({CLASSES_KEY: json.dumps(list(classes)).encode("utf-8")})
    with atomic_path(out) as partial:
        parquet.write_table(table, partial)


def _counts(videos: Sequence[ListedVideo]) -> list[str]:
    """Tell how many classes, groups and rows of each split there are, where there are some."""
    classes = {label for video in videos for label in video.labels}
    groups = {video.group for video in videos if video.group}
    splits = Counter(video.split for video in videos if video.split)
    found = [f"{len(classes)} classes"] if classes else []
    found += [f"{len(groups)} groups"] if groups else []
    found += [f"{name} {splits[name]}" for name in SPLITS if splits[name]]
    return [", ".join(found)] if found else []
