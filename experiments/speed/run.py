"""How often fewer tokens of a clip change what is decided, and how much faster they are.

    python -m experiments.speed.run agreement ../shared/datasets/drone_infrared --out .../drone_infrared.json
    python -m experiments.speed.run time --out experiments/results/speed/time.json

`agreement`: the shipped encoder with a linear probe on all its tokens; each clip is decided by the probe of the fold
that had no clip of its group, once from all tokens and once from fewer. `time`: models of published sizes with random
weights and random clips; a forward pass on all tokens and one on fewer take turns.
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
from numpy.typing import NDArray
from torch import Tensor

from experiments.speed.ways import Way, encode, merging_flops, removed_for
from videomae.evaluation.uncertainty import accuracy_interval
from videomae.inference.clips import normalized, resized_frames
from videomae.inference.loaded import LoadedModel, load_encoder
from videomae.inference.token_choice import TokenChoice
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.model.encoder import VideoMAEModel
from videomae.probing.folds import group_folds
from videomae.probing.linear import choose_penalty, fit_linear
from videomae.video.opening import open_reader
from videomae.video.sampling import clip_indices

Float64 = NDArray[np.float64]
FOLDS, SEED = 5, 0
WAYS: dict[str, Way] = {
    "before": Way(),
    "squares": Way("squares"),
    "run": Way("run"),
    "random": Way("random"),
    "before, proportional attention": Way(proportional=True),
    "merging": Way(merges=True),
}


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("agreement", "time"))
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--speeds", type=float, nargs="+", default=(1.35, 2.0, 3.0))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--sizes", nargs="+", default=("default", "small", "base"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.part == "agreement":
        found |= agreement(options.data, options.speeds, options.ways)
    else:
        found |= times(options.sizes, options.speeds, options.ways, options.rounds)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


def agreement(data: Path, speeds: list[float], ways: list[str]) -> dict[str, Any]:
    """Return for each way and speed how many clips are decided as from all tokens, and the accuracies."""
    with (data / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    labels = np.array([classes.index(row["label"]) for row in rows])
    groups = np.unique([row["group"] for row in rows], return_inverse=True)[1].astype(np.int64)
    loaded = load_encoder("default", device="cpu")
    model = loaded.model
    assert isinstance(model, VideoMAEModel)
    clips = [middle_clip(loaded, data / row["path"]) for row in rows]

    def features(way: Way, **options: Any) -> tuple[Float64, Float64]:
        """Return the mean over tokens, weighed and not, `[n, D]` each."""
        both = [_pooled(*encode(model, _pixels(loaded, clip), way, **options)) for clip in clips]
        return np.concatenate([one[0] for one in both]), np.concatenate([one[1] for one in both])

    with torch.inference_mode():
        whole = features(Way())[0]
        folds = list(group_folds(labels, groups, folds=FOLDS, seed=SEED))
        probes = []
        for fold in folds:
            known = whole[fold.train], labels[fold.train]
            penalty = choose_penalty(*known, groups[fold.train], num_classes=len(classes), seed=SEED)
            probes.append(fit_linear(*known, penalty=penalty, num_classes=len(classes)))

        def decide(values: Float64) -> NDArray[np.int64]:
            decided = np.zeros(len(rows), np.int64)
            for fold, probe in zip(folds, probes, strict=True):
                decided[fold.test] = probe.probabilities(values[fold.test]).argmax(axis=1)
            return decided

        full = decide(whole)
        result: dict[str, Any] = {"all": {"accuracy": float((full == labels).mean()), "videos": len(rows)}}
        for speed in speeds:
            for name in ways:
                way, config = WAYS[name], model.config
                N = native_grid(config).num_tokens
                kept = TokenChoice(config, speed).num_kept(native_grid(config))
                torch.manual_seed(SEED)
                removed = removed_for(config, tokens=N, speed=speed) if way.merges else 0
                weighed, plain = features(way, num_kept=kept, removed=removed)
                entry = {"kept": kept, "removed": removed}
                for pooling, values in (("weighed", weighed), ("plain", plain)):
                    entry |= {pooling: _agreement(decide(values), full, labels, groups)}  # type: ignore[dict-item]
                result[f"{name}, speed {speed:g}"] = entry
                print(f"{name}, speed {speed:g}", json.dumps(entry), flush=True)
    return result


def _agreement(
    decided: NDArray[np.int64], full: NDArray[np.int64], labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> dict[str, float]:
    same = decided == full
    interval = accuracy_interval(same, groups, rng=np.random.default_rng(SEED))
    return {
        "agreement": float(same.mean()),
        "low": interval.low,
        "high": interval.high,
        "accuracy": float((decided == labels).mean()),
    }


def middle_clip(loaded: LoadedModel[Any], path: Path) -> Tensor:
    """Return the clip in the middle of a video, uint8 `[1, T, C, h, w]`."""
    with open_reader(path) as reader:
        (indices,) = clip_indices(len(reader), loaded.clip, num_views=1)
        return resized_frames(reader.frames, indices, loaded.processor)[None]


def _pixels(loaded: LoadedModel[Any], clip: Tensor) -> Tensor:
    return normalized(clip, loaded.processor, device=torch.device("cpu"))


def _pooled(tokens: Tensor, sizes: Tensor) -> tuple[Float64, Float64]:
    weights = sizes / sizes.sum(dim=1, keepdim=True)
    weighed = torch.einsum("bn,bnd->bd", weights, tokens)
    return weighed.double().numpy(), tokens.mean(dim=1).double().numpy()


def times(sizes: list[str], speeds: list[float], ways: list[str], rounds: int) -> dict[str, Any]:
    """Return for each size, way and speed processor seconds of a clip, and how many times as fast it is."""
    result: dict[str, Any] = {}
    for size in sizes:
        if size == "default":
            loaded = load_encoder("default", device="cpu").model
            assert isinstance(loaded, VideoMAEModel)
            model = loaded
        else:
            model = VideoMAEModel(VideoMAEConfig.preset(size)).eval()
        config: VideoMAEConfig = model.config
        grid = native_grid(config)
        pixels = torch.randn(1, config.num_frames, config.num_channels, *config.image_height_width)
        for name in ways:
            for speed in speeds:
                way = WAYS[name]
                kept = TokenChoice(config, speed).num_kept(grid)
                removed = removed_for(config, tokens=grid.num_tokens, speed=speed) if way.merges else 0
                timed = _in_turn(
                    lambda: encode(model, pixels, Way()),  # noqa: B023
                    lambda: encode(model, pixels, way, num_kept=kept, removed=removed),  # noqa: B023
                    rounds=rounds,
                )
                ratios = [one / other for one, other in timed]
                entry = {
                    "tokens": grid.num_tokens,
                    "kept": kept,
                    "removed": removed,
                    "seconds_all": float(np.median([one for one, _ in timed])),
                    "seconds": float(np.median([other for _, other in timed])),
                    "ratio": float(np.median(ratios)),
                    "ratio_low": min(ratios),
                    "ratio_high": max(ratios),
                }
                if way.merges:
                    whole = merging_flops(config, tokens=grid.num_tokens, removed=0)
                    entry["fewer_operations"] = whole / merging_flops(config, tokens=grid.num_tokens, removed=removed)
                result[f"{size}, {name}, speed {speed:g}"] = entry
                print(f"{size}, {name}, speed {speed:g}", json.dumps(entry), flush=True)
    return result


@torch.inference_mode()
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
