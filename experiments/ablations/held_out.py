"""Add the held-out loss to what `run.py` wrote, and pack it: `python -m experiments.ablations.held_out DATA OUT`.

The loss is that of pre-training with normalized targets, over all hidden tokens of clips that were never trained on,
with one mask for all ways. Models that predict pixels have none. OUT/results.jsonl gets a line for each run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from experiments.ablations.clips import held_out, resized
from experiments.ablations.run import COMMON_MASK
from experiments.ablations.training import new_model
from experiments.ablations.ways import WAYS, Way
from experiments.learning.settings import normalized
from videomae.masking import draw_masks
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import VideoMAEForPreTraining

PACKED = "results.jsonl"


def main() -> None:
    """Write the packed file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for file in sorted(options.out.glob("*.json")):
        row = json.loads(file.read_text())
        way = WAYS[row["name"]]
        if "held_out_loss" not in row:
            model = new_model(way, seed=row["seed"])
            model.load_state_dict(torch.load(file.with_suffix(".pt")))
            row["held_out_loss"] = loss(model.eval(), way, options.data) if way.targets == "normalized" else None
            file.write_text(json.dumps(row))
        lines.append(json.dumps(packed(row)))
    (options.out / PACKED).write_text("\n".join(lines) + "\n")
    print(options.out / PACKED, len(lines), "runs")


@torch.no_grad()
def loss(model: VideoMAEForPreTraining, way: Way, data: Path) -> float:
    """Return the mean loss over the held-out clips."""
    grid, generator = native_grid(model.config), torch.Generator().manual_seed(1)
    clips = resized(held_out(data)[:, :: way.frame_step], way)
    losses = []
    for part in clips.split(32):
        masks = draw_masks(COMMON_MASK, grid, batch=len(part), generator=generator)
        output = model(normalized(part, torch.float32), visible_indices=masks.visible, decoded_indices=masks.decoded)
        losses.append(output.loss)
    return float(torch.stack(losses).mean())


def packed(row: dict[str, Any]) -> dict[str, Any]:
    """Write which clips were right as text of 0 and 1."""
    return {
        key: "".join(map(str, value)) if key == "correct" else packed(value) if isinstance(value, dict) else value
        for key, value in row.items()
    }


def unpacked(row: dict[str, Any]) -> dict[str, Any]:
    """Undo `packed`."""
    return {
        key: [int(one) for one in value]
        if key == "correct"
        else unpacked(value)
        if isinstance(value, dict)
        else value
        for key, value in row.items()
    }


if __name__ == "__main__":
    main()
