"""What an evaluation found, and the file it is kept in.

The file, `evaluation.json` in the folder of a run, has everything: settings, figures, each class, each video. It is
strict JSON with one line for a class or a video. A model folder's `videomae.json` keeps the summary alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from videomae.atomic import write_text_atomic
from videomae.data.datasets import BadVideo
from videomae.errors import RunError
from videomae.evaluation.configs import EvaluationConfig as EvaluationConfig
from videomae.evaluation.configs import ViewsConfig
from videomae.evaluation.metrics import Metrics, compute_metrics
from videomae.video.sampling import ClipConfig

EVALUATION_FILE = "evaluation.json"


@dataclass(frozen=True)
class VideoResult:
    """The classifier's output for one video."""

    path: str
    """Path relative to the data's root, with forward slashes."""
    label: int
    """True class, by the classifier's ids."""
    prediction: int
    """Most probable class."""
    probabilities: tuple[float, ...]
    """`[K]` mean over the views of each view's softmax."""


@dataclass(frozen=True)
class EvaluationResult:
    """Everything an evaluation found."""

    root: str
    """Folder that the paths are relative to."""
    classes: tuple[str, ...]
    """K names, by the classifier's ids."""
    rows: tuple[VideoResult, ...]
    """One for each video that could be read, in the manifest's order."""
    metrics: Metrics
    """Figures over `rows`."""
    bad: tuple[BadVideo, ...]
    """Videos that could not be read; they count neither as right nor as wrong."""
    clip: ClipConfig
    """How clips were sampled."""
    config: EvaluationConfig
    """How the evaluation was run."""

    def metrics_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON values: figures, and the number of videos that could not be read.

        Its size does not depend on the number of classes or videos; `to_json` has the rest.
        """
        return {**self.metrics.to_dict(), "num_bad_videos": len(self.bad)}

    def to_json(self) -> str:
        """Return the whole result as strict JSON text; `load_evaluation` reads it from a file.

        Beside the settings and the summary: `per_class`, `[K]` accuracies; `confusion`, for each true class the pairs
        `[predicted class, videos]` that are not zero; `bad_videos`; `videos`, all of them with their probabilities.
        """
        values = {
            "root": self.root,
            "classes": self.classes,
            "clip": asdict(self.clip),
            "config": asdict(self.config),
            "metrics": self.metrics_dict(),
            "per_class": self.metrics.per_class,
        }
        pairs = [[[column, count] for column, count in enumerate(row) if count] for row in self.metrics.confusion]
        lines = [f"{json.dumps(name)}: {_json(value)}" for name, value in values.items()]
        lines.append(f'"confusion": {_lines(pairs)}')
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

    def summary(self) -> list[str]:
        """Return lines for people: accuracy, and every video that could not be read with its reason."""
        metrics, interval = self.metrics, self.metrics.top1_interval
        lines = [
            f"top-1 {metrics.top1:.2%} (95 % interval {interval.low:.1%} to {interval.high:.1%})",
            f"videos {metrics.num_videos}",
            *([] if metrics.top5 is None else [f"top-5 {metrics.top5:.2%}"]),
            f"mean over classes {metrics.mean_class:.2%}",
        ]
        if self.bad:
            total = len(self.bad) + len(self.rows)
            lines.append(f"{len(self.bad)} of {total} videos could not be read and are not counted:")
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
        rows = tuple(
            VideoResult(one["path"], one["label"], one["prediction"], tuple(one["probabilities"]))
            for one in values["videos"]
        )
        return EvaluationResult(
            root=values["root"],
            classes=tuple(values["classes"]),
            rows=rows,
            metrics=compute_metrics(
                np.array([row.probabilities for row in rows]), np.array([row.label for row in rows])
            ),
            bad=tuple(BadVideo(**one) for one in values["bad_videos"]),
            clip=ClipConfig(**values["clip"]),
            config=EvaluationConfig(**{**config, "views": ViewsConfig(**config["views"])}),
        )
    except OSError as error:
        raise RunError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{os.fspath(path)} is no result of an evaluation ({type(error).__name__}: {reason}): give a file that "
            f"videomae evaluate --out wrote, or the {EVALUATION_FILE} of a run"
        ) from None


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _lines(rows: Iterable[Any]) -> str:
    """Return a JSON list with one line for each entry."""
    return "[\n" + ",\n".join(_json(row) for row in rows) + "\n]"
