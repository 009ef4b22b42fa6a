"""Timelines as files: which format a name means, and the tables; every file is complete or not there."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from videomae.atomic import atomic_path, write_text_atomic
from videomae.errors import ConfigError, RunError
from videomae.inference.files import PLACEHOLDER, check_name_for_each, check_output, output_names
from videomae.timeline.labelling_tools import cvat_text, eaf_text, label_studio_tasks
from videomae.timeline.subtitles import srt_text, vtt_text
from videomae.timeline.timeline import Timeline

COLUMNS = ("path", "label", "label_id", "start", "end", "seconds", "mean", "peak", "peak_at", "fault")
MAX_CURVES = 8  # classes whose curves stand in a file, those with events first

Writer: TypeAlias = Callable[[Path, Sequence[Timeline]], None]


def write_json(path: Path, timelines: Sequence[Timeline]) -> None:
    """Write events, and the curves of the classes that matter, as JSON."""
    text = json.dumps({"videos": [timeline_values(one) for one in timelines]}, indent=1, allow_nan=False)
    write_text_atomic(path, f"{text}\n")


def write_csv(path: Path, timelines: Sequence[Timeline]) -> None:
    """Write a row for each event."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in event_rows(timelines):
        writer.writerow({name: f"{value:.6f}" if isinstance(value, float) else value for name, value in row.items()})
    write_text_atomic(path, stream.getvalue())


def write_parquet(path: Path, timelines: Sequence[Timeline]) -> None:
    """Write a row for each event, as Parquet; needs pyarrow.

    Raises:
        ConfigError: If pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    text, number, whole = pyarrow.string(), pyarrow.float64(), pyarrow.int32()
    kinds = (text, text, whole, number, number, number, number, number, number, text)
    schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    table = pyarrow.Table.from_pylist(event_rows(timelines), schema=schema)
    with atomic_path(path) as partial:
        parquet.write_table(table, partial)


def write_label_studio(path: Path, timelines: Sequence[Timeline]) -> None:
    """Write Label Studio tasks."""
    write_text_atomic(path, json.dumps(label_studio_tasks(timelines), indent=1))


def _of_one(text: Callable[[Timeline], str]) -> Writer:
    """Return a writer of a format that is about one video."""

    def write(path: Path, timelines: Sequence[Timeline]) -> None:
        (timeline,) = timelines
        write_text_atomic(path, text(timeline))

    return write


WRITERS: dict[str, Writer] = {
    ".labelstudio.json": write_label_studio,
    ".json": write_json,
    ".csv": write_csv,
    ".parquet": write_parquet,
    ".srt": _of_one(srt_text),
    ".vtt": _of_one(vtt_text),
    ".eaf": _of_one(eaf_text),
    ".cvat.xml": _of_one(cvat_text),
}
"""What writes a format, by how the file's name ends; the first that fits."""

ONE_VIDEO = frozenset((".srt", ".vtt", ".eaf", ".cvat.xml"))
"""Formats that are about one video."""


def format_of(name: str, writers: Mapping[str, Writer]) -> str:
    """Return the ending of a file's name that says its format.

    Raises:
        ConfigError: If it is none.
    """
    for suffix in writers:
        if name.lower().endswith(suffix):
            return suffix
    raise ConfigError(f"out is {name!r}; its name must end with {', '.join(writers)}")


def check_outputs(names: Sequence[str], writers: Mapping[str, Writer], *, num_videos: int) -> None:
    """Check that the files can be written, before anything is computed for them.

    Raises:
        ConfigError: If a name's ending is unknown, its folder is missing, the format is about one video and there are
            several, or its library is not there.
    """
    for name in names:
        suffix = format_of(name, writers)
        if suffix in ONE_VIDEO:
            check_name_for_each("out", name, num_videos)
        if suffix == ".parquet":
            _pyarrow()
        check_output(name.replace(PLACEHOLDER, "video"))


def write_outputs(
    names: Sequence[str], timelines: Sequence[Timeline], writers: Mapping[str, Writer], *, videos: Sequence[str]
) -> list[Path]:
    """Write timelines into files; a name with `{video}` in it is a file for each video.

    Args:
        names: The files.
        timelines: What to write.
        writers: What writes a format, by the ending of the name.
        videos: All videos of the call, in order, also those that could not be read; see `output_names`.

    Returns:
        The files.

    Raises:
        RunError: If one cannot be written.
    """
    written: list[Path] = []
    for name in names:
        suffix = format_of(name, writers)
        if suffix in ONE_VIDEO and not timelines:
            continue  # nothing could be read
        groups = [(name, list(timelines))]
        if PLACEHOLDER in name:
            targets = output_names(name, videos)
            groups = [(targets[one.video.path], [one]) for one in timelines]
        for target, group in groups:
            try:
                writers[suffix](Path(target), group)
            except OSError as error:
                reason = error.strerror or error
                raise RunError(f"{target} cannot be written ({reason}): free space or choose another") from None
            written.append(Path(target))
    return written


def event_rows(timelines: Sequence[Timeline]) -> list[dict[str, Any]]:
    """Return a row of `COLUMNS` for each event; times in seconds."""
    return [
        {
            "path": one.video.path,
            "label": event.label,
            "label_id": event.label_id,
            "start": event.start_seconds,
            "end": event.end_seconds,
            "seconds": event.seconds,
            "mean": event.mean,
            "peak": event.peak,
            "peak_at": event.peak_seconds,
            "fault": one.fault,
        }
        for one in timelines
        for event in one.events
    ]


def timeline_values(timeline: Timeline) -> dict[str, Any]:
    """Return a timeline as plain JSON values; curves are those that `shown_labels` names, not smoothed."""
    return {
        **timeline.video._asdict(),
        "model": timeline.model,
        "is_whole": timeline.fault is None,
        "fault": timeline.fault,
        "events": [asdict(event) for event in timeline.events],
        "windows": {
            "start": [round(value, 6) for value in timeline.start_seconds.tolist()],
            "end": [round(value, 6) for value in timeline.end_seconds.tolist()],
            "probabilities": {
                timeline.labels[label_id]: timeline.probabilities[:, label_id].tolist()
                for label_id in shown_labels(timeline)
            },
        },
    }


def shown_labels(timeline: Timeline, limit: int = MAX_CURVES) -> list[int]:
    """Return the ids of the classes whose curves are worth showing: those with events by their time, then by peak."""
    lasting = dict.fromkeys(timeline.labels, 0.0)
    for event in timeline.events:
        lasting[event.label_id] += event.seconds
    peaks = timeline.curves.max(axis=0) if len(timeline.curves) else [0.0] * len(timeline.classes)
    return sorted(timeline.labels, key=lambda label: (-lasting[label], -peaks[label], label))[:limit]


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(
            "files of events as .parquet need pyarrow: pip install 'videomae[parquet]', or .csv"
        ) from None
    return pyarrow, parquet
