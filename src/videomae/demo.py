"""The demonstration, end to end: videos, pre-training, fine-tuning, the same without pre-training, and a report.

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
from videomae.monitor.history import MONITOR_FILE
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
    monitor_section,
    predictions_section,
    reconstruction_section,
    training_section,
)
from videomae.train.finetune import FinetuneResult, finetune
from videomae.train.pretrain import build_model, pretrain
from videomae.train.resume import saved_recipe

REPORT_FILE = "report.html"
UNLABELLED_PER_CLASS = 40
LABELLED_PER_CLASS = 60
VIDEO_FRAMES = 32
VIDEO_SIZE = 64
NUM_RECONSTRUCTIONS = 2
PRETRAINED = "pre-trained"
UNTRAINED = "untrained"
OWN = "classifier init"
# Run folder of each fine-tuning run, by what it starts from. The pre-training model and the classifier initialize
# their weights differently, and that alone decides much; so what pre-training did shows against the second.
STARTS = {PRETRAINED: "finetune", UNTRAINED: "from-untrained", OWN: "from-random"}


@dataclass(frozen=True)
class _Results:
    """What the runs left behind."""

    pretraining: list[dict[str, Any]]
    """Lines of the pre-training run's metrics."""
    finetuned: Mapping[str, FinetuneResult]
    """Fine-tuning run by the name of what it started from, in the order of `STARTS`."""
    recipes: Mapping[str, Mapping[str, Any]]
    """Recipe of each run, as it was used."""

    @property
    def pretrained(self) -> FinetuneResult:
        """The run from the pre-trained encoder."""
        return self.finetuned[PRETRAINED]


def run_demo(out: Path, *, data: Path | None = None, seed: int = 0, overwrite: bool = False) -> Path:
    """Run the demonstration and write the report.

    Args:
        out: Folder for the videos, the runs and the report.
        data: Your own labelled clips, a folder for each class; None generates motion videos.
        seed: Of the videos and of all runs.
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
    arguments = ["--loop.seed", str(seed)]

    _say(f"1 of {1 + len(STARTS)}: pre-training without labels")
    recipe = load_recipe(PretrainRecipe, "demo", ["--data.train", str(unlabelled), *arguments])
    inits = {
        PRETRAINED: pretrain(recipe, out=out / "pretrain", overwrite=overwrite),
        UNTRAINED: _save_untrained(recipe, out / "untrained"),
        OWN: None,
    }
    finetuned = {}
    for number, (name, folder) in enumerate(STARTS.items(), start=2):
        _say(f"{number} of {1 + len(STARTS)}: fine-tuning, {name}")
        init = ["--init", str(inits[name])] if inits[name] is not None else []
        tuning = load_recipe(FinetuneRecipe, "demo", ["--data.train", str(labelled), *arguments, *init])
        finetuned[name] = finetune(tuning, out=out / folder, overwrite=overwrite)

    recipes = {"Pre-training": recipe_to_dict(saved_recipe(PretrainRecipe, out / "pretrain"))}
    for name, folder in STARTS.items():
        recipes[f"Fine-tuning, {name}"] = recipe_to_dict(saved_recipe(FinetuneRecipe, out / folder))
    results = _Results(MetricsLog.read(out / "pretrain" / "metrics.jsonl"), finetuned, recipes)
    for name, run in finetuned.items():
        metrics, interval = run.evaluation.metrics, run.evaluation.metrics.top1_interval
        print(
            f"{name}: top-1 {metrics.top1:.1%} of {metrics.num_videos} videos "
            f"(95 % interval {interval.low:.1%} to {interval.high:.1%}, seed {seed})"
        )
    write_report(report, _render(out, results, own_data=data is not None, seed=seed))
    return report


def _save_untrained(recipe: PretrainRecipe, folder: Path) -> Path:
    """Save the model that pre-training starts from: the control that differs in the training alone."""
    model, _ = build_model(recipe)
    model.save_pretrained(folder)
    return folder


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
        monitor_section(MetricsLog.read(out / "pretrain" / MONITOR_FILE)),
        _reconstructions(out, results.pretrained),
        evaluation_section(validation, title=f"Evaluation: {PRETRAINED}"),
        predictions_section(validation, title=f"Predictions: {PRETRAINED}"),
        evaluation_section(results.finetuned[UNTRAINED].evaluation, title=f"Evaluation: {UNTRAINED}"),
        evaluation_section(results.finetuned[OWN].evaluation, title=f"Evaluation: {OWN}"),
        Section("How this was made", [*_settings(results), versions(), Command(["videomae", *sys.argv[1:]])]),
    ]
    source = "your own clips" if own_data else "synthetic motion videos"
    control = results.finetuned[UNTRAINED].evaluation.metrics.top1
    summary = (
        f"A model pre-trained on {source} without labels, then fine-tuned, names the class of {best:.1%} "
        f"of {validation.metrics.num_videos} new videos; fine-tuned without pre-training from the same "
        f"initialization, of {control:.1%}; chance is {chance:.1%}."
    )
    return render_report("VideoMAE, from videos to a classifier", sections, summary=summary)


def _comparison_section(out: Path, results: _Results, *, own_data: bool, seed: int) -> Section:
    rows = [
        (
            name,
            seed,
            f"{run.evaluation.metrics.top1:.1%}",
            f"{run.evaluation.metrics.top1_interval.low:.1%} to {run.evaluation.metrics.top1_interval.high:.1%}",
            run.evaluation.metrics.num_videos,
        )
        for name, run in results.finetuned.items()
    ]
    accuracies = [RunAccuracy(name, (_seed_accuracy(run, seed),)) for name, run in results.finetuned.items()]
    curves = [_curve(name, MetricsLog.read(out / folder / "metrics.jsonl")) for name, folder in STARTS.items()]
    notes = [Text(_verdict(results))]
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
        "The same fine-tuning from three starting points",
        [
            Table(("started from", "seed", "top-1", "95 % interval", "validation videos"), rows),
            Chart(accuracy_comparison(accuracies, chance=chance), "Dashed: chance."),
            *notes,
            Chart(loss_curves(curves), "Training loss of the three runs, mean of ten steps."),
        ],
    )


def _verdict(results: _Results) -> str:
    """Say what the three accuracies show of pre-training, and what they do not."""
    trained, untrained = (
        results.finetuned[name].evaluation.metrics.top1_interval for name in (PRETRAINED, UNTRAINED)
    )
    if trained.low > untrained.high:
        effect = "Pre-training helped here"
    elif trained.high < untrained.low:
        effect = "Pre-training harmed here"
    else:
        effect = "No effect of pre-training is shown here: the intervals of the first two overlap"
    return (
        f"{effect}. '{UNTRAINED}' is the model that pre-training started from, so that what pre-training did is the "
        f"difference between the first two. '{OWN}' is the random initialization of the classifier itself, which is "
        "another one; its distance to the others is an effect of initialization too. One seed each."
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
    pictures = [(PRETRAINED, reconstruct_video(loaded, Path(evaluation.root) / row.path)) for row in spread]
    return reconstruction_section(pictures)


def _settings(results: _Results) -> list[Facts]:
    return [Facts(flat_settings(recipe), caption=name) for name, recipe in results.recipes.items()]
