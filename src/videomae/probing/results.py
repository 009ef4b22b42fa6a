"""What a probe found, and the file it is kept in: `probe.json`, strict JSON, one line for a video."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from videomae.atomic import write_text_atomic
from videomae.data.datasets import BadVideo
from videomae.errors import RunError
from videomae.evaluation.uncertainty import Bin, Interval
from videomae.probing.measures import LearningCurve
from videomae.video.sampling import ClipConfig
from videomae.wording import counted

PROBE_FILE = "probe.json"
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class ProbeAccuracy:
    """One kind of probe on videos of groups that it had not seen."""

    name: str
    """linear, attentive, k-NN."""
    accuracy: float
    """Fraction of the videos that were classified correctly, each by the fold that did not train on its group."""
    interval: Interval
    """95 % bootstrap interval over groups."""
    chosen: tuple[float, ...]
    """What inner cross-validation chose in each fold: C, or k."""
    minus_linear: tuple[float, Interval] | None
    """Difference to the linear probe on the same videos, with its interval; None for the linear probe itself."""


@dataclass(frozen=True)
class CurvePoint:
    """The linear probe with fewer labels."""

    num_labels: int
    """Labelled videos that it was trained on, mean over the folds."""
    accuracy: float
    """Mean over folds and random choices of these videos."""
    interval: Interval
    """95 % bootstrap interval over groups."""


@dataclass(frozen=True)
class ProbeVideo:
    """The linear probe's output for one video."""

    path: str
    """Relative to the data's root, with forward slashes."""
    group: str
    """Its group; its own path where none was given."""
    label: int
    """True class."""
    prediction: int
    """Most probable class."""
    confidence: float
    """Probability of that class."""


@dataclass(frozen=True)
class ProbeResult:
    """Everything a probe found. Accuracies are fractions in [0, 1]."""

    model: str
    """Where the model came from, as it was given."""
    data: str
    """The folder of the videos."""
    classes: tuple[str, ...]
    """K names, by class id."""
    class_counts: tuple[int, ...]
    """Videos of each."""
    num_groups: int
    """Groups, or videos where no groups were given."""
    has_groups: bool
    """Whether groups were given."""
    clip: ClipConfig
    """How clips were sampled."""
    folds: int
    """Outer folds."""
    majority: float
    """Accuracy of always answering the most frequent class."""
    probes: tuple[ProbeAccuracy, ...]
    """The linear one first."""
    mean_class: float
    """Mean of the classes' accuracies, linear probe."""
    confusion: tuple[tuple[int, ...], ...]
    """`[K, K]` numbers of videos, row = true class, linear probe."""
    calibration_error: float
    """Expected calibration error of the linear probe."""
    reliability: tuple[Bin, ...]
    """The table behind it."""
    curve: tuple[CurvePoint, ...]
    """The linear probe with fewer labels, fewest first."""
    curve_fit: LearningCurve
    """A power law through it."""
    gain: float
    """Accuracy that twice as many labels are expected to add to the linear probe."""
    gain_interval: Interval
    """Its 95 % bootstrap interval over groups."""
    advice: str
    """A sentence."""
    penalty: float
    """C of the saved probe, chosen over all videos."""
    num_cached: int
    """Videos whose features were not computed anew."""
    seconds: dict[str, float]
    """Time of each part."""
    bad: tuple[BadVideo, ...]
    """Videos that could not be read."""
    videos: tuple[ProbeVideo, ...]
    """All others."""

    @property
    def linear(self) -> ProbeAccuracy:
        """The linear probe, which is the one that is saved."""
        return self.probes[0]

    def lines(self) -> list[str]:
        """Return lines for people."""
        lines = [f"accuracy over {self.folds} folds of {'groups' if self.has_groups else 'videos'}:"]
        for probe in self.probes:
            text = f"  {probe.name:<10} {probe.accuracy:.1%} ({_range(probe.interval)})"
            if probe.minus_linear is not None:
                text += f", minus linear {probe.minus_linear[0]:+.1%} ({_range(probe.minus_linear[1], sign=True)})"
            lines.append(text)
        lines.append(f"  {'majority':<10} {self.majority:.1%}")
        points = ", ".join(f"{point.num_labels} {point.accuracy:.1%}" for point in self.curve)
        lines.append(f"linear by number of labels: {points}")
        lines.append(f"twice the labels: {self.gain:+.1%} expected ({_range(self.gain_interval, sign=True)})")
        lines.append(f"calibration error of the linear probe: {self.calibration_error:.1%}")
        if self.bad:
            lines.append(f"{counted(len(self.bad), 'video')} could not be read, left out of the figures:")
            lines += [f"  {one.path}: {one.reason}" for one in self.bad]
        return [*lines, f"advice: {self.advice}"]

    def to_json(self) -> str:
        """Return everything as strict JSON text."""
        values: dict[str, Any] = asdict(self)
        bulky = {name: values.pop(name) for name in ("bad", "videos")}
        lines = [f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in values.items()]
        lines += [f"{json.dumps(name)}: {_rows(rows)}" for name, rows in bulky.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def save(self, folder: Path) -> None:
        """Write `probe.json` into a folder, atomically.

        Raises:
            RunError: If it cannot be written.
        """
        try:
            write_text_atomic(folder / PROBE_FILE, self.to_json())
        except OSError as error:
            raise RunError(f"cannot write {folder / PROBE_FILE}: {error.strerror or error}") from None


def _rows(rows: Iterable[Any]) -> str:
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    return f"[\n{lines}\n]" if lines else "[]"


def _range(interval: Interval, *, sign: bool = False) -> str:
    return f"{interval.low:{'+' if sign else ''}.1%} to {interval.high:{'+' if sign else ''}.1%}"
