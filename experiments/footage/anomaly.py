"""How well anomalies are told from ordinary footage: planted ones, and a class that was never shown.

    python -m experiments.footage.anomaly planted --out experiments/results/footage/anomaly-planted.json
    python -m experiments.footage.anomaly drone ../shared/datasets/drone_infrared --out .../anomaly-drone.json

Each is done with the shipped model, with an untrained one of its shape, and with pixels in the place of features. The
detector is fitted in the same way in all three.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from videomae.anomaly.configs import AnomalyConfig
from videomae.anomaly.detector import Detector, fit_detector
from videomae.anomaly.measures import WindowMeasures, measure_clips
from videomae.data.synthetic import motion_frames
from videomae.engine.seeding import numpy_generator
from videomae.inference.clips import resized_frames
from videomae.inference.loaded import LoadedModel, load_pretraining
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.video.opening import open_reader

Float64 = NDArray[np.float64]
Frames = NDArray[np.uint8]
METHODS = ("trained", "untrained", "pixels")
DRAWS = 2000
DRONE_STARTS = (0.45,)  # of a clip: where its windows begin
PLANTED_FIT, PLANTED_TEST = 40, 16  # videos of ordinary footage, and of each kind of test video
KINDS = ("freeze", "noise", "fast", "reversed", "intruder")


class Footage(NamedTuple):
    """Windows of one video, as clips."""

    name: str
    group: str
    clips: torch.Tensor  # uint8 [n, T, C, h, w]


def measured(
    method: str, loaded: LoadedModel[VideoMAEForPreTraining], footage: Sequence[Footage]
) -> list[WindowMeasures]:
    """Measure videos by one of `METHODS`."""
    config = AnomalyConfig(masks=2)
    found = []
    for video in footage:
        times = np.arange(len(video.clips), dtype=np.float64)
        if method == "pixels":
            features, errors = pixel_measures(video.clips)
        else:
            parts = [measure_clips(loaded, one, config) for one in video.clips.split(4)]
            features, errors = (np.concatenate(values) for values in zip(*parts, strict=True))
        found.append(WindowMeasures(times, times + 1, features, errors))
    return found


def pixel_measures(clips: torch.Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a thumbnail of the mean frame and of the motion as features, the motion at each position as error."""
    gray = clips.float().mean(dim=2)  # [n, T, h, w]
    small = torch.nn.functional.adaptive_avg_pool2d(gray, 8)  # [n, T, 8, 8]
    motion = small.diff(dim=1).abs().mean(dim=1)  # [n, 8, 8]
    features = torch.cat((small.mean(dim=1).flatten(1), motion.flatten(1)), dim=1)  # [n, 128]
    return features.numpy(), motion.numpy()


def models() -> dict[str, LoadedModel[VideoMAEForPreTraining]]:
    """Load the shipped model, and one of its shape with random weights."""
    trained = load_pretraining("default", device="cpu")
    torch.manual_seed(0)
    untrained = VideoMAEForPreTraining(trained.model.config).eval()
    return {"trained": trained, "untrained": replace(trained, model=untrained), "pixels": trained}


def interval(scores: Float64, labels: NDArray[np.int64], groups: Sequence[str]) -> dict[str, float]:
    """Return the AUROC and its 95 % bootstrap interval over groups of videos."""
    rng = np.random.default_rng(0)
    names, of_group = np.unique(np.array(groups), return_inverse=True)
    members = [np.flatnonzero(of_group == number) for number in range(len(names))]
    draws = []
    for _ in range(DRAWS):
        chosen = np.concatenate([members[number] for number in rng.integers(0, len(names), len(names))])
        if 0 < labels[chosen].sum() < len(chosen):
            draws.append(roc_auc_score(labels[chosen], scores[chosen]))
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"auroc": float(roc_auc_score(labels, scores)), "low": float(low), "high": float(high)}


def judged(
    detector: Detector, measures: Sequence[WindowMeasures], labels: Sequence[int], groups: Sequence[str]
) -> dict[str, object]:
    """Score videos by the mean over their windows; tell the AUROC of each score, and the false alarms."""
    scores = [detector.scores(one) for one in measures]
    result: dict[str, object] = {}
    for name in ("score", "distance", "error"):
        values = np.array([getattr(one, name).mean() for one in scores])
        result[name] = interval(values, np.array(labels), groups)
    ordinary = np.concatenate([one.score for one, label in zip(scores, labels, strict=True) if not label])
    result["false_alarms"] = float((ordinary > detector.threshold).mean())
    unusual = np.concatenate([one.score for one, label in zip(scores, labels, strict=True) if label])
    result["windows_found"] = float((unusual > detector.threshold).mean())
    return result


def planted_frames(kind: str | None, number: int) -> Frames:
    """Draw a video of 32 frames of sprites that move straight on, with something unusual in it."""
    rng = numpy_generator(7, "anomaly experiment", kind or "ordinary", number)
    frames = motion_frames(("left", "right", "up", "down")[number % 4], size=64, num_frames=96, rng=rng)
    match kind:
        case "freeze":
            return np.repeat(frames[:1], 32, axis=0)
        case "noise":
            noise = rng.normal(0, 25, (32, 64, 64, 3))
            return np.clip(frames[:32] + noise, 0, 255).astype(np.uint8)
        case "fast":
            return frames[:96:3]
        case "reversed":  # back and forth: turns round in the middle
            return np.concatenate((frames[:16], frames[15::-1]))
        case "intruder":  # a checkered block that is pasted over the picture
            block = np.indices((18, 18)).sum(axis=0) // 3 % 2 * 255
            top, left = rng.integers(0, 46, 2)
            frames[:, top : top + 18, left : left + 18] = block[..., None]
    return frames[:32]


def as_clip(loaded: LoadedModel[VideoMAEForPreTraining], frames: Frames) -> torch.Tensor:
    """Return the clip of a video of 32 frames, uint8 `[1, T, C, h, w]`."""
    return resized_frames(lambda wanted: frames[wanted], np.arange(0, 32, 2), loaded.processor)[None]


def planted() -> dict[str, object]:
    """Measure planted anomalies, each kind against ordinary videos."""
    loaded = models()

    def clip(kind: str | None, number: int) -> torch.Tensor:
        return as_clip(loaded["trained"], planted_frames(kind, number))

    fit = [Footage(f"fit {n}", f"fit {n}", clip(None, n)) for n in range(PLANTED_FIT)]
    tests: dict[str | None, list[Footage]] = {
        kind: [Footage(f"{kind} {n}", f"{kind} {n}", clip(kind, 1000 + n)) for n in range(PLANTED_TEST)]
        for kind in (None, *KINDS)
    }
    result: dict[str, object] = {"fit": PLANTED_FIT, "test_of_each": PLANTED_TEST}
    for method in METHODS:
        detector = fit_detector(measured(method, loaded[method], fit), AnomalyConfig(false_alarms=0.1))
        ordinary = measured(method, loaded[method], tests[None])
        rows: dict[str, object] = {}
        for kind in KINDS:
            unusual = measured(method, loaded[method], tests[kind])
            labels = [0] * len(ordinary) + [1] * len(unusual)
            groups = [one.group for one in (*tests[None], *tests[kind])]
            rows[kind] = judged(detector, [*ordinary, *unusual], labels, groups)
        result[method] = rows
        print(method, json.dumps(rows), flush=True)
    return result


def drone(folder: Path) -> dict[str, object]:
    """Fit on three classes of the train split, test on their other clips and on the fourth class."""
    loaded = models()
    with open(folder / "labels.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    footage = [
        Footage(row["path"], row["group"], drone_clips(loaded["trained"], folder / row["path"])) for row in rows
    ]
    result: dict[str, object] = {"videos": len(rows), "windows_of_each": len(DRONE_STARTS)}
    classes = sorted({row["label"] for row in rows})
    for method in METHODS:
        start = time.monotonic()
        measures = measured(method, loaded[method], footage)
        seconds = time.monotonic() - start
        found: dict[str, object] = {"seconds": seconds}
        for unseen in classes:
            fit = [n for n, row in enumerate(rows) if row["label"] != unseen and row["split"] == "train"]
            fitted_groups = {rows[n]["group"] for n in fit}
            test = [
                n
                for n, row in enumerate(rows)
                if row["group"] not in fitted_groups and (row["label"] == unseen or row["split"] != "train")
            ]
            config = AnomalyConfig(false_alarms=0.05)
            groups = [rows[n]["group"] for n in fit]
            detector = fit_detector([measures[n] for n in fit], config, groups=groups)
            labels = [int(rows[n]["label"] == unseen) for n in test]
            found[unseen] = {
                "fit": len(fit),
                "ordinary": labels.count(0),
                "unseen": labels.count(1),
                "groups": len({rows[n]["group"] for n in test}),
                **judged(detector, [measures[n] for n in test], labels, [rows[n]["group"] for n in test]),
            }
        result[method] = found
        print(method, json.dumps(found), flush=True)
    return result


def drone_clips(loaded: LoadedModel[VideoMAEForPreTraining], path: Path) -> torch.Tensor:
    """Read the windows of a clip, uint8 `[n, T, C, h, w]`."""
    span = loaded.clip.span
    with open_reader(path) as reader:
        starts = [int(place * max(len(reader) - span, 0)) for place in DRONE_STARTS]
        frames = [np.minimum(start + np.arange(0, span, loaded.clip.stride), len(reader) - 1) for start in starts]
        return torch.stack([resized_frames(reader.frames_in_order, one, loaded.processor) for one in frames])


def main() -> None:
    """Run one experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("planted", "drone"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    run: Callable[[], dict[str, object]] = planted if options.what == "planted" else lambda: drone(options.folder)
    options.out.write_text(json.dumps(run(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
