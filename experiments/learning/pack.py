"""Make a model folder of what `run.py main` left: `python -m experiments.learning.pack DIR OUT`.

The weights are stored as float16, which is how they came off the device; `training.json` beside them is the log.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from experiments.learning.settings import NUM_FRAMES, SIZE, Pretraining, model_config
from videomae import VideoMAEForPreTraining, __version__
from videomae.sharing.record import save_record
from videomae.train.pretrain import training_processor
from videomae.video.sampling import ClipConfig

STRIDE = 2  # of the frames of a video; procedural clips are drawn at 1 and move as fast as real ones at about 2


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = json.loads((options.results / "results.json").read_text())
    log = results["pretraining"]
    model = VideoMAEForPreTraining(model_config(Pretraining(**log["settings"])))
    model.load_state_dict(torch.load(options.results / "encoder_fp16.pt"))
    model.half().save_pretrained(options.out)
    training_processor(SIZE).save_pretrained(options.out)
    training = {
        "stage": "pretraining",
        "steps": log["steps"],
        "videomae_version": __version__,
        "torch_version": results["machine"]["torch"],
        "python_version": results["machine"]["python"],
        "recipe": {
            **log["settings"],
            "mask": {"kind": log["settings"]["mask_kind"], "ratio": log["settings"]["mask_ratio"]},
        },
        "data": "procedural clips alone: ProceduralVideos(seed=0), 16 frames of 72 pixels, cropped to 64",
        "clips_drawn": log["clips_drawn"],
        "clip_views": log["views"],
        "device": results["machine"]["device"],
        "seconds": round(log["seconds"], 1),
        "command": "docs/learning.md",
    }
    clip = asdict(ClipConfig(num_frames=NUM_FRAMES, stride=STRIDE))
    save_record(options.out, {"clip": clip, "licence": "Apache-2.0", "training": training})
    weights = (options.out / "model.safetensors").read_bytes()
    log["sha256_of_model_safetensors"] = hashlib.sha256(weights).hexdigest()
    (options.out / "training.json").write_text(json.dumps(log, indent=1) + "\n")
    print(options.out, len(weights) / 1e6, "MB")


if __name__ == "__main__":
    main()
