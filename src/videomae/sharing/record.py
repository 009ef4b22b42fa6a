"""The content of `videomae.json`: how the clips of a model were sampled, how it was trained, how good it is.

A model learns at one distance between frames and is worse at any other, so the sampling travels with its weights. The
file stays small: of an evaluation it keeps the summary, and results for each class or video go in files of their own.
Entries that this version does not know are kept and written back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from videomae.errors import ConfigError, WeightsError
from videomae.video.sampling import ClipConfig
from videomae.weights.json_files import json_text, read_json, write_text_file
from videomae.weights.sources import RECORD_FILE

PUBLISHED_CLIP = ClipConfig(num_frames=16, stride=4, kind="original")  # of the published Kinetics models
# Earlier versions kept the confusion matrix in the record: 13 bytes a cell, so that 9,000 classes are still read.
MAX_READ_BYTES = 2**30
MAX_WRITTEN_BYTES = 4 * 2**20
MAX_NAMED_VIDEOS = 1000  # of the videos that could not be read; the others are counted
BULKY_RESULTS = ("confusion", "per_class")  # entries of an evaluation that grow with the number of classes

CLIP, LICENCE, TRAINING, EVALUATION = "clip", "licence", "training", "evaluation"
THRESHOLDS = "thresholds"
INTERVAL, NUM_LEFT_OUT = "top1_interval_95", "num_videos_left_out"
FIGURES = ("top1", "top5", "mean_class")
COUNTS = ("num_videos", "num_bad_videos")
TEXTS = ("stage", "data_fingerprint", "videomae_version", "torch_version", "python_version")


@dataclass(frozen=True)
class EvaluationSummary:
    """The figures of an evaluation that fit on a card. Accuracies are fractions in [0, 1]."""

    num_videos: int | None = None
    """Videos that were judged."""
    num_bad_videos: int | None = None
    """Videos that could not be read, and are not judged."""
    top1: float | None = None
    """Accuracy."""
    top1_interval: tuple[float, float] | None = None
    """Lower and upper end of its 95 % confidence interval."""
    top5: float | None = None
    """Accuracy among the five most probable classes; None where there are no more than five."""
    mean_class: float | None = None
    """Mean of the classes' accuracies."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other entries, none of which grows with the number of classes."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvaluationSummary:
        """Read the summary out of the figures of an evaluation, `EvaluationResult.metrics_dict()`.

        Results that grow with the number of classes are left out.

        Raises:
            ConfigError: If a figure is no number.
        """
        known: dict[str, Any] = {}
        for name in (*FIGURES, *COUNTS):
            known[name] = _number(f"evaluation.{name}", values.get(name), whole=name in COUNTS)
        interval = values.get(INTERVAL)
        if interval is not None:
            if not isinstance(interval, list | tuple) or len(interval) != 2:
                raise ConfigError(f"evaluation.{INTERVAL} is {interval!r}; it must be the two ends of an interval")
            known["top1_interval"] = tuple(_number(f"evaluation.{INTERVAL}", end) for end in interval)
        taken = (*FIGURES, *COUNTS, INTERVAL, *BULKY_RESULTS)
        return cls(**known, extra={name: value for name, value in values.items() if name not in taken})

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values, under the names of `EvaluationResult.metrics_dict()`."""
        known = {name: getattr(self, name) for name in (*COUNTS, *FIGURES)}
        known[INTERVAL] = None if self.top1_interval is None else list(self.top1_interval)
        return {**self.extra, **{name: value for name, value in known.items() if value is not None}}


@dataclass(frozen=True)
class TrainingRecord:
    """How a model was trained."""

    stage: str | None = None
    """pretraining, fine-tuning, ..."""
    steps: int | None = None
    """Optimizer steps."""
    data_fingerprint: str | None = None
    """SHA-256 of names, sizes and labels of the videos."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Every setting of the run, as plain values."""
    videos_left_out: Mapping[str, str] | None = None
    """Why each of the unreadable videos was skipped; of very many the first. None: not recorded."""
    num_videos_left_out: int | None = None
    """How many they were; None: not recorded."""
    videomae_version: str | None = None
    """Version of this package."""
    torch_version: str | None = None
    """Version of torch."""
    python_version: str | None = None
    """Version of Python."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Entries that this version does not know."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingRecord:
        """Read the training entry of a `videomae.json`, without its evaluation.

        Raises:
            ConfigError: If an entry is of the wrong type.
        """
        known: dict[str, Any] = {"steps": _number("training.steps", values.get("steps"), whole=True)}
        for name in TEXTS:
            known[name] = values.get(name)
            if not isinstance(known[name], str | None):
                raise ConfigError(f"training.{name} is {known[name]!r}; it must be a text")
        known["recipe"] = _mapping("training.recipe", values.get("recipe"))
        left_out = values.get("videos_left_out")
        if left_out is not None:
            left_out = {str(path): str(why) for path, why in _mapping("training.videos_left_out", left_out).items()}
            count = _number(f"training.{NUM_LEFT_OUT}", values.get(NUM_LEFT_OUT), whole=True)
            known[NUM_LEFT_OUT] = len(left_out) if count is None else count
            known["videos_left_out"] = left_out
        taken = {"steps", "recipe", "videos_left_out", NUM_LEFT_OUT, EVALUATION, *TEXTS}
        return cls(**known, extra={name: value for name, value in values.items() if name not in taken})

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as plain JSON values."""
        values = {name: getattr(self, name) for name in ("steps", *TEXTS) if getattr(self, name) is not None}
        if self.recipe:
            values["recipe"] = dict(self.recipe)
        if self.videos_left_out is not None:
            named = sorted(self.videos_left_out.items())[:MAX_NAMED_VIDEOS]
            values["videos_left_out"] = dict(named)
            count = self.num_videos_left_out or len(self.videos_left_out)
            if count != len(named):
                values[NUM_LEFT_OUT] = count
        return {**self.extra, **values}


@dataclass(frozen=True)
class ModelRecord:
    """What a model folder says about its model besides configuration, weights and processor."""

    sampling: ClipConfig | None = None
    """How clips were sampled in training; None: not recorded."""
    training: TrainingRecord | None = None
    """How it was trained; None: not recorded."""
    evaluation: EvaluationSummary | None = None
    """How good it was on the validation videos of its run; None: not recorded."""
    licence: str | None = None
    """Of the weights; None: its author has stated none."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Entries that this version does not know."""
    thresholds: Mapping[str, float] | None = None
    """Scores in [0, 1] from which labels count as present, by their names, where there may be several labels at
    once; None: not recorded, 0.5 for all."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelRecord:
        """Read the content of a `videomae.json` of this or an earlier version.

        Raises:
            ConfigError: If an entry is not what it should be.
        """
        training = _mapping(TRAINING, values.get(TRAINING))
        evaluation = _mapping(EVALUATION, values.get(EVALUATION, training.get(EVALUATION)))
        licence = values.get(LICENCE, training.get(LICENCE))
        if not isinstance(licence, str | None):
            raise ConfigError(f"licence is {licence!r}; it must be a text, such as 'apache-2.0'")
        thresholds = values.get(THRESHOLDS)
        taken = (CLIP, TRAINING, EVALUATION, LICENCE, THRESHOLDS)
        trained = {name: value for name, value in training.items() if name not in (EVALUATION, LICENCE)}
        return cls(
            sampling=sampling_from(values),
            training=TrainingRecord.from_dict(trained) if trained else None,
            evaluation=EvaluationSummary.from_dict(evaluation) if evaluation else None,
            licence=licence,
            thresholds=None if thresholds is None else _thresholds(thresholds),
            extra={name: value for name, value in values.items() if name not in taken},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a `videomae.json`, plain JSON values; the evaluation is an entry of the training."""
        values: dict[str, Any] = dict(self.extra)
        if self.sampling is not None:
            clip = dataclasses.asdict(self.sampling)
            values[CLIP] = {name: value for name, value in clip.items() if value is not None}
        if self.licence is not None:
            values[LICENCE] = self.licence
        if self.thresholds is not None:
            values[THRESHOLDS] = dict(self.thresholds)
        training = {} if self.training is None else self.training.to_dict()
        if self.evaluation is not None:
            training[EVALUATION] = self.evaluation.to_dict()
        return {**values, TRAINING: training} if training else values

    def to_json(self) -> str:
        """Return the content of a `videomae.json` as text.

        Raises:
            ConfigError: If an entry is no JSON value, or all of them are too large for a record.
        """
        try:
            text = json_text(self.to_dict())
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the record holds what is no JSON value: {error}") from None
        if len(text) > MAX_WRITTEN_BYTES:
            raise ConfigError(
                f"the record has {len(text)} bytes; the most is {MAX_WRITTEN_BYTES}: keep results for each class or "
                "video in files of their own"
            )
        return text


Record: TypeAlias = ModelRecord | Mapping[str, Any]


def as_record(record: Record) -> ModelRecord:
    """Return a record, given one or plain values such as those of a `videomae.json`.

    Raises:
        ConfigError: If an entry is not what it should be, or all of them are too large for a record.
    """
    checked = record if isinstance(record, ModelRecord) else ModelRecord.from_dict(record)
    checked.to_json()
    return checked


def save_record(folder: Path, record: Record) -> None:
    """Write `videomae.json` atomically into a folder, which is made if it is missing.

    Raises:
        ConfigError: If an entry is not what it should be, or all of them are too large for a record.
        WeightsError: If the disk refuses.
    """
    checked = record if isinstance(record, ModelRecord) else ModelRecord.from_dict(record)
    write_text_file(folder / RECORD_FILE, checked.to_json())


def load_record(folder: Path) -> ModelRecord:
    """Read the `videomae.json` of a folder; empty for a folder without one, such as those that transformers writes.

    Raises:
        WeightsError: If it cannot be read, or an entry is not what it should be.
    """
    path = folder / RECORD_FILE
    return read_record(path) if path.is_file() else ModelRecord()


def read_record(path: Path) -> ModelRecord:
    """Read a `videomae.json`; see `load_record`."""
    values = read_json(path, max_bytes=MAX_READ_BYTES)
    try:
        return ModelRecord.from_dict(values)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from None


def sampling_from(values: Mapping[str, Any]) -> ClipConfig | None:
    """Read the clip entry of a `videomae.json` or `video_preprocessor_config.json`; None where there is none.

    Raises:
        ConfigError: If the entry is no clip.
    """
    entry = values.get(CLIP)
    if entry is None:
        return None
    names = [one.name for one in dataclasses.fields(ClipConfig)]
    if not isinstance(entry, Mapping) or set(entry) | {"fps"} != set(names):  # fps: not in folders of first versions
        raise ConfigError(f"the clip entry is {entry!r}; it must be an object with {', '.join(names)}")
    for name in ("num_frames", "stride"):
        if isinstance(entry[name], bool) or not isinstance(entry[name], int):
            raise ConfigError(f"clip.{name} is {entry[name]!r}; it must be a whole number of frames")
    fps = entry.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float | None):
        raise ConfigError(f"clip.fps is {fps!r}; it must be a number of frames a second, or null")
    return ClipConfig(**entry)


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}; it must be an object")
    return value


def _thresholds(entry: Any) -> Mapping[str, float]:
    thresholds = {name: _number(f"{THRESHOLDS}.{name}", value) for name, value in _mapping(THRESHOLDS, entry).items()}
    for name, value in thresholds.items():
        if value is None or not 0 <= value <= 1:
            raise ConfigError(f"{THRESHOLDS}.{name} is {value!r}; a score from which a label counts is in [0, 1]")
    return thresholds


def _number(name: str, value: Any, *, whole: bool = False) -> Any:
    if value is None:
        return None
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        raise ConfigError(f"{name} is {value!r}; it must be a {'whole ' if whole else ''}number")
    return value
