"""Fine-tuning of the shipped model with a part of the labels: `python -m experiments.ablations.few_labels DATA OUT`.

DATA holds fight.npz and drone_infrared.npz of `experiments/prepare_clips.py`. Each arm has the best of its rates on
the validation fold. Several processes may share the work. `--table` prints what there is: means over folds, and
differences paired by clip and resampled by recording.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from experiments.ablations.clips import labelled
from experiments.ablations.downstream import fraction_of
from experiments.ablations.measuring import finetune
from experiments.ablations.run import claim, file_name
from experiments.ablations.ways import WAYS
from videomae.evaluation.uncertainty import group_draws, percentiles
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.train.lookup import initialize_lookup
from videomae.weights.shipped import shipped_folder

ARMS = ("shipped", "untrained")
SETS = ("fight", "drone_infrared")
FRACTIONS = (0.1, 0.3)
FOLDS = 5
RATES = (1e-3, 3e-3)


class Job(NamedTuple):
    """One arm on one fold."""

    arm: str
    set: str
    fold: int
    fraction: float

    @property
    def name(self) -> str:
        """Name of its file."""
        return file_name(" ".join(map(str, self)))


def jobs() -> Iterator[Job]:
    """List all jobs, one fold of everything after the other."""
    for fold in range(FOLDS):
        for name in SETS:
            for fraction in FRACTIONS:
                yield from (Job(arm, name, fold, fraction) for arm in ARMS)


def main() -> None:
    """Run all jobs that no process has claimed, or print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=75.0, help="processor time of each fine-tuning")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        table(options.data, options.out)
        return
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for job in jobs():
        file = options.out / f"{job.name}.json"
        if not claim(file):
            continue
        file.write_text(json.dumps({**job._asdict(), **run(job, options.data, seconds=options.seconds)}))
        file.with_suffix(".claimed").unlink()


def run(job: Job, folder: Path, *, seconds: float) -> dict[str, Any]:
    """Return the test accuracy of the rate that is best on validation clips, and those of all."""
    data = labelled(folder, job.set)
    split = data.splits[job.fold]
    train = fraction_of(data, split.train, job.fraction, seed=job.fold)
    model = VideoMAEForPreTraining.from_pretrained(shipped_folder())
    if job.arm == "untrained":
        torch.manual_seed(job.fold)
        model = VideoMAEForPreTraining(model.config)
        initialize_lookup(model)
    way = WAYS["base"]
    rows = [finetune(model, data, split, way, train=train, lr=lr, seconds=seconds, seed=job.fold) for lr in RATES]
    best = max(rows, key=lambda row: float(row["val"]))
    return {**best, "labels": len(train), "rates": {row["lr"]: row["accuracy"] for row in rows}}


def table(folder: Path, out: Path) -> None:
    """Print the table."""
    rows = [json.loads(file.read_text()) for file in sorted(out.glob("*.json"))]
    print(
        "| data | labels | labelled clips | folds | shipped | untrained | difference |\n|---|---|---|---|---|---|---|"
    )
    for name in SETS:
        with np.load(folder / f"{name}.npz") as file:
            recordings, parts = file["groups"], file["folds"]
        for fraction in FRACTIONS:
            found = {
                (row["arm"], row["fold"]): row for row in rows if (row["set"], row["fraction"]) == (name, fraction)
            }
            folds = [fold for fold in range(FOLDS) if all((arm, fold) in found for arm in ARMS)]
            if not folds:
                continue
            groups = np.concatenate([recordings[parts == fold] for fold in folds])
            numbers = np.unique(groups, return_inverse=True)[1]
            ours, theirs = (
                np.concatenate([np.asarray(found[arm, fold]["correct"], dtype=np.float64) for fold in folds])
                for arm in ARMS
            )
            values = np.stack((ours, theirs, ours - theirs))
            spans = [percentiles(draws) for draws in group_draws(values, numbers, rng=np.random.default_rng(0)).T]
            first, second, gain = (
                f"{100 * value.mean():.1f} ({100 * span.low:.1f} to {100 * span.high:.1f})"
                for value, span in zip(values, spans, strict=True)
            )
            labels = round(np.mean([found["shipped", fold]["labels"] for fold in folds]))
            print(f"| {name} | {fraction:.0%} | {labels} | {len(folds)} | {first} | {second} | {gain} |")


if __name__ == "__main__":
    main()
