"""What a pass over videos has computed, on disk while it is computed, so that a killed process loses at most a batch.

Beside the output lies a folder with the settings, and for each video its results as raw float64 rows, appended batch
by batch, and two small files once it is through. Whatever stands in it was written whole: a row that a kill has cut
is dropped, and so are the rows behind the last full batch, since batches of another size differ in their last bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomae.atomic import atomic_file, write_text_atomic
from videomae.errors import RunError
from videomae.video.addresses import shown_path
from videomae.video.opening import split_name, version_of

FloatArray = NDArray[np.float64]
FOLDER_SUFFIX = ".parts"
SETTINGS_FILE = "settings.json"
ROW_BYTES = 8


class KeptVideo(NamedTuple):
    """What was noted of a video that is through, beside its rows."""

    values: dict[str, Any]
    """Plain JSON values."""
    arrays: dict[str, NDArray[Any]]
    """Arrays, by name."""


class KeptRows:
    """The folder of rows beside an output file."""

    def __init__(
        self, output: Path, settings: Mapping[str, Any], *, width: int, batch_size: int, resume: bool
    ) -> None:
        """Begin it anew, or go on with what is there.

        Args:
            output: The file that the rows will become.
            settings: What they depend on, plain JSON values.
            width: Values of a row.
            batch_size: Rows that are computed together.
            resume: Go on with what is there; if nothing is there, begin.

        Raises:
            RunError: If what is there was made with other settings, or the disk refuses.
        """
        self.folder = _folder(output)
        self._width, self._row = width, ROW_BYTES * width
        self._batch_size = batch_size
        try:
            if not resume:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._check_settings(settings)
            if not (self.folder / SETTINGS_FILE).exists():
                write_text_atomic(self.folder / SETTINGS_FILE, json.dumps(settings))
        except OSError as error:
            raise self._cannot_write(error) from None

    def rows(self, video: str) -> FloatArray:
        """Return the rows of a video that are there, `[n, width]`, as a view of the file."""
        path = self._path(video)
        count = path.stat().st_size // self._row if path.exists() else 0
        if count == 0:
            return np.zeros((0, self._width))
        return np.memmap(path, np.float64, "r", shape=(count, self._width))

    def begin(self, video: str) -> int:
        """Return how many rows of a video are there to go on from, and drop what is behind them.

        Raises:
            RunError: If the disk refuses.
        """
        path = self._path(video)
        try:
            identity, noted = json.dumps(file_identity(video)), self._path(video, ".file")
            if not noted.exists() or noted.read_text(encoding="utf-8") != identity:  # another file now
                path.unlink(missing_ok=True)
                write_text_atomic(noted, identity)
            path.touch()
            rows = path.stat().st_size // self._row
            whole = rows - rows % self._batch_size
            os.truncate(path, whole * self._row)
        except OSError as error:
            raise self._cannot_write(error) from None
        return whole

    def append(self, video: str, rows: FloatArray) -> None:
        """Write the rows of a batch behind those that are there.

        Raises:
            RunError: If the disk refuses; what was there stays, without a part of these.
        """
        try:
            _append(self._path(video), np.ascontiguousarray(rows, np.float64).tobytes())
        except OSError as error:
            raise self._cannot_write(error) from None

    def finish(self, video: str, values: Mapping[str, Any], **arrays: NDArray[Any]) -> None:
        """Note that a video is through, and what is known of it.

        Args:
            video: The video.
            values: Plain JSON values.
            **arrays: Arrays.

        Raises:
            RunError: If the disk refuses.
        """
        try:
            with atomic_file(self._path(video, ".npz")) as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stubs take no arrays by name
            known = {"values": dict(values), "file": file_identity(video)}
            write_text_atomic(self._path(video, ".json"), json.dumps(known))
        except OSError as error:
            raise self._cannot_write(error) from None

    def finished(self, video: str) -> KeptVideo | None:
        """Return what was noted of a video that is through; None if it is not, or is another file now."""
        path = self._path(video, ".json")
        if not path.exists():
            return None
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["file"] != file_identity(video):
            path.unlink()
            return None
        with np.load(self._path(video, ".npz")) as arrays:
            return KeptVideo(known["values"], dict(arrays))

    def remove(self) -> None:
        """Remove the folder: the output is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, video: str, suffix: str = ".f64") -> Path:
        return self.folder / f"{hashlib.sha256(os.fsencode(video)).hexdigest()[:24]}{suffix}"

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        path = self.folder / SETTINGS_FILE
        if not path.exists():
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        for name, value in json.loads(json.dumps(settings)).items():
            if found.get(name) != value:
                raise RunError(
                    f"{self.folder} was begun with another {name} ({found.get(name)}, now {value}): continue with "
                    "the same, or leave out --resume to begin anew"
                )

    def _cannot_write(self, error: OSError) -> RunError:
        return RunError(
            f"{self.folder} cannot be written ({error.strerror or error}): what is in it is whole; free space and "
            "add --resume"
        )


def remove_kept(output: Path | None) -> None:
    """Remove what is kept beside an output, where there is one: it is written."""
    if output is not None:
        shutil.rmtree(_folder(output), ignore_errors=True)


def _append(path: Path, content: bytes) -> None:
    """Write all of the content behind what is in a file, or nothing of it."""
    with open(path, "ab", buffering=0) as stream:
        end, left = stream.seek(0, os.SEEK_END), memoryview(content)
        try:
            while left:  # a disk that fills up takes a part first, without an error
                left = left[stream.write(left) :]
        except OSError:
            stream.truncate(end)
            raise


def _folder(output: Path) -> Path:
    return output.with_name(output.name + FOLDER_SUFFIX)


def file_identity(video: str) -> list[int] | None:
    """Return by what another file of the same name is noticed: size and time, of a part those of the whole.

    None where nothing is known, as of an address whose server cannot be asked.
    """
    try:
        found = version_of(shown_path(split_name(video)[0]))
    except ValueError:  # a name that no file can have
        return None
    return None if found is None else list(found)
