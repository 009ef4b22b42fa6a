"""What an evaluation found, and the file it is kept in.

The file, `evaluation.json` in the folder of a run, has everything: settings, figures, each class, each video. It is
strict JSON with one line for a class or a video. A model folder's `videomae.json` keeps the summary alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from videomae.atomic import write_text_atomic
from videomae.data.configs import ProblemType
from videomae.data.datasets import BadVideo
from videomae.errors import RunError
from videomae.evaluation.agreement import Agreement
from videomae.evaluation.configs import EvaluationConfig as EvaluationConfig
from videomae.evaluation.configs import ViewsConfig
from videomae.evaluation.label_metrics import LabelMetrics, compute_label_metrics
from videomae.evaluation.metrics import Metrics, compute_metrics
from videomae.evaluation.uncertainty import group_numbers
from videomae.evaluation.value_metrics import ValueMetrics, compute_value_metrics
from videomae.inference.scores import DEFAULT_THRESHOLD
from videomae.video.sampling import ClipConfig

EVALUATION_FILE = "evaluation.json"
AnyMetrics: TypeAlias = Metrics | LabelMetrics | ValueMetrics


@dataclass(frozen=True)
class VideoResult:
    """The model's output for one video."""

    path: str
    """Path relative to the data's root, with forward slashes."""
    label: int
    """True class, by the classifier's ids; -1 where `targets` says what is right."""
    prediction: int
    """Output with the largest score: the most probable class."""
    probabilities: tuple[float, ...]
    """`[K]` mean over the views of each view's scores: softmax, sigmoids, or the values of a regression."""
    group: str | None = None
    """What the video belongs to; None where nothing says it."""
    targets: tuple[float, ...] = ()
    """`[K]` 0 or 1 for each label, or the true values; empty for a choice between classes."""


@dataclass(frozen=True)
class EvaluationResult:
    """Everything an evaluation found."""

    root: str
    """Folder that the paths are relative to."""
    classes: tuple[str, ...]
    """K names, by the classifier's ids."""
    rows: tuple[VideoResult, ...]
    """One for each video that could be read, in the manifest's order."""
    metrics: AnyMetrics
    """Figures over `rows`; of which kind follows from `problem`."""
    bad: tuple[BadVideo, ...]
    """Videos that could not be read; they count neither as right nor as wrong."""
    clip: ClipConfig
    """How clips were sampled."""
    config: EvaluationConfig
    """How the evaluation was run."""
    problem: ProblemType = "single_label_classification"
    """What the outputs are."""
    thresholds: tuple[float, ...] = ()
    """`[K]` score from which each label counts as present; empty where no label is independent of the others."""
    agreement: Agreement | None = None
    """What `config.speed` changed and gained; None at speed 1."""

    @property
    def choice(self) -> Metrics:
        """The figures of a choice between classes.

        Raises:
            RunError: If the outputs are something else.
        """
        if not isinstance(self.metrics, Metrics):
            raise RunError(f"the evaluation is of a {self.problem.replace('_', ' ')}: it has no top-1 accuracy")
        return self.metrics

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the scores and the targets of all videos, `[n, K]` each; targets of a choice are empty."""
        scores = np.array([row.probabilities for row in self.rows], dtype=np.float64)
        return scores, np.array([row.targets for row in self.rows], dtype=np.float64)

    def metrics_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON values: figures, and the number of videos that could not be read.

        Its size does not depend on the number of classes or videos; `to_json` has the rest.
        """
        speed = {} if self.agreement is None else {"speed": self.agreement.to_dict()}
        return {**self.metrics.to_dict(), "num_bad_videos": len(self.bad), **speed}

    def to_json(self) -> str:
        """Return the whole result as strict JSON text; `load_evaluation` reads it from a file.

        Beside the settings and the summary: what is known of each class, for a choice `per_class`, `[K]` accuracies,
        `precision`, and `confusion`, for each true class the pairs `[predicted class, videos]` that are not zero;
        `bad_videos`; `videos`, all of them with their probabilities.
        """
        values = {
            "root": self.root,
            "classes": self.classes,
            "clip": asdict(self.clip),
            "config": asdict(self.config),
            "problem": self.problem,
            "thresholds": self.thresholds,
            "metrics": self.metrics_dict(),
        }
        lines = [f"{json.dumps(name)}: {_json(value)}" for name, value in values.items()]
        for name, rows in self.metrics.details().items():
            lines.append(f'"{name}": {_lines(rows) if name == "confusion" else _json(rows)}')
        lines.append(f'"bad_videos": {_lines(asdict(one) for one in self.bad)}')
        lines.append(f'"videos": {_lines(asdict(one) for one in self.rows)}')
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to a file, atomically.

        Raises:
            RunError: If it cannot be written.
        """
        try:
            write_text_atomic(Path(path), self.to_json())
        except OSError as error:
            raise RunError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from None

    def figures(self) -> list[str]:
        """Return the figures for people."""
        return [*self.metrics.lines(), *([] if self.agreement is None else self.agreement.lines())]

    def summary(self) -> list[str]:
        """Return lines for people: the figures, and every video that could not be read with its reason."""
        lines = self.figures()
        if self.bad:
            total = len(self.bad) + len(self.rows)
            lines.append(f"{len(self.bad)} of {total} videos could not be read, left out of the figures:")
            lines += [f"  {one.path}: {one.reason}" for one in self.bad]
        return lines


def load_evaluation(path: str | os.PathLike[str]) -> EvaluationResult:
    """Read what `EvaluationResult.save` wrote; the figures are computed again from the videos, and are equal.

    Raises:
        RunError: If the file cannot be read or holds something else.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        config = values["config"]
        problem = values.get("problem", "single_label_classification")
        thresholds = tuple(values.get("thresholds", ()))
        agreement = values["metrics"].get("speed")
        rows = tuple(
            VideoResult(
                one["path"],
                one["label"],
                one["prediction"],
                tuple(one["probabilities"]),
                one.get("group"),
                tuple(one.get("targets", ())),
            )
            for one in values["videos"]
        )
        return EvaluationResult(
            root=values["root"],
            classes=tuple(values["classes"]),
            rows=rows,
            metrics=metrics_of(rows, problem, thresholds),
            bad=tuple(BadVideo(**one) for one in values["bad_videos"]),
            clip=ClipConfig(**values["clip"]),
            config=EvaluationConfig(**{**config, "views": ViewsConfig(**config["views"])}),
            problem=problem,
            thresholds=thresholds,
            agreement=None if agreement is None else Agreement.from_dict(agreement),
        )
    except OSError as error:
        raise RunError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{os.fspath(path)} is no result of an evaluation ({type(error).__name__}: {reason}): give a file that "
            f"videomae evaluate --out wrote, or the {EVALUATION_FILE} of a run"
        ) from None


def metrics_of(rows: Sequence[VideoResult], problem: ProblemType, thresholds: Sequence[float] = ()) -> AnyMetrics:
    """Compute the figures of some videos.

    Args:
        rows: At least one.
        problem: What the outputs are.
        thresholds: `[K]` for several labels; empty: 0.5 for all.

    Raises:
        ValueError: If the rows are not of that problem, or there is none.
    """
    scores = np.array([row.probabilities for row in rows], dtype=np.float64)
    groups = group_numbers([row.group for row in rows])
    if problem == "single_label_classification":
        return compute_metrics(scores, np.array([row.label for row in rows], dtype=np.int64), groups)
    targets = np.array([row.targets for row in rows], dtype=np.float64)
    if problem == "regression":
        return compute_value_metrics(scores, targets, groups)
    chosen = thresholds or [DEFAULT_THRESHOLD] * scores.shape[1]
    return compute_label_metrics(scores, targets, chosen, groups)


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _lines(rows: Iterable[Any]) -> str:
    """Return a JSON list with one line for each entry."""
    return "[\n" + ",\n".join(_json(row) for row in rows) + "\n]"
