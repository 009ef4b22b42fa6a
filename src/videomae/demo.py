"""The whole job in one call: videos, pre-training, fine-tuning, the same from random weights, and a report.

The numbers of the report are those in the runs' `metrics.jsonl` and model folders. Run as `videomae demo`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae.data.synthetic import MOTION_CLASSES, write_motion_videos
from videomae.engine.progress import TrainingProgress
from videomae.engine.runlog import MetricsLog
from videomae.errors import RunError
from videomae.inference.loaded import load_pretraining
from videomae.inference.reconstruction import reconstruct_video
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, load_recipe, recipe_to_dict
from videomae.report.figures import Curve, RunAccuracy, SeedAccuracy, accuracy_comparison, loss_curves
from videomae.report.page import (
    Chart,
    Command,
    Facts,
    Section,
    Table,
    Text,
    flat_settings,
    render_report,
    versions,
    write_report,
)
from videomae.report.sections import (
    evaluation_section,
    predictions_section,
    reconstruction_section,
    training_section,
)
from videomae.train.finetune import FinetuneResult, finetune
from videomae.train.pretrain import pretrain

REPORT_FILE = "report.html"
UNLABELLED_PER_CLASS = 40
LABELLED_PER_CLASS = 60
VIDEO_FRAMES = 32
VIDEO_SIZE = 64
NUM_RECONSTRUCTIONS = 2


@dataclass(frozen=True)
class _Results:
    """What the three runs left behind."""

    pretraining: list[dict[str, Any]]
    """Lines of the pre-training run's metrics."""
    pretrained: FinetuneResult
    """Fine-tuned from the pre-trained encoder."""
    random: FinetuneResult
    """Trained alike from random weights."""
    recipes: Mapping[str, Mapping[str, Any]]
    """Resolved recipe of each run."""


def run_demo(out: Path, *, data: Path | None = None, seed: int = 0, overwrite: bool = False) -> Path:
    """Do the whole job and write the report.

    Args:
        out: Folder for the videos, the three runs and the report.
        data: Your own labelled clips, a folder for each class; None makes motion videos.
        seed: Of the videos and of all three runs.
        overwrite: Replace the runs and the report that are in `out`.

    Returns:
        The report, `out/report.html`.

    Raises:
        VideoMAEError: If the clips or the folder cannot be used.
    """
    report = out / REPORT_FILE
    if report.exists() and not overwrite:
        raise RunError(f"{report} exists already: give --overwrite to replace the demonstration, or another --out")
    unlabelled, labelled = (data, data) if data is not None else _motion_videos(out / "videos", seed)
    words = ["--loop.seed", str(seed)]

    _say("1 of 3: pre-training without labels")
    first = load_recipe(PretrainRecipe, "demo", ["--data.train", str(unlabelled), *words])
    model = pretrain(first, out=out / "pretrain", overwrite=overwrite)
    _say("2 of 3: fine-tuning from the pre-trained encoder")
    words += ["--data.train", str(labelled)]
    second = load_recipe(FinetuneRecipe, "demo", [*words, "--init", str(model)])
    pretrained = finetune(second, out=out / "finetune", overwrite=overwrite)
    _say("3 of 3: the same fine-tuning from random weights")
    third = load_recipe(FinetuneRecipe, "demo", words)
    random = finetune(third, out=out / "from-random", overwrite=overwrite)

    results = _Results(
        pretraining=MetricsLog.read(out / "pretrain" / "metrics.jsonl"),
        pretrained=pretrained,
        random=random,
        recipes={
            "Pre-training": recipe_to_dict(first),
            "Fine-tuning from the pre-trained encoder": recipe_to_dict(second),
            "Fine-tuning from random weights": recipe_to_dict(third),
        },
    )
    for name, run in (("pre-trained", pretrained), ("random weights", random)):
        metrics = run.evaluation.metrics
        print(f"{name}: top-1 {metrics.top1:.1%} of {metrics.num_videos} videos (seed {seed})")
    write_report(report, _render(out, results, own_data=data is not None, seed=seed))
    return report


def _motion_videos(folder: Path, seed: int) -> tuple[Path, Path]:
    """Write the unlabelled and the labelled videos; no video is in both."""
    unlabelled, labelled = folder / "unlabelled", folder / "labelled"
    _write_videos(unlabelled, UNLABELLED_PER_CLASS, seed=2 * seed)
    _write_videos(labelled, LABELLED_PER_CLASS, seed=2 * seed + 1)
    return unlabelled, labelled


def _write_videos(folder: Path, per_class: int, *, seed: int) -> None:
    total = len(MOTION_CLASSES) * per_class
    with TrainingProgress(f"making {folder.name} videos", total_steps=total) as progress:

        def show(number: int, _: int) -> None:
            progress.update(number, num_clips=1)

        write_motion_videos(
            folder, videos_per_class=per_class, size=VIDEO_SIZE, num_frames=VIDEO_FRAMES, seed=seed, on_progress=show
        )


def _say(line: str) -> None:
    print(f"\n{line}", flush=True)


def _render(out: Path, results: _Results, *, own_data: bool, seed: int) -> str:
    validation = results.pretrained.evaluation
    best, chance = validation.metrics.top1, 1 / len(validation.classes)
    sections = [
        _comparison_section(out, results, own_data=own_data, seed=seed),
        training_section(results.pretraining, title="Pre-training without labels"),
        _reconstructions(out, results.pretrained),
        evaluation_section(validation, title="Evaluation of the run from the pre-trained encoder"),
        predictions_section(validation, title="Predictions of the run from the pre-trained encoder"),
        evaluation_section(results.random.evaluation, title="Evaluation of the run from random weights"),
        Section("How this was made", [*_settings(results), versions(), Command(["videomae", *sys.argv[1:]])]),
    ]
    source = "your own clips" if own_data else "motion videos made for this page"
    summary = (
        f"A network pre-trained on {source} without labels, then fine-tuned, names the class of {best:.1%} of "
        f"{validation.metrics.num_videos} videos it was not trained on; chance is {chance:.1%}."
    )
    return render_report("VideoMAE, from videos to a classifier", sections, summary=summary)


def _comparison_section(out: Path, results: _Results, *, own_data: bool, seed: int) -> Section:
    runs = {"pre-trained": results.pretrained, "random weights": results.random}
    rows = [
        (
            name,
            seed,
            f"{run.evaluation.metrics.top1:.1%}",
            f"{run.evaluation.metrics.top1_interval.low:.1%} to {run.evaluation.metrics.top1_interval.high:.1%}",
            run.evaluation.metrics.num_videos,
        )
        for name, run in runs.items()
    ]
    accuracies = [RunAccuracy(name, (_seed_accuracy(run, seed),)) for name, run in runs.items()]
    curves = [
        _curve(name, MetricsLog.read(out / folder / "metrics.jsonl"))
        for name, folder in (("pre-trained", "finetune"), ("random weights", "from-random"))
    ]
    gap = results.pretrained.evaluation.metrics.top1 - results.random.evaluation.metrics.top1
    if gap > 0:
        verdict = "Here the pre-trained encoder won"
    elif gap < 0:
        verdict = "Here the random weights won"
    else:
        verdict = "Here neither won"
    notes = [Text(f"{verdict}. One seed each: where the intervals overlap, the difference may be chance.")]
    if own_data:
        notes.append(
            Text(
                "Pre-training saw all clips, those of the validation set too, without their labels. Clips of one "
                "recording may stand on both sides of the split; where they look alike, the accuracy is too high.",
                is_warning=True,
            )
        )
    chance = 1 / len(results.pretrained.evaluation.classes)
    return Section(
        "The same fine-tuning from two starting points",
        [
            Table(("started from", "seed", "top-1", "95 % interval", "validation videos"), rows),
            Chart(accuracy_comparison(accuracies, chance=chance), "Dashed: chance."),
            *notes,
            Chart(loss_curves(curves), "Training loss of both runs, mean of ten steps."),
        ],
    )


def _seed_accuracy(run: FinetuneResult, seed: int) -> SeedAccuracy:
    rows = run.evaluation.rows
    return SeedAccuracy(seed, sum(row.prediction == row.label for row in rows), len(rows))


def _curve(name: str, records: Sequence[Mapping[str, Any]], *, window: int = 10) -> Curve:
    """Return the loss of a run, each point the mean of `window` steps."""
    losses = [(record["step"], record["loss"]) for record in records if "loss" in record]
    groups = [losses[start : start + window] for start in range(0, len(losses), window)]
    steps = [group[-1][0] for group in groups]
    return Curve(name, steps, [sum(loss for _, loss in group) / len(group) for group in groups])


def _reconstructions(out: Path, result: FinetuneResult) -> Section:
    """Reconstruct the first validation videos, which fine-tuning did not train on."""
    loaded = load_pretraining(out / "pretrain")
    evaluation = result.evaluation
    spread = evaluation.rows[:: max(len(evaluation.rows) // NUM_RECONSTRUCTIONS, 1)][:NUM_RECONSTRUCTIONS]
    pictures = [("pre-trained", reconstruct_video(loaded, Path(evaluation.root) / row.path)) for row in spread]
    return reconstruction_section(pictures)


def _settings(results: _Results) -> list[Facts]:
    return [Facts(flat_settings(recipe), caption=name) for name, recipe in results.recipes.items()]
