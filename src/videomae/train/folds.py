"""Cross-validation: a folder with one run for each fold, and the evaluation of all folds together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from videomae.atomic import write_text_atomic
from videomae.data.datasets import BadVideo
from videomae.errors import ConfigError, RunError
from videomae.evaluation.results import EVALUATION_FILE, EvaluationResult, metrics_of
from videomae.recipes.schema import RECIPE_FILE, FinetuneRecipe, recipe_to_yaml
from videomae.train.labelled import labelled_videos

FOLD_FOLDERS = "fold-*"


def open_folds(recipe: FinetuneRecipe, out: Path, *, overwrite: bool, resume: bool) -> Path:
    """Make the folder of a cross-validation, or return to an old one; returns it, absolute.

    Args:
        recipe: With `data.folds`; saved in the folder.
        out: The folder.
        overwrite: Replace the cross-validation that is there.
        resume: Go on with it: finished folds stay, the others go on from their checkpoints.

    Raises:
        ConfigError: If both are asked for, or there are several processes.
        ManifestError: If the videos cannot be divided.
        RunError: If there is something else, or neither is asked for and a cross-validation is there, or none to
            resume. Nothing is changed then.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(
            f"data.folds is {recipe.data.folds} on several processes: train one fold at a time with --data.fold "
            "and an --out of its own"
        )
    if overwrite and resume:
        raise ConfigError("overwrite and resume are both on; the first deletes what the second continues: choose one")
    out = out.resolve()
    labelled_videos(replace(recipe, data=replace(recipe.data, fold=1)))  # all that can be wrong with them
    is_run = (out / RECIPE_FILE).is_file()
    if resume and not is_run:
        raise RunError(f"{out} holds no {RECIPE_FILE}: there is no run to resume; leave out --resume")
    if out.exists() and not is_run and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} holds other files: give another folder with --out")
    if is_run and not (overwrite or resume):
        raise RunError(f"{out} holds a run: give --resume to continue, --overwrite to replace it, or another --out")
    if is_run and overwrite:
        if not any(out.glob(FOLD_FOLDERS)) and (out / "checkpoints").exists():
            raise RunError(f"{out} holds a run without folds: delete it, or give another folder with --out")
        for folder in out.glob(FOLD_FOLDERS):
            shutil.rmtree(folder)
        (out / EVALUATION_FILE).unlink(missing_ok=True)
    if not resume:
        try:
            write_text_atomic(out / RECIPE_FILE, recipe_to_yaml(recipe))
        except OSError as error:
            raise RunError(f"cannot write into {out}: {error.strerror or error}") from None
    return out


def pooled_evaluation(results: Sequence[EvaluationResult]) -> EvaluationResult:
    """Put together the evaluations of all folds: of each video that of the model that was not trained on it.

    Thresholds of several labels are 0.5 for all: each fold's own were chosen on the very videos that it evaluates.
    """
    first = results[0]
    rows = tuple(sorted((row for result in results for row in result.rows), key=lambda row: row.path))
    bad: tuple[BadVideo, ...] = tuple(one for result in results for one in result.bad)
    return replace(first, rows=rows, metrics=metrics_of(rows, first.problem), bad=bad, thresholds=())
