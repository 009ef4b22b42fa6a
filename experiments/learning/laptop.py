"""What the recipe `laptop` is worth on a real set: the commands that a user would type, and their controls.

    python -m experiments.learning.laptop ../shared/datasets/fight --out laptop

Pre-training and fine-tuning see the rows of `labels.csv` whose split is train; the rows of test, of other recordings,
are evaluated once. The arms: the shipped model after pre-training on the videos; the shipped model as it is; random
weights with the steps of the second; random weights with the steps of the first, pre-training included. What is done
already is not done again. Prints accuracies and, paired by video and resampled by recording, differences.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videomae.evaluation.uncertainty import group_draws, percentiles

PRETRAIN_STEPS, FINETUNE_STEPS = 600, 300  # those of the recipes


@dataclass(frozen=True)
class Arm:
    """One way to a classifier."""

    init: str
    """What `finetune --init` is told; pre: the run of pre-training."""
    steps: int
    """Of fine-tuning."""
    rates: tuple[str, ...]
    """Base rates; the best on the validation videos counts."""


RECIPE_RATE = "1.6e-2"
ARMS = {
    "pre-trained on the videos": Arm("pre", FINETUNE_STEPS, (RECIPE_RATE,)),
    "default": Arm("default", FINETUNE_STEPS, (RECIPE_RATE,)),
    "random": Arm("null", FINETUNE_STEPS, (RECIPE_RATE, "3.2e-2")),
    "random, all the steps": Arm("null", PRETRAIN_STEPS + FINETUNE_STEPS, (RECIPE_RATE,)),
}


def main() -> None:
    """Run what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    options = parser.parse_args()
    found = {
        name: [arm_correct(ARMS[name], options.data, options.out, seed) for seed in options.seeds]
        for name in options.arms
    }
    groups = groups_of(options.data)
    names = sorted(found[options.arms[0]][0])
    numbers = np.unique([groups[name] for name in names], return_inverse=True)[1]
    means = {arm: np.mean([[one[name] for name in names] for one in runs], axis=0) for arm, runs in found.items()}
    first = means[options.arms[0]]
    print(f"{len(names)} test videos of {numbers.max() + 1} recordings, seeds {options.seeds}")
    for arm, mean in means.items():
        values = np.stack((mean, first - mean))
        own, gain = (percentiles(draws) for draws in group_draws(values, numbers, rng=np.random.default_rng(0)).T)
        print(
            f"{arm}: {100 * mean.mean():.1f} ({100 * own.low:.1f} to {100 * own.high:.1f}); first minus it "
            f"{100 * (first - mean).mean():+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        )


def arm_correct(arm: Arm, data: Path, out: Path, seed: int) -> dict[str, float]:
    """Return for each test video whether the arm is right about it, at the rate that is best on validation videos."""
    manifest, init = data / "labels.csv", arm.init
    if arm.init == "pre":
        run = out / f"pre-{seed}"
        train("pretrain", manifest, run, "--seed", str(seed))
        init = str(run)
    best: tuple[float, Path] | None = None
    for rate in arm.rates:
        run = out / f"{arm.init}-{arm.steps}-{rate}-{seed}"
        words = ("--init", init, "--schedule.steps", str(arm.steps), "--optim.base_lr", rate, "--seed", str(seed))
        train("finetune", manifest, run, *words)
        accuracy = json.loads((run / "evaluation.json").read_text())["metrics"]["top1"]
        if best is None or accuracy > best[0]:
            best = accuracy, run
    assert best is not None
    result = best[1] / "test.json"
    if not result.exists():
        videomae("evaluate", str(best[1]), str(manifest), "--out", str(result))
    rows = json.loads(result.read_text())["videos"]
    return {row["path"]: float(row["label"] == row["prediction"]) for row in rows}


def train(command: str, manifest: Path, run: Path, *words: str) -> None:
    """Train unless it is done, and keep how long it took."""
    if (run / "seconds.txt").exists():
        return
    began = time.monotonic()
    videomae(command, str(manifest), "--config", "laptop", *words, "--out", str(run), "--overwrite")
    (run / "seconds.txt").write_text(f"{time.monotonic() - began:.0f}\n")


def videomae(*words: str) -> None:
    """Run a command of the package."""
    subprocess.run([sys.executable, "-m", "videomae", *words], check=True)


def groups_of(data: Path) -> dict[str, str]:
    """Read the recording of each video."""
    with (data / "labels.csv").open(encoding="utf-8", newline="") as file:
        return {row["path"]: row["group"] for row in csv.DictReader(file)}


if __name__ == "__main__":
    main()
