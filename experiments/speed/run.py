"""How often fewer tokens of a clip change what is decided, and how much faster they are.

    python -m experiments.speed.run agreement ../shared/datasets/drone_infrared runs/a runs/b --out agreement.json
    python -m experiments.speed.run time --out experiments/results/speed/time.json
    python -m experiments.speed.run steps --sizes laptop small --out experiments/results/speed/steps.json

`agreement`: classifiers on the middle clips of the split test, each clip once with all tokens and once with fewer.
`time`: models of published sizes with random weights and random clips; a forward pass on all tokens and one on fewer
take turns, by processor time.
`steps`: the same of the forward and the backward pass of a step of fine-tuning; the update is the same for both.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from experiments.speed.ways import Way, logits_of
from videomae.engine.precision import autocast, compute_dtype
from videomae.evaluation.uncertainty import accuracy_interval
from videomae.inference.clips import normalized, resized_frames
from videomae.inference.loaded import load_classifier
from videomae.inference.token_merging import MergingClassifier
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.recipes.schema import FinetuneRecipe, load_recipe
from videomae.video.opening import open_reader
from videomae.video.sampling import clip_indices

CPU, BATCH, SEED = torch.device("cpu"), 8, 0
WAYS = {
    "merged": Way("merged"),
    "merged, counted once": Way("merged", proportional=False, weighed=False),
    "merged at random": Way("merged at random"),
    "changed": Way("changed"),
    "changed, counted once in attention": Way("changed", proportional=False),
    "random": Way("random"),
    "random, counted once": Way("random", proportional=False, weighed=False),
}


def main() -> None:
    """Run a part; what it finds is added to the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("agreement", "time", "steps"))
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--speeds", type=float, nargs="+", default=(1.35, 2.0, 2.5, 3.0))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--sizes", nargs="+", default=("small", "base"))
    parser.add_argument("--precision", choices=("auto", "fp32"), default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2, help="clips of a step")
    parser.add_argument("--cache", type=Path, help="file of clips, written if it is missing")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    dtype = compute_dtype(options.precision, CPU)

    def keep(name: str, values: dict[str, Any]) -> None:
        found = json.loads(options.out.read_text()) if options.out.exists() else {}
        found[name] = {**values, "precision": str(dtype).removeprefix("torch."), "torch": torch.__version__}
        options.out.write_text(json.dumps(found, indent=1) + "\n")
        print(name, json.dumps(values), flush=True)

    with torch.set_grad_enabled(options.part == "steps"), autocast(CPU, dtype):
        if options.part == "agreement":
            agreement(options, keep)
        elif options.part == "steps":
            steps(options, keep)
        else:
            times(options, keep)


def agreement(options: argparse.Namespace, keep: Callable[[str, dict[str, Any]], None]) -> None:
    """Tell for each speed and way how many clips are decided as from all tokens, over all models."""
    with (options.data / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    loaded = [load_classifier(model, device="cpu") for model in options.models]

    def middle(path: Path) -> Tensor:
        with open_reader(path) as reader:
            (indices,) = clip_indices(len(reader), loaded[0].clip, num_views=1)
            return resized_frames(reader.frames, indices, loaded[0].processor)

    clips = _kept(options.cache, lambda: torch.stack([middle(options.data / row["path"]) for row in rows]))
    batches = [normalized(one, loaded[0].processor, device=CPU) for one in clips.split(BATCH)]
    groups = np.unique([row["group"] for row in rows], return_inverse=True)[1].astype(np.int64)
    ids = [loaded[0].model.config.label2id[row["label"]] for row in rows]
    labels = np.array(ids)[None].repeat(len(loaded), axis=0)  # [m, n]

    def probabilities(call: Callable[[VideoMAEForVideoClassification, Tensor], Tensor]) -> NDArray[np.float64]:
        """Return `[m, n, K]` of all models."""
        found = [torch.cat([call(one.model, batch) for batch in batches]) for one in loaded]
        result: NDArray[np.float64] = torch.stack(found).double().softmax(dim=-1).numpy()
        return result

    whole = probabilities(lambda model, pixels: model(pixels).logits)
    full = whole.argmax(axis=-1)
    keep("all", {"accuracy": (full == labels).mean(axis=1).tolist(), "videos": len(rows)})
    for speed in options.speeds:
        for name in options.ways:
            torch.manual_seed(SEED)
            way = WAYS[name]
            fewer = probabilities(lambda model, pixels: logits_of(model, pixels, way, speed=speed))  # noqa: B023
            decided = fewer.argmax(axis=-1)
            same = (decided == full).ravel()  # [m * n]
            units = np.tile(groups, len(loaded))
            interval = accuracy_interval(same, units, rng=np.random.default_rng(SEED))
            values = {
                "agreement": float(same.mean()),
                "interval": [interval.low, interval.high],
                "of_each_model": (decided == full).mean(axis=1).tolist(),
                "accuracy": (decided == labels).mean(axis=1).tolist(),
                "largest_change_of_a_probability": float(np.abs(fewer - whole).max(axis=-1).mean()),
            }
            keep(f"speed {speed:g}, {name}", values)


def _kept(cache: Path | None, read: Callable[[], Tensor]) -> Tensor:
    if cache is not None and cache.exists():
        return torch.from_numpy(np.load(cache))
    clips = read()
    if cache is not None:
        np.save(cache, clips.numpy())
    return clips


def times(options: argparse.Namespace, keep: Callable[[str, dict[str, Any]], None]) -> None:
    """Tell for each size, speed and way the processor seconds of a clip, and how many times as fast it is."""
    for size in options.sizes:
        if Path(size).exists():
            model, title = load_classifier(size, device="cpu").model, "small clips"
        else:
            model, title = VideoMAEForVideoClassification(VideoMAEConfig.preset(size)).eval(), size
        config = model.config
        pixels = torch.randn(1, config.num_frames, config.num_channels, *config.image_height_width)
        for speed in options.speeds:
            merging = MergingClassifier(model, speed)
            for name in options.ways:
                fast = merging if name == "merged" else lambda one: logits_of(model, one, WAYS[name], speed=speed)  # noqa: B023
                timed = _in_turn(lambda: model(pixels), lambda: fast(pixels), rounds=options.rounds)  # noqa: B023
                values = _compared(merging, timed)
                keep(f"{title}, speed {speed:g}, {name}, {options.precision}", values)


def _compared(merging: MergingClassifier, timed: list[tuple[float, float]]) -> dict[str, Any]:
    """Return what turns of all tokens and of fewer, in seconds, say."""
    grid, ratios = native_grid(merging.model.config), [one / other for one, other in timed]
    return {
        "tokens": grid.num_tokens,
        "fewer_operations": merging.fewer_operations(grid),
        "seconds_all": float(np.median([one for one, _ in timed])),
        "seconds": float(np.median([other for _, other in timed])),
        "ratio": float(np.median(ratios)),
        "range": [min(ratios), max(ratios)],
    }


def steps(options: argparse.Namespace, keep: Callable[[str, dict[str, Any]], None]) -> None:
    """Tell for each size and speed the processor seconds of a step's forward and backward pass."""
    for size in options.sizes:
        if size == "laptop":
            recipe = load_recipe(FinetuneRecipe, "laptop", ["--data.train", "."])
            config = recipe.model.build(recipe.clip)
        else:
            config = VideoMAEConfig.preset(size)
        model = VideoMAEForVideoClassification(config.replace(drop_path_rate=0.1)).train()
        shape = (options.batch, config.num_frames, config.num_channels, *config.image_height_width)
        pixels, labels = torch.randn(shape), torch.zeros(options.batch, dtype=torch.int64)

        def step(call: Callable[[Tensor], Any]) -> None:
            model.zero_grad(set_to_none=True)  # noqa: B023
            F.cross_entropy(call(pixels).logits, labels).backward()  # noqa: B023

        for speed in options.speeds:
            merging = MergingClassifier(model, speed)
            timed = _in_turn(lambda: step(model), lambda: step(merging), rounds=options.rounds)  # noqa: B023
            values = {"clips": options.batch, **_compared(merging, timed)}
            keep(f"step, {size}, speed {speed:g}, {options.precision}", values)


def _in_turn(one: Callable[[], object], other: Callable[[], object], *, rounds: int) -> list[tuple[float, float]]:
    """Return the processor seconds of two calls that take turns; the first round is not counted."""
    timed = []
    for _ in range(rounds + 1):
        pair = []
        for call in (one, other):
            start = time.process_time()
            call()
            pair.append(time.process_time() - start)
        timed.append((pair[0], pair[1]))
    return timed[1:]


if __name__ == "__main__":
    main()
