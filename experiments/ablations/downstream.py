"""Fine-tuning from the models of `run.py`: `python -m experiments.ablations.downstream DATA MODELS OUT`.

MODELS is the OUT of `experiments.ablations.run`. A file for each arm, set, fold (motion: seed) and fraction of the
labels; each arm at the best of its rates on the validation clips. Several processes may share the work.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.ablations.clips import Set, labelled
from experiments.ablations.measuring import finetune, probes, time_means
from experiments.ablations.run import claim, file_name
from experiments.ablations.training import new_model, pretrain
from experiments.ablations.ways import WAYS
from videomae.model.base import draw_linear, drawn_modules
from videomae.model.pretraining import VideoMAEForPreTraining

LONG = "four times the time"
HALF = "twice the time"
RATES = (1e-3, 3e-3)
SETS = {"motion": 3, "fight": 5, "drone_infrared": 5}
"""Labelled sets, and how many folds (motion: seeds) each has."""
FRACTIONS = (0.1, 0.3, 1.0)
"""Of the labels, on the real sets; docs/learning.md has few labels of the motion set."""
LONG_FOLDS = 3
"""Folds of the arms that take minutes each."""


@dataclass(frozen=True)
class Job:
    """One arm on one fold."""

    arm: str
    """procedural, in-domain, both: pre-trained for equal times on generated clips, on the training folds' clips, on
    one after the other; untrained; scratch: untrained, fine-tuned for all the time that the others had; truncated
    normal: untrained, drawn as released classifiers were."""
    set: str
    fold: int
    fraction: float = 1.0
    pooling: str = "mean"

    @property
    def name(self) -> str:
        """Name of its file."""
        return file_name(f"{self.arm} {self.set} {self.fold} {self.fraction} {self.pooling}")


def jobs() -> Iterator[Job]:
    """List all jobs, what matters most first."""
    real = [(name, fold) for name, count in SETS.items() for fold in range(count) if name != "motion"]
    some = [(name, fold) for name, fold in real if fold < LONG_FOLDS]
    for seed in range(SETS["motion"]):
        yield from (Job(arm, "motion", seed) for arm in ("procedural", "untrained", "truncated normal"))
        yield from (Job(arm, "motion", seed, pooling="first") for arm in ("procedural", "untrained"))
    for name, fold in some:
        yield from (Job(arm, name, fold) for arm in ("procedural", "untrained", "both", "in-domain"))
    for fraction in FRACTIONS:
        for name, fold in real:
            yield from (Job(arm, name, fold, fraction) for arm in ("procedural", "untrained"))
    yield from (Job("scratch", name, fold) for name, fold in some)


def main() -> None:
    """Run all jobs that no process has claimed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=40.0, help="processor time that the models of MODELS had")
    parser.add_argument("--finetune-seconds", type=float, default=24.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for job in jobs():
        file = options.out / f"{job.name}.json"
        if not claim(file):
            continue
        row = run(
            job, options.data, options.models, options.out, seconds=options.seconds, tuning=options.finetune_seconds
        )
        file.write_text(json.dumps({**vars(job), **row}))
        file.with_suffix(".claimed").unlink()
        print(job.name, f"{row['accuracy']:.3f}", flush=True)


def run(job: Job, folder: Path, models: Path, out: Path, *, seconds: float, tuning: float) -> dict[str, Any]:
    """Return the test accuracy of the best rate, and that of a linear probe where all labels are used."""
    data = labelled(folder, job.set)
    split = data.splits[job.fold % len(data.splits)]
    train = fraction_of(data, split.train, job.fraction, seed=job.fold)
    budget = seconds * WAYS[LONG].budget
    model = start(job, data, folder, models, seconds=seconds)
    way, extra = WAYS["base"], budget if job.arm == "scratch" else 0.0
    rates: tuple[float, ...] = RATES
    if job.arm == "scratch" and (short := out / f"{replace(job, arm='untrained').name}.json").exists():
        rates = (json.loads(short.read_text())["lr"],)  # chosen in the short run, for the long one takes minutes
    rows = [
        finetune(
            model,
            data,
            split,
            way,
            train=train,
            lr=lr,
            seconds=tuning + extra,
            seed=job.fold,
            pooling=job.pooling,
        )
        for lr in rates
    ]
    best = max(rows, key=lambda row: float(row["val"]))
    found: dict[str, Any] = {**best, "rates": {row["lr"]: row["accuracy"] for row in rows}}
    if job.fraction == 1.0 and job.pooling == "mean" and job.arm != "scratch":
        found["probes"] = probes(time_means(model, data, way), data, split)
    return found


def start(job: Job, data: Set, folder: Path, models: Path, *, seconds: float) -> VideoMAEForPreTraining:
    """Return the model that an arm starts from."""
    seed = job.fold % 3
    model = new_model(WAYS["base"], seed=seed)
    if job.arm in ("procedural", "both"):
        name = LONG if job.arm == "procedural" else HALF
        model.load_state_dict(torch.load(models / f"{file_name(name)}-{seed}.pt"))
    if job.arm in ("in-domain", "both"):
        way = WAYS[LONG if job.arm == "in-domain" else HALF]
        split = data.splits[job.fold % len(data.splits)]
        clips = data.clips[torch.cat((split.train, split.val))]
        pretrain(way, clips, seed=seed, seconds=seconds, model=model)
    if job.arm == "truncated normal":
        for module in drawn_modules(model.videomae):
            draw_linear(module, partial(nn.init.trunc_normal_, std=model.config.initializer_range))
    return model.eval()


def fraction_of(data: Set, rows: Tensor, fraction: float, *, seed: int) -> Tensor:
    """Choose a fraction of the rows of each class at random, at least one of each."""
    generator = torch.Generator().manual_seed(1000 + seed)
    chosen = []
    for label in range(data.num_classes):
        mine = rows[data.labels[rows] == label]
        kept = max(1, round(fraction * len(mine)))
        chosen.append(mine[torch.randperm(len(mine), generator=generator)[:kept]])
    return torch.cat(chosen)


if __name__ == "__main__":
    main()
