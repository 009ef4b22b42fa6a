"""The demonstration, end to end: what the shipped model predicts of hidden patches, and what that is worth.

The shipped model goes on pre-training on unlabelled clips for half a minute; then three classifiers are trained on a
few labelled ones: from the pre-trained model, from the same model untrained, and from scratch. The numbers of the
report are those of the runs' files. Run as `videomae demo`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from videomae.data.remote_folder import joined
from videomae.data.synthetic import MOTION_CLASSES, write_motion_videos
from videomae.engine.progress import TrainingProgress
from videomae.engine.runlog import MetricsLog
from videomae.engine.seeding import derive_seed
from videomae.errors import RunError
from videomae.evaluation.uncertainty import Interval, group_draws, percentiles
from videomae.inference.loaded import load_pretraining
from videomae.inference.reconstruction import reconstruct_video
from videomae.masking import MaskConfig
from videomae.model.config import VideoMAEConfig
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.monitor.history import NAMES, History, read_history
from videomae.recipes.schema import FinetuneRecipe, NetworkConfig, PretrainRecipe, load_recipe, recipe_to_dict
from videomae.report.figures import Curve, RunAccuracy, SeedAccuracy, accuracy_comparison, loss_curves
from videomae.report.page import (
    Block,
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
)
from videomae.train.finetune import FinetuneResult, finetune
from videomae.train.initial import as_built
from videomae.train.lookup import initialize_lookup
from videomae.train.pretrain import pretrain
from videomae.train.resume import saved_recipe
from videomae.weights.shipped import shipped_folder

REPORT_FILE = "report.html"
UNLABELLED_PER_CLASS = 16
LABELLED_PER_CLASS = 5
TEST_PER_CLASS = 16
VIDEO_FRAMES = 32
VIDEO_SIZE = 64
NUM_RECONSTRUCTIONS = 2
PRETRAINED = "pre-trained"
UNTRAINED = "untrained"
SCRATCH = "from scratch"
STARTS = {PRETRAINED: "finetune", UNTRAINED: "from-untrained", SCRATCH: "from-scratch"}
"""Run folder of each fine-tuning run, by what it starts from."""

# Each start has the best of its rates on other clips than these: the pre-trained one that of the recipe, of four; the
# controls these, of 1e-2 (from scratch), 3.2e-2, 9.6e-2 and 0.32. From scratch, half as many steps again for
# those of pre-training.
UNTRAINED_OPTIONS = ("--optim.base_lr", "0.32")
SCRATCH_OPTIONS = ("--schedule.steps", "60", "--optim.base_lr", "3.2e-2")
CONTROLS = (
    f"Differences are paired by video, with bootstrap intervals. '{UNTRAINED}' is the same model with the initial "
    "values that pre-training started from and a rate of its own: what pre-training did is the difference to it. "
    f"'{SCRATCH}' is a classifier from its own random weights, with half as many steps again. Neither "
    "was given the three minutes on a GPU in which the shipped model was pre-trained on procedural clips alone; with "
    "longer controls and more seeds: docs/learning.md. One seed here."
)


@dataclass(frozen=True)
class _Results:
    """What the runs left behind."""

    monitor: list[dict[str, Any]]
    """Lines of the pre-training run's `monitor.jsonl`."""
    finetuned: Mapping[str, FinetuneResult]
    """Fine-tuning run by the name of what it started from, in the order of `STARTS`."""
    recipes: Mapping[str, Mapping[str, Any]]
    """Recipe of each run, as it was used."""

    @property
    def pretrained(self) -> FinetuneResult:
        """The run from the pre-trained encoder."""
        return self.finetuned[PRETRAINED]

    @property
    def history(self) -> History | None:
        """What the monitor measured; None where it was switched off or the run too short."""
        return read_history(self.monitor)

    def gain(self, control: str) -> tuple[float, Interval]:
        """Return the accuracy of the pre-trained run minus a control's on the same videos, with its 95 % interval."""
        correct = [
            {row.path: row.prediction == row.label for row in self.finetuned[name].evaluation.rows}
            for name in (PRETRAINED, control)
        ]
        both = sorted(correct[0].keys() & correct[1].keys())
        difference = np.array([[float(correct[0][path]) - float(correct[1][path]) for path in both]])
        draws = group_draws(difference, np.arange(len(both)), rng=np.random.default_rng(0))
        return float(difference.mean()), percentiles(draws[:, 0])


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
    if data is None:
        unlabelled, labelled, test = _motion_videos(out / "videos", seed)
        labels = ["--data.train", str(labelled), "--data.val", str(test)]
    else:
        unlabelled, labels = data, ["--data.train", str(data)]
    seeds = ["--loop.seed", str(seed)]

    _say(f"1 of {1 + len(STARTS)}: the shipped model continues pre-training without labels")
    recipe = load_recipe(PretrainRecipe, "demo", ["--data.train", str(unlabelled), *seeds, *_shipped()])
    pretrained = pretrain(recipe, out=out / "pretrain", overwrite=overwrite)
    starts: dict[str, Sequence[str]] = {
        PRETRAINED: ("--init", str(pretrained)),
        UNTRAINED: ("--init", str(_save_untrained(pretrained, out / "untrained", seed=seed)), *UNTRAINED_OPTIONS),
        SCRATCH: (*_from_scratch(pretrained), *SCRATCH_OPTIONS),
    }
    finetuned = {}
    for number, (name, folder) in enumerate(STARTS.items(), start=2):
        _say(f"{number} of {1 + len(STARTS)}: fine-tuning, {name}")
        tuning = load_recipe(FinetuneRecipe, "demo", [*labels, *seeds, *starts[name]])
        finetuned[name] = finetune(tuning, out=out / folder, overwrite=overwrite)

    recipes = {"Pre-training": recipe_to_dict(saved_recipe(PretrainRecipe, out / "pretrain"))}
    for name, folder in STARTS.items():
        recipes[f"Fine-tuning, {name}"] = recipe_to_dict(saved_recipe(FinetuneRecipe, out / folder))
    results = _Results(MetricsLog.read(out / "pretrain" / "monitor.jsonl"), finetuned, recipes)
    for name, run in finetuned.items():
        metrics, interval = run.evaluation.choice, run.evaluation.choice.top1_interval
        print(
            f"{name}: top-1 {metrics.top1:.1%} of {metrics.num_videos} videos "
            f"(95 % interval {interval.low:.1%} to {interval.high:.1%}, seed {seed})"
        )
    for control in (UNTRAINED, SCRATCH):
        print(_gain_line(results, control))
    write_report(report, _render(out, results, own_data=data is not None, seed=seed))
    return report


def _shipped() -> list[str]:
    """Name the shipped model by its folder: a folder called default may lie where the command runs."""
    return ["--init", str(shipped_folder())]


def _save_untrained(pretrained: Path, folder: Path, *, seed: int) -> Path:
    """Save the control that differs in the training alone: the initial values that the shipped model once had."""
    torch.manual_seed(derive_seed(seed, "untrained"))
    model = VideoMAEForPreTraining(VideoMAEConfig.from_pretrained(pretrained))
    initialize_lookup(model)
    model.save_pretrained(folder)
    return folder


def _from_scratch(pretrained: Path) -> list[str]:
    """Return the arguments of a classifier of the same sizes from its own random weights."""
    config = VideoMAEConfig.from_pretrained(pretrained)
    model = as_built(NetworkConfig(), config, init=str(pretrained), has_decoder=False)
    return ["--init", "null", "--model.overrides", json.dumps(model.overrides)]


def _motion_videos(folder: Path, seed: int) -> tuple[Path, Path, Path]:
    """Write the unlabelled, the labelled and the test videos; no video is in two of them."""
    parts = {"unlabelled": UNLABELLED_PER_CLASS, "labelled": LABELLED_PER_CLASS, "test": TEST_PER_CLASS}
    for number, (name, per_class) in enumerate(parts.items()):
        _write_videos(folder / name, per_class, seed=len(parts) * seed + number)
    return folder / "unlabelled", folder / "labelled", folder / "test"


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
    sections = [
        _reconstructions(out, results),
        _comparison_section(out, results, own_data=own_data, seed=seed),
        *([monitor_section(results.monitor)] if results.history is not None else []),
        evaluation_section(validation, title=f"Evaluation: {PRETRAINED}"),
        predictions_section(validation, title=f"Predictions: {PRETRAINED}"),
        *(
            evaluation_section(results.finetuned[name].evaluation, title=f"Evaluation: {name}")
            for name in STARTS
            if name != PRETRAINED
        ),
        Section("How this was made", [*_settings(results), versions(), Command(["videomae", *sys.argv[1:]])]),
    ]
    return render_report("VideoMAE, from videos to a classifier", sections, summary=_summary(results))


def _summary(results: _Results) -> str:
    """Tell the story in one sentence, whatever it is."""
    metrics, control = (results.finetuned[name].evaluation.choice for name in (PRETRAINED, UNTRAINED))
    gain, interval = results.gain(UNTRAINED)
    verdict = (
        "pre-training helped"
        if interval.low > 0
        else "pre-training harmed"
        if interval.high < 0
        else ("no effect of pre-training is shown")
    )
    return (
        f"The model fills in what it cannot see of clips it has never seen; fine-tuned on a "
        f"few labelled ones it names {metrics.top1:.1%} of {metrics.num_videos} others, the same model without "
        f"pre-training {control.top1:.1%}: {verdict} ({gain:+.1%}, {interval.low:+.1%} to {interval.high:+.1%})."
    )


def _gain_line(results: _Results, control: str) -> str:
    gain, interval = results.gain(control)
    return f"{PRETRAINED} minus {control}: {gain:+.1%} (95 % interval {interval.low:+.1%} to {interval.high:+.1%})"


def _comparison_section(out: Path, results: _Results, *, own_data: bool, seed: int) -> Section:
    rows = [
        (
            name,
            seed,
            f"{run.evaluation.choice.top1:.1%}",
            f"{run.evaluation.choice.top1_interval.low:.1%} to {run.evaluation.choice.top1_interval.high:.1%}",
            run.evaluation.choice.num_videos,
        )
        for name, run in results.finetuned.items()
    ]
    accuracies = [RunAccuracy(name, (_seed_accuracy(run, seed),)) for name, run in results.finetuned.items()]
    curves = [_curve(name, MetricsLog.read(out / folder / "metrics.jsonl")) for name, folder in STARTS.items()]
    notes: list[Block] = [Text(f"{_gain_line(results, control)}.") for control in (UNTRAINED, SCRATCH)]
    notes.append(Text(CONTROLS))
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
        "A few labels, three starting points",
        [
            Table(("started from", "seed", "top-1", "95 % interval", "validation videos"), rows),
            Chart(accuracy_comparison(accuracies, chance=chance), "Dashed: chance."),
            *notes,
            Chart(loss_curves(curves), "Training loss of the three runs, mean of ten steps."),
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


def _reconstructions(out: Path, results: _Results) -> Section:
    """Reconstruct validation videos, which no training has seen but that on own clips, and name the errors."""
    evaluation = results.pretrained.evaluation
    spread = evaluation.rows[:: max(len(evaluation.rows) // NUM_RECONSTRUCTIONS, 1)][:NUM_RECONSTRUCTIONS]
    mask = MaskConfig(ratio=saved_recipe(PretrainRecipe, out / "pretrain").mask.ratio)
    trained, shipped = (load_pretraining(folder) for folder in (out / "pretrain", shipped_folder()))
    shown = [("after half a minute on clips like these", trained, row) for row in reversed(spread)]
    shown.append(("before that, as shipped", shipped, spread[-1]))
    pictures = [
        (name, reconstruct_video(model, joined(Path(evaluation.root), row.path), mask=mask))
        for name, model, row in shown
    ]
    section = reconstruction_section(pictures)
    return Section("What the model sees, and what it fills in", [*section.blocks, *_errors(results.history)])


def _errors(history: History | None) -> list[Block]:
    """Compare the errors on held-out clips with those of predictions that need no learning."""
    if history is None:
        return []
    first, last = history.measurements[0].held_out_loss, history.last.held_out_loss
    rows = [("the shipped model", f"{first:.3f}"), ("after this run", f"{last:.3f}")]
    rows += [(NAMES[name], f"{value:.3f}") for name, value in history.beginning.baselines.items()]
    clips = "held-out" if history.beginning.unseen else "measured"
    below = ", ".join(
        f"{1 - last / value:.0%} below {NAMES[name]}" for name, value in history.beginning.baselines.items()
    )
    return [
        Table(("prediction of the hidden patches", f"error on {history.beginning.num_clips} {clips} clips"), rows),
        Text(f"Mean squared error of normalized patches; the model is now {below}."),
    ]


def _settings(results: _Results) -> list[Facts]:
    return [Facts(flat_settings(recipe), caption=name) for name, recipe in results.recipes.items()]
