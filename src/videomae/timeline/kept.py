"""The scores of videos on disk while they are computed, so that a killed process loses at most a batch.

Beside the output lies a folder with the settings, and for each video its scores as raw float64 rows, appended batch
by batch, and a small JSON file once it is through. Whatever stands in it was written whole: a row that a kill has cut
is dropped, and so are the rows behind the last full batch, since batches of another size differ in their last bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomae.atomic import atomic_file, write_text_atomic
from videomae.errors import RunError
from videomae.inference.predictor import Predictor
from videomae.inference.windows import Windows
from videomae.timeline.configs import TimelineConfig
from videomae.timeline.timeline import VideoFacts

FloatArray = NDArray[np.float64]
FOLDER_SUFFIX = ".parts"
SETTINGS_FILE = "settings.json"
ROW_BYTES = 8


class FinishedVideo(NamedTuple):
    """What is known of a video that is through, but for its scores."""

    facts: VideoFacts
    """Of the video."""
    windows: Windows
    """Where its windows lie."""
    fault: str | None
    """Why there are no more scores; None: there are all."""
    strip: bytes
    """JPEG of small frames, may be empty."""


class KeptScores:
    """The folder of scores beside an output file."""

    def __init__(self, output: Path, predictor: Predictor, config: TimelineConfig, *, resume: bool) -> None:
        """Begin it anew, or go on with what is there.

        Args:
            output: The file that the scores will become.
            predictor: The classifier.
            config: Windows; smoothing and thresholds may change between two calls.
            resume: Go on with what is there; if nothing is there, begin.

        Raises:
            RunError: If what is there was made by another model or with other windows, or the disk refuses.
        """
        self.folder = output.with_name(output.name + FOLDER_SUFFIX)
        self._row = ROW_BYTES * len(predictor.classes)
        self._num_classes = len(predictor.classes)
        self._batch_size = config.batch_size
        settings = {
            "model": model_identity(predictor),
            "classes": list(predictor.classes),
            "clip": asdict(predictor.clip),
            "speed": 1.0 if predictor.merging is None else predictor.merging.speed,
            "precision": predictor.precision,
            **{name: getattr(config, name) for name in ("window", "step", "batch_size")},
        }
        try:
            if not resume:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._check_settings(settings)
            if not (self.folder / SETTINGS_FILE).exists():
                write_text_atomic(self.folder / SETTINGS_FILE, json.dumps(settings))
        except OSError as error:
            raise self._cannot_write(error) from None

    def rows(self, video: str) -> FloatArray:
        """Return the scores of a video that are there, `[w, K]`, as a view of the file."""
        path = self._path(video)
        count = path.stat().st_size // self._row if path.exists() else 0
        if count == 0:
            return np.zeros((0, self._num_classes))
        return np.memmap(path, np.float64, "r", shape=(count, self._num_classes))

    def begin(self, video: str) -> int:
        """Return how many windows of a video are there to go on from, and drop what is behind them.

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

    def append(self, video: str, scores: FloatArray) -> None:
        """Write the scores of a batch behind those that are there.

        Raises:
            RunError: If the disk refuses; what was there stays, without a part of these.
        """
        try:
            _append(self._path(video), np.ascontiguousarray(scores, np.float64).tobytes())
        except OSError as error:
            raise self._cannot_write(error) from None

    def finish(self, video: str, facts: VideoFacts, windows: Windows, *, fault: str | None, strip: bytes) -> None:
        """Note that a video is through, and what is known of it.

        Args:
            video: The video.
            facts: Of it.
            windows: Where its windows lie.
            fault: Why there are no more scores; None: there are all.
            strip: JPEG of small frames.

        Raises:
            RunError: If the disk refuses.
        """
        try:
            with atomic_file(self._path(video, ".npz")) as stream:
                np.savez(stream, **windows._asdict())
            with atomic_file(self._path(video, ".jpg")) as stream:
                stream.write(strip)
            known = {"facts": facts._asdict(), "fault": fault, "file": file_identity(video)}
            write_text_atomic(self._path(video, ".json"), json.dumps(known))
        except OSError as error:
            raise self._cannot_write(error) from None

    def finished(self, video: str) -> FinishedVideo | None:
        """Return what was noted of a video that is through; None if it is not, or is another file now."""
        path = self._path(video, ".json")
        if not path.exists():
            return None
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["file"] != file_identity(video):
            path.unlink()
            return None
        with np.load(self._path(video, ".npz")) as arrays:
            indices, stored, starts, ends = (arrays[name] for name in Windows._fields[:-1])
            windows = Windows(indices, stored, starts, ends, float(arrays["step_seconds"]))
        strip = self._path(video, ".jpg").read_bytes()
        return FinishedVideo(VideoFacts(**known["facts"]), windows, known["fault"], strip)

    def remove(self) -> None:
        """Remove the folder: the output is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, video: str, suffix: str = ".f64") -> Path:
        return self.folder / f"{hashlib.sha256(os.fsencode(video)).hexdigest()[:24]}{suffix}"

    def _check_settings(self, settings: dict[str, Any]) -> None:
        path = self.folder / SETTINGS_FILE
        if not path.exists():
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        for name, value in json.loads(json.dumps(settings)).items():
            if found.get(name) != value:
                raise RunError(
                    f"{self.folder} was begun with another {name} ({found.get(name)}, now {value}): go on with the "
                    "same, or leave out --resume to begin anew"
                )

    def _cannot_write(self, error: OSError) -> RunError:
        return RunError(
            f"{self.folder} cannot be written ({error.strerror or error}): what is in it is whole; free space and "
            "add --resume"
        )


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


def model_identity(predictor: Predictor) -> list[Any]:
    """Return by what another model is noticed: its name and a sum over each of its parameters."""
    digest = hashlib.sha256()
    for name, parameter in predictor.model.named_parameters():
        digest.update(f"{name} {parameter.detach().double().sum().item()!r}".encode())
    return [predictor.source, digest.hexdigest()[:16]]


def file_identity(video: str) -> list[int] | None:
    """Return by what another file of the same name is noticed: size and time; None for an address."""
    try:
        facts = os.stat(video)
    except (OSError, ValueError):
        return None
    return [facts.st_size, facts.st_mtime_ns]
