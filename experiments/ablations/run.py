"""Run what docs/small-data.md tabulates: `python -m experiments.ablations.run DATA OUT`.

DATA holds motion.npz of `experiments.learning.make_motion`, and fight.npz and drone_infrared.npz of
`experiments/prepare_clips.py`. OUT gets a JSON file for each way and seed. Several processes may run at once and
share the work; a process that was killed leaves a file `.claimed` to be removed.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import torch

from experiments.ablations.clips import held_out, labelled, pool_of, resized
from experiments.ablations.measuring import probes, time_means
from experiments.ablations.training import pretrain
from experiments.ablations.ways import WAYS, Way
from experiments.learning.reconstruction import measure
from videomae.masking import MaskConfig
from videomae.model.pretraining import VideoMAEForPreTraining

COMMON_MASK = MaskConfig(kind="tube", ratio=0.75)  # of the measurement, whatever the training's was


def main() -> None:
    """Run all jobs that no process has claimed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time of a pre-training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="names that contain this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for name, way in WAYS.items():
            file = options.out / f"{file_name(name)}-{seed}.json"
            if (options.only and options.only not in name) or not claim(file):
                continue
            model, row = one_run(way, options.data, seed=seed, seconds=options.seconds)
            torch.save(model.state_dict(), file.with_suffix(".pt"))
            file.write_text(json.dumps({"name": name, "seed": seed, **row}))
            file.with_suffix(".claimed").unlink()
            print(name, seed, *(f"{key} {row[key]['accuracy']:.3f}" for key in ("linear", "neighbours")), flush=True)


def file_name(name: str) -> str:
    """Return the name of a way as part of a file's name."""
    return re.sub(r"[^a-zA-Z0-9.]+", "-", name)


def claim(file: Path) -> bool:
    """Return whether this process is the one to make the file."""
    if file.exists():
        return False
    try:
        file.with_suffix(".claimed").open("x").close()
    except FileExistsError:
        return False
    return True


def one_run(way: Way, data: Path, *, seed: int, seconds: float) -> tuple[VideoMAEForPreTraining, dict[str, Any]]:
    """Pre-train and measure."""
    model, record = pretrain(way, pool_of(way, data), seed=seed, seconds=seconds)
    motion = labelled(data, "motion")
    unseen = resized(held_out(data)[:, :: way.frame_step], way)
    found = measure(model, unseen, COMMON_MASK, baselines=seed == 0)
    return model, {**record, "fvu": found, **probes(time_means(model, motion, way), motion, motion.splits[0])}


if __name__ == "__main__":
    main()
