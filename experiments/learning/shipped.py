"""What the shipped weights are worth on two processor cores: fine-tuned and probed beside the untrained model.

    python -m experiments.learning.shipped DATA OUT --sets motion fight drone_infrared

DATA holds what `prepare_clips.py` and `make_motion.py` write. As `run.py main`, without pre-training and on for
less time: each arm at its own best rate, chosen on validation clips; the same folds, clips and seeds. Matrix
products are in bfloat16 where the processor has them. `python -m experiments.learning.analyse OUT` makes the table.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from experiments.learning.run import Budget, Encoders, Run, finetune_set, load_sets, probes
from experiments.learning.settings import ABLATIONS, new_model
from videomae.model.pretraining import VideoMAEForPreTraining

WAY = "normalized_targets"  # that of the shipped model
SETS: dict[str, tuple[int | None, Budget]] = {
    "motion": (5, Budget(steps=100, batch_size=16, rates=(2e-4, 6e-4, 2e-3))),
    "fight": (None, Budget(steps=60, batch_size=8, rates=(2e-4, 6e-4))),
    "drone_infrared": (None, Budget(steps=60, batch_size=8, rates=(2e-4, 6e-4))),
}
"""Sets; labels a class that each is fine-tuned with, None: all; and what two cores do in an hour and a half."""


def main() -> None:
    """Probe and fine-tune, and write what was found after every part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--only", nargs="+", choices=("probes", "finetuning"), default=["probes", "finetuning"])
    parser.add_argument("--tiny", action="store_true", help="next to no steps, to try it out")
    options = parser.parse_args()
    run = Run(options.out, options.data, float("inf"), options.tiny)
    run.results |= {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "probes": [], "finetuning": []}
    encoders: Encoders = {
        "pretrained": VideoMAEForPreTraining.from_pretrained("default"),
        "untrained": new_model(ABLATIONS[WAY], seed=0),
    }
    write_labels(options.data, options.out)
    for name in options.sets:
        (data,) = load_sets(run, (name,)).values()
        if "probes" in options.only:
            with run.part(f"probes {name}"):
                probes(run, encoders, data, layers=(None,))
        if "finetuning" in options.only:
            with run.part(f"fine-tune {name}"):
                finetune_set(run, encoders, data, *SETS[name])


def write_labels(data: Path, out: Path) -> None:
    """Write the labels and groups of each fold's test clips, for the table."""
    truth = {}
    for name in SETS:
        with np.load(data / f"{name}.npz") as file:
            if name == "motion":
                rows = [np.flatnonzero(file["roles"] == 2)]
                groups = np.arange(len(file["labels"])).astype(str)
            else:
                rows = [np.flatnonzero(file["folds"] == fold) for fold in np.unique(file["folds"])]
                groups = file["groups"]
            labels = file["labels"]
            truth[name] = [{"labels": labels[one].tolist(), "groups": groups[one].tolist()} for one in rows]
    out.mkdir(parents=True, exist_ok=True)
    (out / "labels.json").write_text(json.dumps(truth), encoding="utf-8")


if __name__ == "__main__":
    main()
