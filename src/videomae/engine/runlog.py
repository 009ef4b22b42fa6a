"""The folder of a run and its metrics: no run overwritten unasked, no half-written record read.

A folder counts as a run only by the marker file that `RunFolder.open` writes, so that no other folder is ever
deleted.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae.atomic import PARTIAL_SUFFIX, atomic_file
from videomae.engine.distributed import Ranks
from videomae.errors import ConfigError, RunError
from videomae.ownership import LOCK_FILE, is_owned, owned

MARKER_NAME = "run.json"
HISTORY_FILE = "history.jsonl"  # when a run was started and resumed, and how it ended
MARKER = {"kind": "videomae run", "format_version": 1}
# JSON has no such numbers, and null would hide which one it was: they are written as these strings.
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one run; made by `RunFolder.open`."""

    path: Path
    """The folder, absolute."""

    @property
    def checkpoints(self) -> Path:
        """Folder of the training checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """File of the metrics, for `MetricsLog`."""
        return self.path / "metrics.jsonl"

    @classmethod
    def open(cls, path: Path, *, overwrite: bool, resume: bool) -> RunFolder:
        """Make the folder of a new run, or return to an old one.

        To be called when everything else about the run is checked: overwriting deletes.

        Args:
            path: The folder; folders above it are made. Missing and empty folders, and what a start left that was
                killed before it wrote anything of the run, are taken for a new run.
            overwrite: A run that is there is deleted, once its successor's folder exists.
            resume: A run must be there, and is continued.

        Raises:
            ConfigError: If both are asked for.
            RunError: If the path is a file, or a folder with other content, or holds a run and neither is
                asked for, or holds none to resume, or cannot be made. Nothing is changed then.
        """
        if overwrite and resume:
            raise ConfigError(
                "overwrite and resume are both on; the first deletes what the second continues: choose one"
            )
        path = path.resolve()
        try:
            if resume:
                _require_run(path)
            elif not is_run(path):
                _require_free(path)
                _make_run(path)
            elif overwrite:
                _replace_run(path)
            elif not _is_unstarted(path):
                raise RunError(
                    f"output folder {path} holds a run already: resume it, overwrite it, or choose another folder"
                )
        except OSError as error:
            raise RunError(
                f"output folder {path} cannot be used ({error.strerror or error}): choose a folder that can "
                "be written"
            ) from error
        return cls(path)

    def write_text(self, name: str, text: str) -> Path:
        """Write a small file of the run, such as its recipe, complete or not at all; returns its path.

        Raises:
            RunError: If it cannot be written.
        """
        path = self.path / name
        _write(path, text.encode("utf-8"))
        return path


class MetricsLog:
    """The metrics of a run, one JSON object a line, on the disk as soon as it is logged.

    The JSON is strict. Numbers that it lacks are written as the strings "NaN", "Infinity" and "-Infinity",
    and `read` turns exactly these strings back into numbers.
    """

    def __init__(self, path: Path) -> None:
        """Begin or continue the file; the torn last line of a killed run is cut off.

        Args:
            path: The file, for example `RunFolder.metrics`; only one process writes to it.

        Raises:
            RunError: If the file is there but cannot be read or written.
        """
        self.path = path
        if path.exists():
            content = _read(path)
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                _write(path, whole)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record.

        Args:
            record: str, int, float, bool, None, lists and mappings of these; tensors are the caller's to
                read. The key `step` has the number of optimizer steps done, where the record belongs to a
                step.

        Raises:
            RunError: If the record cannot be written, for example because the disk is full.
        """
        line = json.dumps(_strict(record), allow_nan=False) + "\n"
        try:
            # Opened anew each time: an open file could not be replaced by truncate_after on Windows.
            with open(self.path, "ab") as stream:
                stream.write(line.encode("utf-8"))
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def truncate_after(self, step: int, *, drop: Collection[str] = ()) -> None:
        """Drop the records of steps after `step`, which a resumed run will log again; at once or not at all.

        Args:
            step: The step that the run resumes from; records without `step` stay.
            drop: Records with one of these keys are dropped too, such as those of an evaluation after the last step.

        Raises:
            RunError: If the file cannot be read or written.
        """
        if not self.path.exists():
            return
        lines = _read(self.path).splitlines(keepends=True)
        records = MetricsLog.read(self.path)
        kept = [
            line
            for line, record in zip(lines, records, strict=False)
            if record.get("step", step) <= step and not any(name in record for name in drop)
        ]
        if len(kept) < len(lines):
            _write(self.path, b"".join(kept))

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        """Return the records of a file, which may be of a run that is still going on.

        A last line without its end is ignored: it is being written, or its run was killed.

        Raises:
            RunError: If the file is missing or a whole line is no JSON object.
        """
        lines = _read(path).split(b"\n")[:-1]
        records: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise RunError(f"{path} line {number} is not a JSON object; the file is damaged: delete that line")
            records.append(_numbers(record))
        return records


@contextmanager
def owned_run(path: Path, ranks: Ranks) -> Iterator[None]:
    """Own a run's folder while the block runs, so that no other live run writes there; all its processes call this.

    Args:
        path: The folder, which need not exist.
        ranks: The first of them owns it.

    Raises:
        RunError: If another run that is still alive owns it.
    """
    path = path.resolve()
    # Beside the folder, which is renamed where it is overwritten; inside where nothing can be renamed.
    beside = os.access(next(one for one in path.parents if one.exists()), os.W_OK)
    folder, name = (path.parent, f".{path.name}{LOCK_FILE}") if beside else (path, LOCK_FILE)
    with contextlib.ExitStack() as stack:

        def own() -> None:
            stack.enter_context(owned(folder, what=f"run of {path.name}", name=name))

        ranks.first(own)
        yield


def is_live(path: Path) -> bool:
    """Return whether a process owns a run's folder now, as `owned_run` lets it."""
    path = path.resolve()
    return is_owned(path.parent, name=f".{path.name}{LOCK_FILE}") or is_owned(path)


def is_run(path: Path) -> bool:
    """Return whether a folder is one that `RunFolder.open` has made."""
    try:
        marker = json.loads((path / MARKER_NAME).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(marker, dict) and marker.get("kind") == MARKER["kind"]


def _is_unstarted(path: Path) -> bool:
    """Return whether a run's folder holds nothing but the marker and files that a killed process left incomplete."""
    return all(entry.name == MARKER_NAME or entry.name.endswith(PARTIAL_SUFFIX) for entry in path.iterdir())


def _require_run(path: Path) -> None:
    if not is_run(path):
        found = "is not a run of this package" if path.exists() else "does not exist"
        raise RunError(f"output folder {path} {found}, so nothing can be resumed: check the path, or start a new run")


def _require_free(path: Path) -> None:
    """Refuse all but a missing folder and one that is empty, or was left by a killed `_make_run`."""
    if not path.exists():
        return
    if not path.is_dir():
        raise RunError(f"output folder {path} is a file: choose another path")
    if any(entry.name not in (MARKER_NAME + PARTIAL_SUFFIX, LOCK_FILE) for entry in path.iterdir()):
        raise RunError(
            f"output folder {path} has other content and is not a run of this package, so it is left alone: "
            "choose another folder, or empty it by hand"
        )


def _make_run(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    _write(path / MARKER_NAME, (json.dumps(MARKER, indent=2) + "\n").encode("utf-8"))


def _replace_run(path: Path) -> None:
    """Move the old run aside, make the new folder, and only then delete the old one."""
    number = 1
    while (old := path.with_name(f"{path.name}.replaced-{number}")).exists():
        number += 1
    path.rename(old)
    try:
        _make_run(path)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)  # holds at most the marker
        old.rename(path)
        raise
    try:
        shutil.rmtree(old)
    except OSError as error:
        warnings.warn(f"the replaced run {old} is not wholly deleted ({error}): delete it by hand", stacklevel=3)


def _strict(value: Any) -> Any:
    """Replace what strict JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _numbers(value: Any) -> Any:
    """Undo `_strict`."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror or error}): check the path") from error


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_file(path) as stream:
            stream.write(content)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> RunError:
    reason = error.strerror or error
    return RunError(f"{path} cannot be written ({reason}): free space or choose another output folder")
